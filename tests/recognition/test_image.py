import zlib
from struct import pack

import cv2
import numpy as np
import pytest

from components.recognition.image import decode, normalise, resize, to_channels


def png(width: int, height: int, depth: int, colour: int, rows: bytes, extra: bytes = b"") -> bytes:
    """A PNG written out by hand: `rows` are the bytes of its lines, each behind a filter byte 0."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return pack(">I", len(body)) + kind + body + pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", pack(">2I5B", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


GRAY, RGB, PALETTE, RGBA = 0, 2, 3, 6
RED_BLUE = b"\0" + bytes([255, 0, 0, 0, 0, 255])  # one line of two pixels


def test_colour_comes_out_as_rgb() -> None:
    image = decode(png(2, 1, 8, RGB, RED_BLUE), 3)
    assert image.dtype == np.uint8
    assert image.tolist() == [[[255, 0, 0], [0, 0, 255]]]


def test_gray_comes_out_in_one_or_three_channels() -> None:
    data = png(2, 1, 8, GRAY, b"\0" + bytes([7, 200]))
    assert decode(data, 1).tolist() == [[[7], [200]]]
    assert decode(data, 3).tolist() == [[[7, 7, 7], [200, 200, 200]]]


def test_colour_becomes_gray_by_luma() -> None:
    # ITU-R BT.601: 0.299 * 255 = 76.2 and 0.114 * 255 = 29.1
    assert decode(png(2, 1, 8, RGB, RED_BLUE), 1).tolist() == [[[76], [29]]]
    image = np.array([[[255, 0, 0], [0, 0, 255]]], dtype=np.uint8)
    assert to_channels(image, 1).tolist() == [[[76], [29]]]


def test_sixteen_bits_alpha_and_palette_are_read() -> None:
    assert decode(png(1, 1, 16, GRAY, b"\0\x80\xff"), 1).tolist() == [[[0x80]]]
    assert decode(png(1, 1, 8, RGBA, b"\0" + bytes([1, 2, 3, 128])), 3).tolist() == [[[1, 2, 3]]]
    body = bytes([9, 8, 7])
    palette = pack(">I", 3) + b"PLTE" + body + pack(">I", zlib.crc32(b"PLTE" + body))
    assert decode(png(1, 1, 8, PALETTE, b"\0\0", palette), 3).tolist() == [[[9, 8, 7]]]


@pytest.mark.parametrize("data", [b"", b"no picture at all", png(2, 1, 8, RGB, RED_BLUE)[:-20]])
def test_what_is_no_whole_picture_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="empty file|not a whole picture|not decodable"):
        decode(data, 3)


def test_a_jpeg_cut_off_is_refused() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 90), dtype=np.uint8)
    data = cv2.imencode(".jpg", noise)[1].tobytes()
    assert decode(data, 1).shape == (40, 90, 1)
    with pytest.raises(ValueError, match="not a whole picture"):
        decode(data[: len(data) // 2], 1)


def test_an_absurdly_large_picture_is_refused() -> None:
    side = 8193  # 8193 * 8193 is just over 64 Mi pixels
    with pytest.raises(ValueError, match="67108864 pixels"):
        decode(png(side, side, 1, GRAY, bytes(side * (1 + (side + 7) // 8))), 1)


def test_channels() -> None:
    gray = np.array([[5, 6]], dtype=np.uint8)
    assert to_channels(gray, 1).shape == (1, 2, 1)
    assert to_channels(gray, 3).tolist() == [[[5, 5, 5], [6, 6, 6]]]
    colour = np.zeros((1, 2, 3), dtype=np.uint8)
    assert to_channels(colour, 3) is colour


def test_resizing_is_bilinear_with_pixel_centres() -> None:
    # Twice as wide: the new centres lie at -0.25, 0.25, 0.75 and 1.25 of the old ones, the outer two beyond the edge.
    image = np.array([[[0], [100]]], dtype=np.uint8)
    assert resize(image, 1, 4).tolist() == [[[0], [25], [75], [100]]]
    # Half as high: the new centre lies in the middle between two lines.
    assert resize(np.array([[[10]], [[30]]], dtype=np.uint8), 1, 1).tolist() == [[[20]]]
    assert resize(np.zeros((7, 9, 3), dtype=np.uint8), 32, 100).shape == (32, 100, 3)


def test_the_right_size_is_left_alone() -> None:
    image = np.arange(6, dtype=np.uint8).reshape(2, 3, 1)
    assert resize(image, 2, 3) is image


def test_normalising() -> None:
    images = np.array([[[[0, 255, 51]]]], dtype=np.uint8)  # (1, 1, 1, 3)
    planes = normalise(images)
    assert planes.dtype == np.float32
    assert planes.shape == (1, 3, 1, 1)
    np.testing.assert_allclose(planes.ravel(), [-1.0, 1.0, -0.6], rtol=0, atol=1e-7)
    assert planes.flags.c_contiguous
