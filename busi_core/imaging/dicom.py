"""DICOM file -> its technical header, checked; calibration.py reads the regions, dicom_pixels.py the frames.

Read: every transfer syntax of `READ_SYNTAXES`. All others, video among them, are refused by name. Only the technical
attributes in `READ_KEYWORDS` are ever parsed: names, identifiers and dates stay in the file as unread bytes, so they
can reach neither a log nor a message. Of a sequence among them all that it holds is parsed.
"""

import io
import logging
import re
import warnings
import zlib
from dataclasses import dataclass
from typing import Final, cast

from pydicom import uid
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag

from busi_core.errors import InvalidImageError
from busi_core.imaging.calibration import read_regions
from busi_core.types import CalibratedRegion

PREAMBLE_BYTES = 128  # PS3.10 7.1: 128 free bytes, then the letters DICM
MARK_END = PREAMBLE_BYTES + 4
MAX_HEADER_BYTES = 4_000_000  # everything before the pixels; palettes and icons need less than 1 MB
MAX_INFLATED_BYTES = 80_000_000  # one RGB frame of 25 megapixels (75 MB) and its header
INFLATE_STEP_BYTES = 1_000_000  # how much a bomb may grow between two looks at the bound
MAX_HEADER_ITEMS = 20_000  # a 3D cine has some thousands; half a million cost pydicom 16 s and 600 MB
ITEM_TAGS = (b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00")  # PS3.5 7.5: (FFFE,E000), little and big endian

NATIVE_SYNTAXES = (uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian)
JPEG_SYNTAXES = (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLossless, uid.JPEGLosslessSV1)
JPEG_LS_SYNTAXES = (uid.JPEGLSLossless, uid.JPEGLSNearLossless)
JPEG_2000_SYNTAXES = (uid.JPEG2000Lossless, uid.JPEG2000, uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.HTJ2K)
ENCAPSULATED_SYNTAXES = (uid.RLELossless, *JPEG_SYNTAXES, *JPEG_LS_SYNTAXES, *JPEG_2000_SYNTAXES)  # PS3.5 A.4
READ_SYNTAXES = (*NATIVE_SYNTAXES, uid.DeflatedExplicitVRLittleEndian, *ENCAPSULATED_SYNTAXES)
LOSSY_SYNTAXES = (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLSNearLossless, uid.JPEG2000, uid.HTJ2K)

GREY = ("MONOCHROME1", "MONOCHROME2")
OTHER_KINDS = (
    "YBR_PARTIAL_422",
    "YBR_PARTIAL_420",
    "YBR_ICT",
    "YBR_RCT",
    "XYB",
    "HSV",
    "ARGB",
    "CMYK",
)  # PS3.3 C.7.6.3.1.2
COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422")
CONTRADICTIONS = (("MONOCHROME1", "IDENTITY"), ("MONOCHROME2", "INVERSE"))  # PS3.3 C.7.6.1: the other way round
TRANSFORMED = ("YBR_RCT", "YBR_ICT")  # RGB as JPEG 2000 stores it, PS3.3 C.7.6.3.1.2
READ_KEYWORDS = (
    *("SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames", "Rows", "Columns"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "SequenceOfUltrasoundRegions"),
    *("WindowCenter", "WindowWidth", "VOILUTFunction", "RescaleIntercept", "RescaleSlope", "ModalityLUTSequence"),
    *("VOILUTSequence", "PresentationLUTShape", "PixelPresentation", "PixelPaddingValue", "PixelPaddingRangeLimit"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
    *("RedPaletteColorLookupTableDescriptor", "RedPaletteColorLookupTableData"),
    *("GreenPaletteColorLookupTableDescriptor", "GreenPaletteColorLookupTableData"),
    *("BluePaletteColorLookupTableDescriptor", "BluePaletteColorLookupTableData"),
    *(f"Segmented{colour}PaletteColorLookupTableData" for colour in ("Red", "Green", "Blue")),
    *("ExtendedOffsetTable", "ExtendedOffsetTableLengths", "BurnedInAnnotation"),
    "PixelAspectRatio",
)
READ_TAGS: Final = [BaseTag(cast(int, tag_for_keyword(keyword))) for keyword in READ_KEYWORDS]
PIXEL_TAGS = (0x7FE00008, 0x7FE00009, 0x7FE00010)  # float, double float and integer pixel data

# Warnings and log of pydicom repeat what a file holds where a number or the name of a character set should be. What is
# wrong with a file is said by refusals; `warnings.catch_warnings` would not do, since it changes all threads at once.
logging.getLogger("pydicom").setLevel(logging.CRITICAL)
warnings.filterwarnings("ignore", module="pydicom")

REEXPORT = "Export the image from the scanner or archive again, uncompressed or as PNG."


@dataclass(frozen=True, eq=False)
class DicomFile:
    """The header of one DICOM file, checked, with its pixels not yet decoded.

    Attributes:
        height, width, frames: As the header claims; at least 1 each.
        regions: Calibrated parts of every frame.
        has_burned_in_text: Burned In Annotation (0028,0301) says YES: the pixels name the patient.
        has_square_pixels: False where Pixel Aspect Ratio (0028,0034) says otherwise.
        content: The whole file, inflated where it was deflated.
        syntax: Transfer syntax of `content`.
        attributes: The elements of `READ_KEYWORDS` that the file has.
        pixels_at: Offset of the Pixel Data element in `content`.
        pixel_bytes: Its stated length, or 0xFFFFFFFF for an undefined one.
    """

    height: int
    width: int
    frames: int
    regions: tuple[CalibratedRegion, ...]
    has_burned_in_text: bool
    has_square_pixels: bool
    content: bytes
    syntax: uid.UID
    attributes: Dataset
    pixels_at: int
    pixel_bytes: int


def is_dicom(data: bytes) -> bool:
    """Whether the bytes carry the DICOM mark after the preamble (PS3.10 7.1)."""
    return data[PREAMBLE_BYTES:MARK_END] == b"DICM"


def open_dicom(data: bytes) -> DicomFile:
    """Read the technical header of a DICOM file; no pixel is decoded.

    Raises:
        InvalidImageError: Transfer syntax not read here, inflates past the bound, no image inside, or a header
            that no image can have.
        Exception: Others, as pydicom raises them on damaged bytes; the caller turns them into a refusal.
    """
    syntax, start = _read_transfer_syntax(data)
    if syntax == uid.DeflatedExplicitVRLittleEndian:
        data = data[:start] + _inflate(data[start:])
        syntax = uid.ExplicitVRLittleEndian

    pixels: list[tuple[int, int]] = []

    def at_pixels(tag: BaseTag, _vr: str | None, length: int) -> bool:
        if tag in PIXEL_TAGS:
            pixels.append((tag, length))
        return tag in PIXEL_TAGS

    header_bytes = data[: start + MAX_HEADER_BYTES]
    if sum(header_bytes.count(tag) for tag in ITEM_TAGS) > MAX_HEADER_ITEMS:
        raise InvalidImageError(f"The DICOM header has more than {MAX_HEADER_ITEMS} items.", remedy=REEXPORT)
    header = io.BytesIO(header_bytes)
    header.seek(start)
    attributes = read_dataset(
        header, syntax.is_implicit_VR, syntax.is_little_endian, stop_when=at_pixels, specific_tags=list(READ_TAGS)
    )
    if not pixels and len(data) > len(header_bytes):
        raise InvalidImageError(
            f"The DICOM file has more than {MAX_HEADER_BYTES // 10**6} MB before its pixels, or no pixels.",
            remedy=REEXPORT,
        )
    if not pixels:
        raise InvalidImageError("The DICOM file holds no image, or is cut off before it.", remedy=REEXPORT)
    if attributes.original_encoding[0] != syntax.is_implicit_VR:  # pydicom reads on; the pixels would shift
        raise InvalidImageError("The DICOM header is not written in the way that it states.", remedy=REEXPORT)
    tag, pixel_bytes = pixels[0]
    if tag != 0x7FE00010:
        raise InvalidImageError("The DICOM file holds floating-point pixels, which no scanner shows.", remedy=REEXPORT)

    _require_known_pixels(attributes, syntax)
    height, width = _integer(attributes, "Rows"), _integer(attributes, "Columns")
    return DicomFile(
        height=height,
        width=width,
        frames=_integer(attributes, "NumberOfFrames", absent=1),
        regions=read_regions(attributes, height, width),
        has_burned_in_text=str(attributes.get("BurnedInAnnotation", "")).strip().upper() in ("YES", "Y"),
        has_square_pixels=len({int(side) for side in attributes.get("PixelAspectRatio") or ()}) <= 1,
        content=data,
        syntax=syntax,
        attributes=attributes,
        pixels_at=header.tell(),
        pixel_bytes=pixel_bytes,
    )


def _read_transfer_syntax(data: bytes) -> tuple[uid.UID, int]:
    """The transfer syntax, and where the data set starts (PS3.10 7.1)."""
    meta_file = io.BytesIO(data[: MARK_END + MAX_HEADER_BYTES])
    meta_file.seek(MARK_END)
    meta = read_dataset(
        meta_file,
        is_implicit_VR=False,
        is_little_endian=True,
        stop_when=lambda tag, _vr, _length: tag >> 16 != 2,
        specific_tags=[BaseTag(0x00020010)],
    )
    text = str(meta.get("TransferSyntaxUID", ""))
    if not re.fullmatch(r"[0-9.]{1,64}", text):
        raise InvalidImageError("The DICOM file does not say how its pixels are stored.", remedy=REEXPORT)
    syntax = uid.UID(text)
    if syntax in READ_SYNTAXES:
        return syntax, meta_file.tell()
    if any(word in syntax.name for word in ("MPEG", "HEVC", "H.264", "H.265")):
        raise InvalidImageError(
            f"The DICOM file is a video ({syntax.name}), which this tool does not read.",
            remedy="Export the one frame to be read as a still image.",
        )
    raise InvalidImageError(
        f"The DICOM file is stored as {syntax.name} ({text}), which this tool does not read."
        if syntax.name != text
        else f"The DICOM file is stored in an unknown way (transfer syntax {text}).",
        remedy=REEXPORT,
    )


def _inflate(deflated: bytes) -> bytes:
    """Undo the deflated transfer syntax (PS3.5 A.5, raw RFC 1951) without ever holding more than the bound."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    inflated = bytearray()
    for start in range(0, len(deflated), INFLATE_STEP_BYTES):
        waiting = deflated[start : start + INFLATE_STEP_BYTES]
        while waiting and not inflater.eof:
            inflated += inflater.decompress(waiting, INFLATE_STEP_BYTES)
            waiting = inflater.unconsumed_tail
            if len(inflated) > MAX_INFLATED_BYTES:
                raise InvalidImageError(
                    f"The compressed DICOM file unpacks to more than {MAX_INFLATED_BYTES // 10**6} MB.", remedy=REEXPORT
                )
    while not inflater.eof:  # all is read in, but the last steps may still wait inside zlib
        rest = inflater.decompress(b"", INFLATE_STEP_BYTES)
        if not rest:
            raise InvalidImageError("The compressed DICOM file is cut off.", remedy=REEXPORT)
        inflated += rest
    return bytes(inflated)


def _integer(attributes: Dataset, keyword: str, *, absent: int | None = None) -> int:
    """A count of the header, at least 1."""
    value = attributes.get(keyword)
    if value is None and absent is not None:
        return absent
    if not isinstance(value, int) or value < 1:
        raise InvalidImageError(f"The DICOM header gives no usable {keyword}.", remedy=REEXPORT)
    return int(value)


def _require_known_pixels(attributes: Dataset, syntax: uid.UID) -> None:
    """PS3.3 C.7.6.3 and PS3.5 8.2: only the combinations that ultrasound uses."""
    photometric = str(attributes.get("PhotometricInterpretation", "none"))
    colours = (*COLOURS, *TRANSFORMED) if syntax in JPEG_2000_SYNTAXES else COLOURS
    if photometric not in (*GREY, *colours, "PALETTE COLOR"):
        kind = (
            repr(photometric) if photometric in OTHER_KINDS else "that DICOM does not define"
        )  # free text is not told
        raise InvalidImageError(
            f"The DICOM file has pixels of a kind {kind}, which this tool does not read.", remedy=REEXPORT
        )
    shape = str(attributes.get("PresentationLUTShape", ""))
    if (photometric, shape) in CONTRADICTIONS:
        raise InvalidImageError(
            f"The DICOM header contradicts itself about black: {photometric} with Presentation LUT Shape {shape}.",
            remedy=REEXPORT,
        )
    if photometric in GREY and str(attributes.get("PixelPresentation", "")) in ("COLOR", "MIXED"):
        raise InvalidImageError(  # PS3.3 C.7.6.19, Supplemental Palette Color Lookup Table
            "The DICOM file shows some of its grey values in colour, which this tool does not read.", remedy=REEXPORT
        )
    samples, bits = _integer(attributes, "SamplesPerPixel"), _integer(attributes, "BitsAllocated")
    stored = _integer(attributes, "BitsStored", absent=bits)
    is_colour = photometric in colours
    if samples != (3 if is_colour else 1) or bits not in (8, 16) or (is_colour and bits != 8):
        raise InvalidImageError(
            f"The DICOM file has {samples} x {bits} bits a pixel as {photometric}, which this tool does not read.",
            remedy=REEXPORT,
        )
    if stored > bits or _integer(attributes, "HighBit", absent=stored - 1 or None) != stored - 1:
        raise InvalidImageError("The DICOM header contradicts itself about the bits of a pixel.", remedy=REEXPORT)
    is_plain = (bits, stored, attributes.get("PixelRepresentation", 0)) == (8, 8, 0)
    if (syntax == uid.JPEGBaseline8Bit and not is_plain) or (is_colour and not is_plain):
        raise InvalidImageError(
            f"The DICOM file states {photometric} of {stored} bits, which {syntax.name} cannot hold.", remedy=REEXPORT
        )
    if syntax in LOSSY_SYNTAXES and photometric == "PALETTE COLOR":
        raise InvalidImageError(
            "The DICOM file states PALETTE COLOR, which lossy compression cannot hold.", remedy=REEXPORT
        )
