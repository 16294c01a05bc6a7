import struct
import zlib

import cv2
import numpy as np
import pytest

from components.serve.unpacking import PIECE, SIGNATURE, check_unpacked


def png(width: int, height: int, colour: int, data: bytes, chunks: int = 1) -> bytes:
    """A PNG of 8 bits whose pixels' data are given, packed, in so many chunks."""
    packed = zlib.compress(data)
    step = -(-len(packed) // chunks)
    head = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    parts = [
        (b"IHDR", head),
        *((b"IDAT", packed[at : at + step]) for at in range(0, len(packed), step)),
        (b"IEND", b""),
    ]
    return SIGNATURE + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in parts
    )


@pytest.mark.parametrize("chunks", [1, 3])
def test_a_small_picture_with_a_large_rest_is_refused(chunks: int) -> None:
    bomb = png(100, 32, 0, bytes(20 << 20), chunks)
    assert len(bomb) < 30_000
    with pytest.raises(ValueError, match="its data unpack to more than its pixels: 100x32"):
        check_unpacked(bomb)


def test_pictures_as_they_are_are_not_refused() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
    whole = cv2.imencode(".png", noise)[1].tobytes()
    assert len(whole) > PIECE
    for content in (whole, whole[: len(whole) // 2], b"", whole[:20], bytes(100_000), SIGNATURE + bytes(100_000)):
        check_unpacked(content)
    rows = b"".join(b"\0" + row.tobytes() for row in noise)
    check_unpacked(png(400, 300, 2, rows))
    check_unpacked(png(400, 300, 2, rows * 2)[:-12])
    with pytest.raises(ValueError, match="400x300"):
        check_unpacked(png(400, 300, 2, rows * 2 + b"x"))
