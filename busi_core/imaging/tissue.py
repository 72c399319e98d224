"""A generator of tiles that look a little like stained tissue, with a class for each pixel: of no patient.

Stands in where BCSS is not at hand, so that the tissue recipe can be trained, tested and shown.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

STROMA, TUMOUR, LYMPHOCYTES, NECROSIS, FAT = 2, 1, 3, 4, 9  # codes of `data.bcss`
COLOURS = {  # RGB of haematoxylin and eosin: nuclei blue, matrix pink, fat washed out
    STROMA: (226, 160, 196),
    TUMOUR: (150, 96, 170),
    LYMPHOCYTES: (110, 70, 150),
    NECROSIS: (208, 140, 150),
    FAT: (244, 238, 244),
}
NUCLEUS = (80, 50, 130)


def simulate_tile(seed: int, *, side: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """One tile.

    Args:
        seed: The same seed and side give the same tile.
        side: Pixels.

    Returns:
        (side, side, 3) uint8 RGB, and (side, side) uint8 codes.
    """
    random = np.random.default_rng(seed)
    codes = np.full((side, side), STROMA, np.uint8)
    for code, most in ((FAT, 3), (TUMOUR, 3), (NECROSIS, 1), (LYMPHOCYTES, 2)):
        for _ in range(int(random.integers(0, most + 1))):
            centre = tuple(int(place) for place in random.integers(0, side, 2))
            axes = tuple(int(axis) for axis in random.uniform(0.08, 0.3, 2) * side)
            cv2.ellipse(codes, centre, axes, float(random.uniform(0, 180)), 0, 360, code, -1)
    rgb = np.zeros((side, side, 3), np.float32)
    for code, colour in COLOURS.items():
        rgb[codes == code] = colour
    for _ in range(side * side // 400):  # nuclei: dense in tumour and lymphocytes, none in fat
        column, row = (int(place) for place in random.integers(0, side, 2))
        chance = {TUMOUR: 0.8, LYMPHOCYTES: 1.0, STROMA: 0.15, NECROSIS: 0.1, FAT: 0.0}[int(codes[row, column])]
        if random.random() < chance:
            cv2.circle(rgb, (column, row), int(random.integers(2, 5)), NUCLEUS, -1)
    noisy = cv2.GaussianBlur(rgb, (3, 3), 0) + random.normal(0, 8, rgb.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8), codes
