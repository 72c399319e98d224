"""Coverage-guided fuzzing of decoding: whatever the bytes, an image, a mask or an InvalidImageError comes out. X1.

    python tests/fuzz/fuzz_decode.py CORPUS_FOLDER -max_total_time=3600 -rss_limit_mb=1500 -timeout=60

Run from the project's root with `PYTHONPATH=.`; options are libFuzzer's. The seeds, one small file of each kind, are
written into the folder first; a folder that was fuzzed before goes on from there. Decoders that run in a process of
their own are replaced by one that answers at once: a crash of theirs is refused like any other failure (tests of
sandbox.py), and starting a process for each input would leave no time for the rest.
"""

import sys
import warnings
from contextlib import suppress
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))

with atheris.instrument_imports(include=["busi_core", "PIL", "pydicom"]):
    import numpy as np
    from seeds import make_seeds

    from busi_core.data.truth import read_mask
    from busi_core.errors import InvalidImageError
    from busi_core.imaging import dicom_pixels
    from busi_core.imaging.decode import decode_image
    from busi_core.imaging.jpeg_markers import FrameHeader
    from busi_core.types import DecodedImage


SEED_SIDE = 64  # of every seed


def answer_at_once(_codec: str, _stream: bytes, header: FrameHeader) -> np.ndarray:
    """What decode_confined gives for a frame whose header passed: so many pixels of that type."""
    shape = (header.height, header.width, header.samples) if header.samples > 1 else (header.height, header.width)
    return np.zeros(shape, f"{'i' if header.is_signed else 'u'}{-(-header.bits // 8)}")


def read_or_refuse(data: bytes) -> None:
    """As a scan and as a mask; anything but InvalidImageError ends the run with the input kept in a file."""
    with suppress(InvalidImageError):
        mask, _ = read_mask(data, SEED_SIDE, SEED_SIDE)
        if mask.dtype != np.bool_ or mask.shape != (SEED_SIDE, SEED_SIDE):
            raise TypeError(f"read_mask gave {mask.dtype} {mask.shape}")
    try:
        image = decode_image(data, frame=(None, 0, 1)[len(data) % 3])
    except InvalidImageError:
        return
    if not isinstance(image, DecodedImage):
        raise TypeError(f"decode_image gave {type(image)}")


def main() -> None:
    corpus = Path(sys.argv[1])
    corpus.mkdir(parents=True, exist_ok=True)
    for name, data in make_seeds().items():
        (corpus / f"seed {name}").write_bytes(data)
    warnings.simplefilter("ignore")  # pydicom and Pillow warn of what they find; each is printed with the input's bytes
    dicom_pixels.decode_confined = answer_at_once
    atheris.Setup(sys.argv, read_or_refuse)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
