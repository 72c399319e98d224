"""One small file of each kind that decode_image reads, made by code: where fuzzing starts from."""

from typing import Any

import numpy as np
from encoders import compressed, extended_jpeg, htj2k, jpeg_2000, jpeg_ls, lossless_jpeg
from files import animated, dicom, jpeg, png_chunk, region, save, tiff
from PIL import Image
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)


def make_seeds() -> dict[str, bytes]:
    """File name -> bytes."""
    rows, columns = np.mgrid[:64, :64].astype(np.uint8)
    grey = 2 * rows + columns  # smooth: small files, in which more of the changes fall on headers
    colours = np.stack([grey, 4 * rows, 255 - columns], axis=2)
    wide = grey.astype("<u2") * 16
    oriented = Image.Exif()
    oriented[0x0112] = 6
    clear = np.dstack([colours, grey])
    seeds = {
        "grey.png": save(grey, "PNG"),
        "colour.png": save(colours, "PNG", exif=oriented),
        "alpha.png": save(clear, "PNG"),
        "16 bits.png": save(Image.fromarray(wide), "PNG"),
        "animated.png": animated("PNG", [colours, colours[::-1]]),
        "grey.jpg": save(grey, "JPEG", exif=oriented),
        "colour.jpg": save(colours, "JPEG"),
        "progressive.jpg": save(colours, "JPEG", progressive=True),
        "unmarked.jpg": jpeg(colours, marks=b""),
        "grey.bmp": save(grey, "BMP"),
        "colour.bmp": save(colours, "BMP"),
        "grey.webp": save(grey, "WEBP"),
        "lossless.webp": save(clear, "WEBP", lossless=True),
        "animated.webp": animated("WEBP", [colours, colours[::-1]]),
        "16 bits.tif": tiff(wide),
        "float.tif": tiff(grey.astype(">f4")),
        "pages.tif": animated("TIFF", [colours, colours[::-1]]),
        "palette.png": save(Image.fromarray(colours).quantize(8), "PNG", transparency=3),
        "text.png": save(grey, "PNG")[:33] + png_chunk(b"tEXt", b"Comment\0none") + save(grey, "PNG")[33:],
        **{f"{kind}.tif": save(colours, "TIFF", compression=kind) for kind in ("tiff_lzw", "tiff_deflate", "jpeg")},
        "fax.tif": save(Image.fromarray(grey > 100), "TIFF", compression="group4"),
    }
    return seeds | _dicom_seeds(grey, colours, wide)


def _dicom_seeds(grey: np.ndarray, colours: np.ndarray, wide: np.ndarray) -> dict[str, bytes]:
    calibrated: dict[str, Any] = {"SequenceOfUltrasoundRegions": [region(), region(RegionLocationMinX0=61)]}
    window: dict[str, Any] = {"BitsStored": 12, "HighBit": 11, "WindowCenter": 900, "WindowWidth": 700}
    return {
        "explicit.dcm": dicom(grey, **calibrated),
        "implicit.dcm": dicom(colours, syntax=ImplicitVRLittleEndian, **calibrated),
        "big endian.dcm": dicom(grey, syntax=ExplicitVRBigEndian),
        "deflated.dcm": dicom(grey, syntax=DeflatedExplicitVRLittleEndian),
        "window.dcm": dicom(
            wide, **window, RescaleSlope=2, RescaleIntercept=-9, PhotometricInterpretation="MONOCHROME1"
        ),
        "frames.dcm": dicom(np.stack([grey] * 3), NumberOfFrames=3),
        "rle.dcm": dicom(colours, syntax=RLELossless),
        "palette.dcm": dicom(grey, **palette(16)),
        "segmented.dcm": dicom(grey, **segmented_palette()),
        "jpeg.dcm": compressed(
            colours, JPEGBaseline8Bit, save(colours, "JPEG"), PhotometricInterpretation="YBR_FULL_422"
        ),
        "extended.dcm": compressed(wide, JPEGExtended12Bit, extended_jpeg(wide), BitsStored=12, HighBit=11),
        "lossless.dcm": compressed(colours, JPEGLosslessSV1, lossless_jpeg(colours)),
        "jpeg ls.dcm": compressed(grey, JPEGLSLossless, jpeg_ls(grey)),
        "jpeg 2000.dcm": compressed(colours, JPEG2000Lossless, jpeg_2000(colours), PhotometricInterpretation="YBR_RCT"),
        "htj2k.dcm": compressed(grey, HTJ2KLossless, htj2k(grey)),
    }


def palette(bits: int, *, entries: int = 256, first: int = 0) -> dict[str, Any]:
    """Attributes of a PALETTE COLOR image whose colours are ramps up, down and half as steep."""
    ramp = np.linspace(0, 255, entries).astype(np.uint8)
    attributes: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for name, table in {"Red": ramp, "Green": 255 - ramp, "Blue": ramp // 2}.items():
        values = table.astype("<u2") << 8 if bits == 16 else table
        attributes[f"{name}PaletteColorLookupTableDescriptor"] = [entries % 65_536, first, bits]
        attributes[f"{name}PaletteColorLookupTableData"] = values.tobytes()
    return attributes


def segmented_palette() -> dict[str, Any]:
    """The same in segments of 16 bits (PS3.3 C.7.9.2): two values as they are, then a line over 254."""
    attributes: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for name, end in {"Red": 65_535, "Green": 32_768, "Blue": 256}.items():
        attributes[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        segments = np.array([0, 2, 0, 256, 1, 254, end], "<u2")
        attributes[f"Segmented{name}PaletteColorLookupTableData"] = segments.tobytes()
    return attributes
