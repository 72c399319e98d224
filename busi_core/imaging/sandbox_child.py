"""Decodes one frame in a process of its own: sandbox.py starts this file, hands over the bytes and reads the pixels.

    arguments: codec, seconds, megabytes, width, height, samples, bits
    stdin:     the compressed frame
    stdout:    (height, width, samples) samples of 1 or 2 bytes, little endian

The decoders are C and C++ and get hostile bytes. Whatever happens ends with this process: it holds one frame and no
secret, may write no file, and its time and memory are bounded. Nothing of the package is imported, so that it starts
in a tenth of a second, and a decoder only once the bounds are in force.
"""

import sys

MB = 1_000_000
MAX_OPEN_FILES = 64  # enough to import a decoder


def main(codec: str, *numbers: str) -> None:
    """Decode stdin to stdout; where the decoder raises, Python ends with status 1 and without pixels."""
    seconds, megabytes, width, height, samples, bits = map(int, numbers)
    limit_process(seconds, megabytes)
    stream = sys.stdin.buffer.read()
    if codec == "jpeg-2000":
        pixels = decode_jpeg_2000(stream)
    elif codec == "jpeg-ls":
        pixels = decode_jpeg_ls(stream)
    else:
        pixels = decode_wide_jpeg(stream, codec, width, height, samples, bits)
    sys.stdout.buffer.write(pixels)


def limit_process(seconds: int, megabytes: int) -> None:
    """Bound the processor time and memory of this process, and let it write no file; where the system can."""
    try:
        import resource
    except ImportError:  # Windows: sandbox.py's own clock is the only bound there
        return
    limits = {
        resource.RLIMIT_CPU: seconds,
        resource.RLIMIT_AS: megabytes * MB,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,  # a core dump would hold the frame
        resource.RLIMIT_NOFILE: MAX_OPEN_FILES,
    }
    for limit, value in limits.items():
        resource.setrlimit(limit, (value, value))


def decode_jpeg_2000(stream: bytes) -> bytes:
    """By OpenJPEG, HTJ2K included; a colour transform of the codestream is undone."""
    from openjpeg.utils import decode_pixel_data

    return bytes(decode_pixel_data(stream, version=2))


def decode_jpeg_ls(stream: bytes) -> bytes:
    """By CharLS; planes become pixels."""
    import numpy as np
    from jpeg_ls import decode_pixel_data

    decoded, info = decode_pixel_data(stream)
    if info["components"] == 1 or info["interleave_mode"] != 0:
        return bytes(decoded)
    planes = np.frombuffer(decoded, f"<u{1 if info['bits_per_sample'] <= 8 else 2}").reshape(info["components"], -1)
    return planes.T.tobytes()


def decode_wide_jpeg(stream: bytes, syntax: str, width: int, height: int, samples: int, bits: int) -> bytes:
    """By GDCM: JPEG of more than 8 bits a sample, as the transfer syntax names it."""
    import gdcm

    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(stream)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())

    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((width, height, 1))
    image.SetDataElement(element)
    grey = gdcm.PhotometricInterpretation.GetPIType("MONOCHROME2")
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(grey))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(syntax)))
    image.SetPixelFormat(gdcm.PixelFormat(samples, 16, bits, bits - 1, 0))
    text: str = image.GetBuffer()
    return text.encode("utf-8", "surrogateescape")  # GDCM hands bytes over as text


if __name__ == "__main__":
    main(*sys.argv[1:])
