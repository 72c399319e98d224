"""Which version answers: the one in service, loaded once for all sessions, renewed when another is put in its place."""

import ctypes
import logging
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

import torch

from busi_core.errors import ModelUnavailableError
from busi_core.limits import LIMITS_FILE
from busi_core.models.checkpoint import CARD_FILE, MODEL_FILE, SECOND_OPINION_FILE
from busi_core.registry import check_version_name, read_registry
from busi_core.service import Analyser
from busi_core.taught import TAUGHT_FILE

logger = logging.getLogger(__name__)

_Seen: TypeAlias = tuple[str, tuple[int, ...]]  # a version's name and the stamp of its files


class Serving:
    """The analyser of the version in service, loaded once however many sessions ask, renewed when it changes.

    When a new version cannot be loaded, the one before stays and `problem` says why; it is tried again once its
    files have changed.
    """

    def __init__(self, weights_dir: Path, device: torch.device) -> None:
        self._weights_dir = weights_dir
        self._device = device
        self._lock = threading.Lock()
        self._analyser: Analyser | None = None
        self._loaded: _Seen | None = None
        self._refused: tuple[_Seen, ModelUnavailableError] | None = None

    @property
    def problem(self) -> ModelUnavailableError | None:
        """Why the version that the registry names is not the one that answers; None when it is."""
        return self._refused[1] if self._refused else None

    def current(self) -> Analyser:
        """The analyser that answers now.

        Raises:
            ModelUnavailableError: None could be loaded, and none was in service before.
        """
        with self._lock:
            seen: _Seen = ("", ())
            try:
                wanted = read_registry(self._weights_dir).in_service
                seen = (wanted, self.stamp(wanted))
                if self._analyser is not None and seen == self._loaded:
                    self._refused = None
                elif self._analyser is None or self._refused is None or self._refused[0] != seen:
                    self._analyser = self.load(wanted)
                    self._loaded, self._refused = seen, None
            except ModelUnavailableError as error:
                if self._analyser is None:
                    raise
                if self._refused is None or self._refused[0] != seen:
                    logger.warning("the version in service stays %s: %s", self._analyser.card.version, error)
                self._refused = (seen, error)
            return self._analyser

    def load(self, version: str) -> Analyser:
        """Load any version by name, for a comparison.

        Raises:
            ModelUnavailableError: There is no such version or it fails a check.
        """
        folder = self._weights_dir / check_version_name(version)
        analyser = Analyser.load(folder, self._device)
        _hand_back_memory()
        return analyser

    def stamp(self, version: str) -> tuple[int, ...]:
        """Another one whenever a file of the version is replaced, edited or removed."""
        found: tuple[int, ...] = ()
        for name in (CARD_FILE, MODEL_FILE, SECOND_OPINION_FILE, LIMITS_FILE, TAUGHT_FILE):
            with suppress(OSError):
                status = (self._weights_dir / version / name).stat()
                found += (status.st_ino, status.st_mtime_ns, status.st_size)
        return found


def _hand_back_memory() -> None:
    """Loading leaves some 70 MB behind, which glibc keeps until it is asked for them."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL(None).malloc_trim(0)
