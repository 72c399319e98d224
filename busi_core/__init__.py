"""Reads breast-ultrasound scans: mask, class and heat map, measured without leaks. Research use only.

    from busi_core import Serving, choose_device, read_finding, read_settings

    settings = read_settings()
    analyser = Serving(settings.weights_dir, choose_device(settings.device)).current()
    analysis = analyser.analyse(Path("scan.png").read_bytes())
    finding = read_finding(analysis)

The public names are those of `__all__`; each is loaded when it is first asked for, so that a command that needs no
network does not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from busi_core.cross_validation import read_cross_validation as read_cross_validation
    from busi_core.errors import BusiError as BusiError
    from busi_core.errors import InvalidImageError as InvalidImageError
    from busi_core.errors import ModelUnavailableError as ModelUnavailableError
    from busi_core.evaluation import EvaluationReport as EvaluationReport
    from busi_core.evaluation import read_reports as read_reports
    from busi_core.findings import Finding as Finding
    from busi_core.findings import read_finding as read_finding
    from busi_core.imaging.decode import decode_image as decode_image
    from busi_core.imaging.phantom import simulate_scan as simulate_scan
    from busi_core.models.checkpoint import ModelCard as ModelCard
    from busi_core.service import Analyser as Analyser
    from busi_core.service import choose_device as choose_device
    from busi_core.serving import Serving as Serving
    from busi_core.settings import read_settings as read_settings
    from busi_core.types import Analysis as Analysis
    from busi_core.types import DecodedImage as DecodedImage
    from busi_core.types import Diagnosis as Diagnosis
    from busi_core.types import ImageWarning as ImageWarning

_HOMES = {
    "Analyser": "service",
    "Analysis": "types",
    "BusiError": "errors",
    "DecodedImage": "types",
    "Diagnosis": "types",
    "EvaluationReport": "evaluation",
    "Finding": "findings",
    "ImageWarning": "types",
    "InvalidImageError": "errors",
    "ModelCard": "models.checkpoint",
    "ModelUnavailableError": "errors",
    "Serving": "serving",
    "choose_device": "service",
    "decode_image": "imaging.decode",
    "read_finding": "findings",
    "read_cross_validation": "cross_validation",
    "read_reports": "evaluation",
    "read_settings": "settings",
    "simulate_scan": "imaging.phantom",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
