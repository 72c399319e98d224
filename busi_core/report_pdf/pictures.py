"""The pictures of one scan as the report shows them: scan, lesion, heat map and, with a reference, the difference."""

import io
from collections.abc import Mapping
from typing import Any, TypeAlias

import cv2
import numpy as np
from reportlab.lib.utils import ImageReader

from busi_core.imaging.overlay import draw_heatmap, draw_mask
from busi_core.report import ReportPictures, is_own_cutoff
from busi_core.types import ImageWarning, Mask, Rgb

PICTURE_QUALITY = 82  # JPEG
AGREED_RGB, MISSED_RGB, EXTRA_RGB = (100, 143, 255), (255, 176, 0), (220, 38, 127)  # as the Compare page's viewer
DIFFERENCE_OPACITY = 0.55
HEAT_CUTOFF = 0.3  # evidence below it is mostly the map's floor; as the viewer's

Caption: TypeAlias = tuple[tuple[str, str], ...]  # words, each with its colour


def caption_pictures(drawn: ReportPictures, record: Mapping[str, Any]) -> list[tuple[Rgb, Caption]]:
    """Each picture with its caption; three, or four with a reference; of an answer withheld the scan alone."""
    faint = "#59636e"
    pictures: list[tuple[Rgb, Caption]] = [(drawn.rgb, (("scan", faint),))]
    if record["withheld"]:
        return pictures
    by_first = ", 1st network" if ImageWarning.SECOND_OPINION.value in record["warnings"] else ""
    is_own = is_own_cutoff(record["threshold"], record["model_threshold"])
    lesion = "lesion by the model, cut-off" if is_own else "lesion at the reader's cut-off"
    lesion = lesion if record["lesion_pixels"] else f"no {lesion}"
    pictures += [
        (draw_mask(drawn.rgb, drawn.mask), ((f"{lesion} {record['threshold']:.2f}", faint),)),
        (
            draw_heatmap(drawn.rgb, np.where(drawn.evidence >= HEAT_CUTOFF, drawn.evidence, np.float32(0))),
            ((f"heat map, relative: {drawn.explains}{by_first}", faint),),
        ),
    ]
    if drawn.truth is not None:
        difference = draw_difference(drawn.rgb, drawn.mask, drawn.truth)
        pictures.append((difference, (("agreed", "#3d6fe0"), ("missed", "#b37b00"), ("extra", "#dc267f"))))
    return pictures


def draw_difference(rgb: Rgb, mask: Mask, truth: Mask) -> Rgb:
    """The scan with what both masks, only the truth and only the model call lesion, in three colours."""
    drawn = rgb.astype(np.float32)
    for part, colour in ((mask & truth, AGREED_RGB), (truth & ~mask, MISSED_RGB), (mask & ~truth, EXTRA_RGB)):
        drawn[part] = drawn[part] * (1 - DIFFERENCE_OPACITY) + np.array(colour, np.float32) * DIFFERENCE_OPACITY
    return np.rint(drawn).astype(np.uint8)


def pack_jpeg(rgb: Rgb, side_px: float) -> ImageReader:
    """A picture no larger than it will be printed, as reportlab takes it."""
    scale = min(1.0, side_px / max(rgb.shape[:2]))
    size = (max(1, round(rgb.shape[1] * scale)), max(1, round(rgb.shape[0] * scale)))
    small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    _, encoded = cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, PICTURE_QUALITY])
    return ImageReader(io.BytesIO(encoded.tobytes()))
