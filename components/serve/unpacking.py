"""PNGs whose data unpack to far more than their pixels: OpenCV's libpng unpacks all of it, seconds of each megabyte."""

import struct
import zlib

SIGNATURE = b"\x89PNG\r\n\x1a\n"
SMALL = 16 << 10  # bytes of a file that cannot hold up anybody: they unpack to 16 MB at most
PIECE = 1 << 18
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by the colour type


def check_unpacked(content: bytes) -> None:
    """Raise ValueError for a PNG whose data unpack to more than twice what its head says."""
    if len(content) <= SMALL or not content.startswith(SIGNATURE) or content[12:16] != b"IHDR":
        return
    width, height, depth, colour = struct.unpack_from(">IIBB", content, 16)
    most = 2 * height * (1 + (width * depth * CHANNELS.get(colour, 4) + 7) // 8)  # an interlaced one has some rows more
    unpacker, size = zlib.decompressobj(), 0
    packed = b"".join(_image_data(content))
    try:
        while packed and size <= most:
            size += len(unpacker.decompress(packed, PIECE))
            packed = unpacker.unconsumed_tail
    except zlib.error:  # the decoder says so
        return
    if size > most:
        raise ValueError(f"its data unpack to more than its pixels: {width}x{height}")


def _image_data(content: bytes) -> list[bytes]:
    """Return what is in the chunks of pixels."""
    found, at = [], len(SIGNATURE)
    while at + 8 <= len(content):
        size, kind = struct.unpack_from(">I4s", content, at)
        if kind == b"IDAT":
            found.append(content[at + 8 : at + 8 + size])
        at += size + 12
    return found
