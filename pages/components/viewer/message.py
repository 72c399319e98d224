"""One message of raw bytes to the browser: a length, a JSON header, then blobs that the header places.

Offsets count from the first byte after the header. Streamlit hands bytes inside a dict to a component as their
`str()`, hence one value of raw bytes. Shared by the viewer and the comparison.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from busi_core import Analysis, DecodedImage
from busi_core.findings import is_flagged
from busi_core.imaging.encode import encode_png
from busi_core.types import Heatmap

LENGTH_BYTES: Final = 4


def pack_message(header: dict[str, Any], blobs: "Blobs") -> bytes:
    """Length, header, blobs. The header gets `content`, a digest of the blobs: same digest, nothing is rebuilt."""
    body = blobs.joined()
    digest = hashlib.blake2b(body, digest_size=16).hexdigest()
    text = json.dumps(header | {"content": digest}, allow_nan=False).encode()
    return len(text).to_bytes(LENGTH_BYTES, "little") + text + body


def read_header(message: bytes) -> dict[str, Any]:
    """The header of a packed message."""
    length = int.from_bytes(message[:LENGTH_BYTES], "little")
    header: dict[str, Any] = json.loads(message[LENGTH_BYTES : LENGTH_BYTES + length])
    return header


def read_out(analysis: Analysis) -> str:
    """What is read out when the scan comes, for those who do not see the finding change."""
    diagnosis = analysis.prediction.diagnosis
    if analysis.withheld or diagnosis is None:
        return ""
    return f"{diagnosis.value}, flagged for malignancy" if is_flagged(analysis) else diagnosis.value


@dataclass(frozen=True)
class _Place:
    offset: int
    length: int


class Blobs:
    """Bytes laid end to end, each remembered by its place."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._length = 0

    def add(self, part: bytes) -> dict[str, Any]:
        """Append bytes; where they lie goes into the header."""
        place = _Place(self._length, len(part))
        self._parts.append(part)
        self._length += len(part)
        return asdict(place)

    def joined(self) -> bytes:
        """All of them."""
        return b"".join(self._parts)


def add_map(values: NDArray[np.float32], blobs: Blobs) -> dict[str, Any]:
    """Add a map at the model's side and describe it."""
    rows, columns = values.shape
    return {"rows": rows, "columns": columns, **blobs.add(values.astype("<f4").tobytes())}


def add_heatmap(heatmap: Heatmap, blobs: Blobs) -> dict[str, Any]:
    """Add a heat map and describe it."""
    described = {"of": heatmap.of, "score": heatmap.score, "grid": list(heatmap.grid)}
    return described | add_map(heatmap.evidence, blobs)


def scan_png(image: DecodedImage, height: int, width: int) -> bytes:
    """The scan on a grid of this size, grey when its colours carry nothing."""
    red, green, blue = np.moveaxis(image.rgb, -1, 0)
    is_grey = np.array_equal(red, green) and np.array_equal(green, blue)
    pixels = red if is_grey else image.rgb
    if (height, width) != (image.height, image.width):
        pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
    return encode_png(pixels)
