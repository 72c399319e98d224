"""Makers of upload files for tests: each returns the bytes of one small file; nothing binary lies in the repository."""

import io
import struct
import subprocess
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.filewriter import dcmwrite
from pydicom.pixels.encoders import RLELosslessEncoder
from pydicom.uid import UID, ExplicitVRLittleEndian, RLELossless, generate_uid

ULTRASOUND = "1.2.840.10008.5.1.4.1.1.6.1"


def speckle(height: int = 72, width: int = 96, *, seed: int = 0) -> NDArray[np.uint8]:
    """(height, width) noise in which every turn and flip shows."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(0, 155, width)[None, :] * np.linspace(0.3, 1, height)[:, None]
    return (ramp + rng.integers(0, 100, (height, width))).astype(np.uint8)


def save(image: Image.Image | NDArray[Any], format_name: str, **options: Any) -> bytes:
    """Encode with Pillow."""
    buffer = io.BytesIO()
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    picture.save(buffer, format_name, **options)
    return buffer.getvalue()


def read_grey(path: Path) -> NDArray[np.uint8]:
    """The pixels of a grey picture on the disk."""
    with Image.open(path) as picture:
        assert picture.mode == "L"
        return np.array(picture)


def animated(format_name: str, frames: Sequence[NDArray[np.uint8]]) -> bytes:
    """Several RGB frames in one GIF, WebP (lossless), TIFF or APNG."""
    first, *rest = [Image.fromarray(frame).convert("RGB") for frame in frames]
    options: dict[str, Any] = {"lossless": True} if format_name == "WEBP" else {}
    return save(first, format_name, save_all=True, append_images=rest, **options)


def png(
    width: int, height: int, *, bits: int = 8, colour_type: int = 0, rows: bytes | None = None, extra: bytes = b""
) -> bytes:
    """A PNG written by hand (ISO 15948), so that its header may claim what Pillow would not write.

    `rows` are the filtered rows, uncompressed; None means no pixels at all. `extra` are whole chunks that go
    between header and pixels.
    """
    chunks = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)) + extra
    if rows is not None:
        chunks += png_chunk(b"IDAT", zlib.compress(rows, 9))
    return b"\x89PNG\r\n\x1a\n" + chunks + png_chunk(b"IEND", b"")


def png_chunk(name: bytes, content: bytes) -> bytes:
    """One chunk with its length and checksum."""
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def black_png(width: int, height: int) -> bytes:
    """A valid 1-bit PNG of any size; 14000 x 14000 has 24 KB."""
    packer = zlib.compressobj(9)
    row = bytes(1 + (width + 7) // 8)
    body = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", body) + png_chunk(b"IEND", b"")


def tiff(
    pixels: NDArray[Any],
    *,
    photometric: int | None = None,
    orientation: int = 1,
    is_packed: bool = False,
    has_planes: bool = False,
    fill_order: int | None = None,
) -> bytes:
    """One page written by hand (TIFF 6.0) in the byte order and type of `pixels`, (height, width[, samples]).

    `is_packed` deflates it; `has_planes` says that each sample has a plane of its own, and writes it so. `photometric`
    is by default 1 (black is zero), of colour 2 (RGB). `fill_order` is only stated.
    """
    order = ">" if pixels.dtype.byteorder == ">" else "<"
    sample_format = {"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]
    height, width, samples = np.atleast_3d(pixels).shape
    planes = np.moveaxis(np.atleast_3d(pixels), -1, 0) if has_planes else pixels[None]
    strips = [zlib.compress(plane.tobytes()) if is_packed else plane.tobytes() for plane in planes]
    body = b"".join(strips)
    starts = [8 + sum(map(len, strips[:number])) for number in range(len(strips))]
    black = 1 if samples == 1 else 2
    tags = {256: [width], 257: [height], 258: [pixels.dtype.itemsize * 8] * samples, 259: [8 if is_packed else 1]}
    tags |= {262: [black if photometric is None else photometric]}
    tags |= {} if fill_order is None else {266: [fill_order]}
    tags |= {273: starts, 274: [orientation], 277: [samples]}
    tags |= {278: [height], 279: [len(strip) for strip in strips], 284: [2 if has_planes else 1]}
    tags |= {339: [sample_format] * samples}
    directory = b""
    for tag, values in tags.items():
        content = struct.pack(f"{order}{len(values)}I", *values)
        if len(values) > 1:
            content, body = struct.pack(f"{order}I", 8 + len(body)), body + content
        directory += struct.pack(f"{order}HHI", tag, 4, len(values)) + content
    mark = b"MM\0*" if order == ">" else b"II*\0"
    at = 8 + len(body)
    return mark + struct.pack(f"{order}I", at) + body + struct.pack(f"{order}H", len(tags)) + directory + bytes(4)


def tiff_chain(pages: int, entries: int, *, order: str = "<", is_big: bool = False) -> bytes:
    """A TIFF file of `pages` directories of `entries` entries each, all but the same bytes: each one entry further.

    The last bytes of an entry are the number of entries of a directory that begins there. Behind the last entry stands
    where the next directory begins, which later ones take for the beginning of an entry.
    """
    count, entry, where = (8, 20, "Q") if is_big else (2, 12, "I")
    start = 16 if is_big else 8
    number = struct.pack(f"{order}Q" if is_big else f"{order}H", entries)
    body = bytearray(number + (bytes(entry - count) + number) * (entries + pages))
    for page in range(1, pages):
        struct.pack_into(f"{order}{where}", body, count + entry * (entries + page - 1), start + entry * page)
    struct.pack_into(f"{order}{where}", body, count + entry * (entries + pages - 1), 0)
    mark = b"MM" if order == ">" else b"II"
    head = struct.pack(f"{order}HHHQ", 43, 8, 0, start) if is_big else struct.pack(f"{order}HI", 42, start)
    return mark + head + body


def tiled_tiff(side: int) -> bytes:
    """A 96 x 72 grey TIFF whose only tile is `side` x `side` zeros, deflated."""
    packer = zlib.compressobj(9)
    body = b"".join(packer.compress(bytes(side)) for _ in range(side)) + packer.flush()
    tags = [
        *((256, 96), (257, 72), (258, 8), (259, 8), (262, 1), (277, 1)),
        *((322, side), (323, side), (324, 8), (325, len(body))),
    ]
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<I", 8 + len(body)) + body + struct.pack("<H", len(tags)) + directory + bytes(4)


def jpeg(pixels: NDArray[np.uint8], *, marks: bytes | None = None, components: bytes = b"", **options: Any) -> bytes:
    """A JPEG of Pillow's whose colours may be marked otherwise than Pillow marks them (ISO 10918-1, B.2).

    `marks` replaces all APP segments; `components` replaces the identifiers of the three components.
    """
    data = bytearray(save(pixels, "JPEG", **options))
    kept, at = bytearray(), 2
    while data[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if data[at + 1] == 0xC0:
            data[at + 10 : at + 10 + 3 * len(components) : 3] = components
        if marks is None or not 0xE0 <= data[at + 1] <= 0xEF:
            kept += data[at:end]
        at = end
    data[at + 5 : at + 5 + 2 * len(components) : 2] = components
    return bytes(data[:2] + (marks or b"") + kept + data[at:])


def adobe(transform: int) -> bytes:
    """An APP14 segment that says how the colours are stored: 0 as RGB, 1 as YCbCr."""
    return b"\xff\xee\x00\x0eAdobe\x00\x64" + bytes(4) + bytes([transform])


def claim_size(data: bytes, width: int, height: int) -> bytes:
    """The same JPEG, its SOF0 header lying about the size."""
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


def region(**changes: Any) -> Dataset:
    """One item of the Sequence of Ultrasound Regions: tissue, columns 10..59, rows 5..54, 0.02 x 0.03 cm a pixel."""
    item = Dataset()
    item.RegionSpatialFormat = item.RegionDataType = 1
    item.RegionLocationMinX0, item.RegionLocationMinY0 = 10, 5
    item.RegionLocationMaxX1, item.RegionLocationMaxY1 = 59, 54
    item.PhysicalUnitsXDirection = item.PhysicalUnitsYDirection = 3
    item.PhysicalDeltaX, item.PhysicalDeltaY = 0.02, 0.03
    return _changed(item, changes)


def dicom(
    pixels: NDArray[Any], *, syntax: UID = ExplicitVRLittleEndian, pixel_data: bytes | None = None, **changes: Any
) -> bytes:
    """An ultrasound DICOM file.

    Args:
        pixels: (height, width), (height, width, 3) or, with NumberOfFrames in `changes`, frames first.
        syntax: The file claims it; only the native ones, deflated and RLE are truly encoded.
        pixel_data: Written instead of `pixels`.
        changes: Attributes to set by keyword; None deletes.
    """
    is_colour = pixels.shape[-1] == 3
    image = pixels[0] if "NumberOfFrames" in changes and pixels.ndim > (3 if is_colour else 2) else pixels
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = ULTRASOUND, generate_uid(entropy_srcs=["test"])
    dataset.PatientName, dataset.PatientID = "SECRET^PATIENT", "SECRET-42"
    dataset.Rows, dataset.Columns = image.shape[:2]
    dataset.SamplesPerPixel = 3 if is_colour else 1
    dataset.PhotometricInterpretation = "RGB" if is_colour else "MONOCHROME2"
    if is_colour:
        dataset.PlanarConfiguration = 0
    bits = pixels.dtype.itemsize * 8
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = bits, bits, bits - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    _changed(dataset, changes)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.TransferSyntaxUID = syntax
    if syntax == RLELossless and pixel_data is None:
        frames = pixels if image is not pixels else pixels[None]
        pixel_data = encapsulate([RLELosslessEncoder.encode(frame, **_rle_options(dataset)) for frame in frames])
    is_encapsulated = syntax.startswith("1.2.840.10008.1.2.4.") or syntax == RLELossless
    if is_encapsulated and pixel_data is None:
        pixel_data = encapsulate([b"not read"])
    dataset.PixelData = pixels.tobytes() if pixel_data is None else pixel_data
    dataset["PixelData"].VR = "OW" if bits == 16 else "OB"
    dataset["PixelData"].is_undefined_length = is_encapsulated
    buffer = io.BytesIO()
    is_unknown = not syntax.startswith("1.2.840.10008.")
    dcmwrite(buffer, dataset, enforce_file_format=True, implicit_vr=False if is_unknown else None)
    return buffer.getvalue()


def dicom_bomb(megabytes: int) -> bytes:
    """A deflated DICOM file that unpacks to `megabytes` of zeros; about a thousandth of that in size."""
    small = dicom(np.zeros((64, 64), np.uint8), syntax=UID("1.2.840.10008.1.2.1.99"))
    meta_end = 132 + 12 + struct.unpack("<I", small[140:144])[0]
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    body = packer.compress(zlib.decompress(small[meta_end:], -zlib.MAX_WBITS))
    return small[:meta_end] + body + b"".join(packer.compress(bytes(10**6)) for _ in range(megabytes)) + packer.flush()


MEASURE = """
import pathlib, resource, sys
from busi_core.errors import InvalidImageError
from busi_core.imaging.decode import decode_image
status = pathlib.Path("/proc/self/status")
def peak():  # of this process alone where Linux says so: ru_maxrss begins with what the parent had
    if status.exists():
        return int(status.read_text().split("VmHWM:")[1].split()[0])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sys.argv[1:]:
    data = pathlib.Path(path).read_bytes()
    before = peak()
    try:
        decode_image(data)
        problem = "none"
    except InvalidImageError as error:
        problem = error.problem
    print(peak() - before, problem)
"""


def decode_and_measure(files: Sequence[bytes], folder: Path) -> list[tuple[float, str]]:
    """For each file, growth of the peak memory in MB and the problem named ('none'), in a process of its own."""
    paths = [folder / f"{number}.bin" for number in range(len(files))]
    for path, data in zip(paths, files, strict=True):
        path.write_bytes(data)
    command = [sys.executable, "-c", MEASURE, *map(str, paths)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return [(int(line.split(" ", 1)[0]) / 1024, line.split(" ", 1)[1]) for line in lines]


def _changed(dataset: Dataset, changes: dict[str, Any]) -> Dataset:
    for keyword, value in changes.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    return dataset


def _rle_options(dataset: Dataset) -> dict[str, Any]:
    return {
        "rows": dataset.Rows,
        "columns": dataset.Columns,
        "samples_per_pixel": dataset.SamplesPerPixel,
        "bits_allocated": dataset.BitsAllocated,
        "bits_stored": dataset.BitsStored,
        "pixel_representation": dataset.PixelRepresentation,
        "photometric_interpretation": dataset.PhotometricInterpretation,
        "number_of_frames": 1,
        "planar_configuration": 0,
    }
