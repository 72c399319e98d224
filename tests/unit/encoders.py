"""Compressed DICOM frames for tests, made by encoders that are not the decoders of the product where there are any.

| frame                     | encoder here                     | decoder in the product     |
|---------------------------|----------------------------------|----------------------------|
| JPEG Lossless             | GDCM (IJG 6b), libjpeg-turbo     | Pillow (libjpeg-turbo)     |
| JPEG of 12 and 16 bits    | libjpeg-turbo                    | GDCM (IJG 6b)              |
| JPEG-LS                   | CharLS                           | CharLS                     |
| JPEG 2000                 | OpenJPEG, by Pillow and OpenCV   | OpenJPEG, another release  |
| HTJ2K                     | OpenJPH                          | OpenJPEG                   |

Lossless frames must give back the pixels that went in, whoever decodes. Files of further encoders come with pydicom.
"""

import tempfile
from pathlib import Path
from typing import Any

import gdcm
import numpy as np
import pydicom
from files import dicom
from imagecodecs import htj2k_encode, jpeg2k_encode, jpeg8_encode, jpegls_encode
from numpy.typing import NDArray
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import UID


def compressed(pixels: NDArray[Any], syntax: UID, *frames: bytes, **changes: Any) -> bytes:
    """A DICOM file of these frames; `pixels` gives the header its size, samples and bits."""
    return dicom(pixels, syntax=syntax, pixel_data=encapsulate(list(frames)), **changes)


def lossless_jpeg(pixels: NDArray[Any], *, predictor: int = 1) -> bytes:
    """JPEG process 14 by libjpeg-turbo, 8 or 16 bits; colours stay as they are."""
    space = "rgb" if pixels.ndim == 3 else "gray"
    return bytes(
        jpeg8_encode(
            pixels,
            lossless=True,
            predictor=predictor,
            colorspace=space,
            outcolorspace=space,
            bitspersample=8 * pixels.itemsize,
        )
    )


def extended_jpeg(pixels: NDArray[np.uint16], *, level: int = 95) -> bytes:
    """JPEG process 4 by libjpeg-turbo: 12 bits, lossy."""
    return bytes(jpeg8_encode(pixels, level=level, bitspersample=12))


def jpeg_ls(pixels: NDArray[Any], *, error: int = 0) -> bytes:
    """JPEG-LS by CharLS; `error` is the largest difference allowed."""
    return bytes(jpegls_encode(pixels, level=error))


def jpeg_2000(pixels: NDArray[Any], *, level: int = 0, transform: bool = True) -> bytes:
    """A JPEG 2000 codestream by OpenJPEG; `level` 0 is lossless, else a signal to noise ratio in dB."""
    return bytes(jpeg2k_encode(pixels, codecformat="j2k", level=level, reversible=not level, mct=transform))


def htj2k(pixels: NDArray[Any]) -> bytes:
    """A High-Throughput JPEG 2000 codestream by OpenJPH, lossless."""
    return bytes(htj2k_encode(pixels))


def by_gdcm(data: bytes, syntax: UID) -> tuple[pydicom.Dataset, bytes]:
    """The same DICOM file compressed by GDCM: its data set and its only frame."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "source.dcm", Path(folder) / "target.dcm"
        source.write_bytes(data)
        reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
        reader.SetFileName(str(source))
        assert reader.Read()
        change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(str(syntax))))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer.SetFileName(str(target))
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        assert writer.Write()
        dataset = pydicom.dcmread(target)
    return dataset, next(generate_frames(dataset.PixelData, number_of_frames=1))
