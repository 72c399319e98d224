"""The rarer decoders of compressed frames, each frame in a short-lived process of its own.

    frame --stdin--> sandbox_child.py (JPEG 2000, JPEG-LS, JPEG of more than 8 bits) --stdout--> samples

OpenJPEG, CharLS and GDCM are C and C++ with a record of crashes on hostile bytes. In a process of its own a crash, an
endless loop or a flood of memory costs one refused file, and no session's pixels lie in the same memory. Nothing is
loaded until such a frame comes, and nothing stays. What it costs stands in docs/adr/0012.
"""

import importlib.util
import math
import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import IO, Final, cast

import numpy as np
from numpy.typing import NDArray

from busi_core.errors import InvalidImageError
from busi_core.imaging.jpeg_markers import FrameHeader

CHILD: Final = Path(__file__).with_name("sandbox_child.py")
KEPT_VARIABLES: Final = ("LD_LIBRARY_PATH", "PATH", "PYTHONHOME", "PYTHONPATH", "SYSTEMROOT", "VIRTUAL_ENV")
MODULES: Final = {"jpeg-2000": "openjpeg", "jpeg-ls": "jpeg_ls"}  # all others: GDCM

START_SECONDS: Final = 5  # a tenth is usual
SAMPLES_A_SECOND: Final = 1_000_000  # OpenJPEG, the slowest, unpacks 2.4 million of noise on a busy core
WALL_SECONDS_A_CPU_SECOND: Final = 4  # other processes want the processor too
START_MEGABYTES: Final = 250  # Python with a decoder has 167 of address space
BYTES_A_SAMPLE: Final = 10  # OpenJPEG takes 6
MAX_CHILDREN: Final = 2  # at once, for the sake of memory; others wait their turn

_places = threading.BoundedSemaphore(MAX_CHILDREN)


def decode_confined(codec: str, stream: bytes, header: FrameHeader) -> NDArray[np.generic]:
    """Decode one frame whose header has been read and found sensible.

    Args:
        codec: 'jpeg-2000', 'jpeg-ls', or the transfer syntax of a JPEG of more than 8 bits a sample.
        stream: The compressed frame.
        header: What it says of itself.

    Returns:
        (height, width) or (height, width, 3), of 1 or 2 bytes, signed where the header says so.

    Raises:
        InvalidImageError: The decoder refused the bytes, crashed, passed its bounds, gave another number of pixels,
            or is not installed.
    """
    require_decoder(codec)
    samples = header.width * header.height * header.samples
    dtype = np.dtype(f"<{'i' if header.is_signed else 'u'}{math.ceil(header.bits / 8)}")
    seconds = START_SECONDS + math.ceil(samples / SAMPLES_A_SECOND)
    megabytes = START_MEGABYTES + math.ceil((2 * len(stream) + BYTES_A_SAMPLE * samples) / 1e6)
    numbers = (seconds, megabytes, header.width, header.height, header.samples, header.bits)
    with _places:
        pixels, status = _run((codec, *map(str, numbers)), stream, samples * dtype.itemsize, seconds)
    if status != 0 or len(pixels) != samples * dtype.itemsize:
        raise InvalidImageError(
            "The DICOM file is damaged: a compressed frame could not be unpacked."
            if status >= 0
            else "The DICOM file is damaged: unpacking a compressed frame took too long, too much memory, or crashed.",
            remedy="Export the image from the scanner or archive again, uncompressed or as PNG.",
        )
    shape = (header.height, header.width, header.samples) if header.samples > 1 else (header.height, header.width)
    return np.frombuffer(pixels, dtype).reshape(shape)


def require_decoder(codec: str) -> None:
    """Look, without importing it, whether this machine has the decoder.

    Raises:
        InvalidImageError: It has not.
    """
    if importlib.util.find_spec(MODULES.get(codec, "gdcm")) is None:
        raise InvalidImageError(
            "This kind of compressed DICOM file (JPEG of more than 8 bits a sample) needs a decoder that is not "
            "installed on this server.",
            remedy="Export the image from the scanner or archive again, uncompressed or as PNG.",
        )


def _run(arguments: tuple[str, ...], stream: bytes, expected: int, seconds: int) -> tuple[bytes, int]:
    """What the child wrote, at most one byte more than `expected`, and how it ended (negative: by a signal)."""
    environment = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
    try:
        child = subprocess.Popen(  # noqa: S603  # this interpreter, a file of this package
            # -P: the folder of the child's file, with modules of ours in it, stays out of its search path
            [sys.executable, "-P", str(CHILD), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # decoders print what they find in the bytes
            env=environment | {"OPENBLAS_NUM_THREADS": "1"},  # no secret of the server; threads cost address space
        )
    except OSError as error:
        raise InvalidImageError(
            f"The decoder of this DICOM file could not be started ({error.strerror}).", remedy="Try again later."
        ) from error
    alarm = threading.Timer(seconds * WALL_SECONDS_A_CPU_SECOND, child.kill)
    feeder = threading.Thread(target=_feed, args=(cast(IO[bytes], child.stdin), stream))
    pixels = b""
    alarm.start()
    feeder.start()  # beside the reading: a child that writes before it has read all would block both ends
    try:
        pixels = cast(IO[bytes], child.stdout).read(expected + 1)
    finally:
        if len(pixels) > expected:
            child.kill()
        status = child.wait()
        alarm.cancel()
        feeder.join()
        cast(IO[bytes], child.stdout).close()
    return pixels, status


def _feed(pipe: IO[bytes], stream: bytes) -> None:
    with suppress(BrokenPipeError), pipe:  # the child may end before it has read all
        pipe.write(stream)
