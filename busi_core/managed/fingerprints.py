"""Fingerprints of `data.duplicates` on the disk: 256 numbers a scan, as JSON, exact."""

import base64
import json
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from busi_core.errors import DatasetError

Fingerprints: TypeAlias = NDArray[np.float32]  # (scans, 256)
LENGTH = 256


def encode_fingerprints(fingerprints: Fingerprints) -> dict[str, object]:
    """(n, 256) float32 as values for JSON."""
    packed = base64.b64encode(np.ascontiguousarray(fingerprints, "<f4").tobytes()).decode()
    return {"count": len(fingerprints), "float32": packed}


def decode_fingerprints(content: dict[str, object]) -> Fingerprints:
    """(n, 256) float32 of what `encode_fingerprints` gave.

    Raises:
        ValueError, KeyError, TypeError: It is something else.
    """
    packed, count = content["float32"], content["count"]
    if not isinstance(packed, str) or not isinstance(count, int):
        raise TypeError("fingerprints are a text and a count")
    values = np.frombuffer(base64.b64decode(packed, validate=True), "<f4")
    return np.asarray(values.reshape(count, LENGTH), np.float32)


def read_fingerprints(path: Path) -> Fingerprints:
    """(n, 256) float32 from a file.

    Raises:
        DatasetError: The file is missing or damaged.
    """
    try:
        return decode_fingerprints(json.loads(path.read_bytes()))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(
            f"The fingerprints of {path.parent.name} are missing or damaged.", remedy="Restore them from a backup."
        ) from error
