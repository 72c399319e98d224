"""A short hash of a scan's pixels that copies share: which scan it is, but nothing of how it looks.

    grey -32 x 32, cosine transform, signs of the 12 x 12 slowest waves against their median-> 143 bits as hex

Two scans count as one when at most `SAME_SCAN_BITS` bits differ. Over all pairs of the 1,760 development files of BUSI
and BUS-BRA this finds 87 % of the published pairs of copies (other crop, calipers, text) and no pair of two scans; a
renamed, re-encoded, scaled or brightened file differs by a few bits at most (docs/experiments.md). A thumbnail finds as
many, but it is a small picture of a patient; 143 signs are not, so they may lie beside the weights.

References:
    Zauner, "Implementation and benchmarking of perceptual image hash functions", 2010: the hash, there of 8 x 8 waves.
"""

from collections.abc import Iterable

import cv2
import numpy as np
from numpy.typing import NDArray

from busi_core.types import Grey

SIDE_PX = 32
WAVES = 12  # a side: 8 find 84 % of the published pairs, 16 find 88 %
HASH_BITS = WAVES * WAVES - 1  # without the mean
HASH_BYTES = -(-HASH_BITS // 8)
SAME_SCAN_BITS = 34  # at 36 the first 5 of 1.5 million pairs of different scans join

PackedHashes = NDArray[np.uint8]  # (n, HASH_BYTES)


def pixel_hash(grey: Grey) -> str:
    """The hash of a scan, as hex.

    Args:
        grey: (height, width) uint8.
    """
    small = cv2.resize(grey, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA).astype(np.float32)
    slowest = cv2.dct(small)[:WAVES, :WAVES].ravel()[1:]
    return np.packbits(slowest > np.median(slowest)).tobytes().hex()


def pack_hashes(hashes: Iterable[str]) -> PackedHashes:
    """Hashes ready to be compared.

    Raises:
        ValueError: One of them is no hash.
    """
    packed = [bytes.fromhex(one) for one in hashes]
    if any(len(one) != HASH_BYTES for one in packed):
        raise ValueError(f"a hash has {HASH_BYTES} bytes")
    return np.frombuffer(b"".join(packed), np.uint8).reshape(-1, HASH_BYTES)


def is_among(hashed: str, known: PackedHashes) -> bool:
    """Whether a scan is one of those known, or a copy of one."""
    differing = np.bitwise_count(known ^ pack_hashes([hashed])).sum(axis=1)
    return bool((differing <= SAME_SCAN_BITS).any())
