"""Pictures that are no breast ultrasound, for measuring whether a model refuses them: made here, or found in packages.

Few and easy: photographs and slices that scikit-image, scikit-learn and pydicom bring for their own tests, noise,
blank and ruled pages, text, and a simulated scan under a colour box. Another organ under a linear probe is missing.
"""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from busi_core.errors import InvalidImageError
from busi_core.imaging.decode import decode_image
from busi_core.imaging.phantom import simulate_scan
from busi_core.types import Diagnosis, Grey

EACH = 10  # made pictures of a kind
HEIGHT, WIDTH = 300, 400


def foreign_pictures(seed: int = 0) -> Iterator[tuple[str, Grey]]:
    """Each picture with its kind, as in 'photograph'; those of packages that are not installed are left out."""
    yield from _made(np.random.default_rng(seed))
    yield from _photographs()
    yield from _slices()


def _made(rng: np.random.Generator) -> Iterator[tuple[str, Grey]]:
    for number in range(EACH):
        yield "noise", rng.integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8)
        yield "blurred noise", _to_grey(cv2.GaussianBlur(rng.normal(size=(HEIGHT, WIDTH)), (0, 0), 2.0 + number))
        real, imaginary = (cv2.GaussianBlur(rng.normal(size=(HEIGHT, WIDTH)), (0, 0), 1.5) for _ in range(2))
        yield "speckle without anatomy", _to_grey(np.hypot(real, imaginary))
        yield "blank or ruled page", _page(number)
        yield "text", _text(rng, on_black=number % 2 == 0)
        yield "simulated colour Doppler", _doppler(rng, number)


def _page(number: int) -> Grey:
    page = np.full((HEIGHT, WIDTH), 25 * number + 3, np.uint8)
    if number % 2:
        page[:: 10 + number] = 255 - page[0, 0]
    return page


def _text(rng: np.random.Generator, *, on_black: bool) -> Grey:
    paper, ink = (0, 255) if on_black else (255, 0)
    page = np.full((HEIGHT, WIDTH), paper, np.uint8)
    for row in range(30, HEIGHT, 32):
        line = "".join(chr(letter) for letter in rng.integers(65, 91, 25))
        cv2.putText(page, line, (5, row), cv2.FONT_HERSHEY_SIMPLEX, 0.8, ink, 2)
    return page


def _doppler(rng: np.random.Generator, number: int) -> Grey:
    """A simulated scan with red and blue flow in a colour box, in the grey values that the model would read."""
    grey = simulate_scan(list(Diagnosis)[number % 3], seed=100 + number, height=HEIGHT, width=WIDTH).grey
    rgb = np.repeat(grey[:, :, None], 3, axis=2)
    top, left = int(rng.integers(20, 100)), int(rng.integers(20, 160))
    flow = cv2.GaussianBlur(rng.normal(size=(180, 220)), (0, 0), 9.0)
    box = rgb[top : top + 180, left : left + 220]
    box[flow > flow.std()], box[flow < -flow.std()] = (230, 40, 20), (20, 60, 230)
    cv2.rectangle(rgb, (left, top), (left + 220, top + 180), (255, 255, 255), 1)
    return np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), np.uint8)


def _photographs() -> Iterator[tuple[str, Grey]]:
    for package, folder in (("skimage", "data"), ("sklearn", "datasets/images")):
        found = find_spec(package)
        if found is None or found.origin is None:
            continue
        for path in sorted((Path(found.origin).parent / folder).glob("*")):
            grey = _decode(path) if path.suffix in (".png", ".jpg") else None
            if grey is not None:
                yield "photograph or microscope", grey


def _slices() -> Iterator[tuple[str, Grey]]:
    """CT, MR and other slices among the test files that lie in pydicom's own wheel; nothing is downloaded."""
    import pydicom

    for path in sorted((Path(pydicom.__file__).parent / "data" / "test_files").rglob("*.dcm")):
        grey = _decode(path)
        if grey is not None:
            kind = str(pydicom.dcmread(path, stop_before_pixels=True).get("Modality", ""))
            yield f"DICOM {kind}" if kind in ("CT", "MR", "US") else "DICOM, other", grey


def _decode(path: Path) -> Grey | None:
    """As an upload would be; None for what is refused anyway, as files made to be broken are."""
    try:
        return decode_image(path.read_bytes()).grey
    except InvalidImageError:
        return None


def _to_grey(values: NDArray[Any]) -> Grey:
    low, high = np.quantile(values, [0.005, 0.995])
    scaled = np.clip((values - low) / max(high - low, 1e-9), 0, 1)
    return np.asarray(np.rint(scaled * 255), np.uint8)
