"""Every form in which a data set may hold a picture, and what only looks like one."""

import io
import subprocess
import sys
import zlib
from pathlib import Path
from struct import pack

import numpy as np
import pytest
from PIL import Image

from tests.wordmill.pictures.test_image import GRAY, PALETTE, RED_BLUE, RGB, RGBA, png
from wordmill.pictures.image import Picture, decode, encode

ROOT = Path(__file__).resolve().parents[3]
GRAY_ALPHA = 4


def chunk(kind: bytes, body: bytes) -> bytes:
    return pack(">I", len(body)) + kind + body + pack(">I", zlib.crc32(kind + body))


def exif(orientation: int) -> bytes:
    """A TIFF structure with one entry: tag 0x0112, one SHORT."""
    return b"MM\0*" + pack(">IH", 8, 1) + pack(">HHIHH", 0x0112, 3, 1, orientation, 0) + pack(">I", 0)


def jpeg(image: Picture, mode: str = "RGB", orientation: int = 1) -> bytes:
    """A JPEG without loss to speak of, its orientation in an APP1 segment written by hand."""
    file = io.BytesIO()
    Image.fromarray(image, mode).save(file, "JPEG", quality=100, subsampling=0)
    segment = b"Exif\0\0" + exif(orientation)
    return b"\xff\xd8\xff\xe1" + pack(">H", len(segment) + 2) + segment + file.getvalue()[2:]


def close(found: Picture, expected: object, levels: int) -> None:
    assert found.dtype == np.uint8
    np.testing.assert_allclose(found.astype(int), np.asarray(expected, dtype=int), rtol=0, atol=levels)


# A line of two pixels, 7 and 200, as it looks upright: EXIF 2.3, tag Orientation.
UPRIGHT = {
    1: [[7, 200]],
    2: [[200, 7]],
    3: [[200, 7]],
    4: [[7, 200]],
    5: [[7], [200]],
    6: [[7], [200]],
    7: [[200], [7]],
    8: [[200], [7]],
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_an_exif_orientation_is_followed(orientation: int) -> None:
    line = png(2, 1, 8, GRAY, b"\0" + bytes([7, 200]), chunk(b"eXIf", exif(orientation)))
    expected = np.array(UPRIGHT[orientation])
    assert decode(line, 1)[:, :, 0].tolist() == expected.tolist()
    squares = expected.repeat(16, 0).repeat(16, 1)
    photo = np.array([[7, 200]], dtype=np.uint8).repeat(16, 0).repeat(16, 1)[:, :, None].repeat(3, 2)
    close(decode(jpeg(photo, orientation=orientation), 3), squares[:, :, None].repeat(3, 2), 1)
    close(decode(jpeg(photo, orientation=orientation), 1)[:, :, 0], squares, 1)


def test_gray_of_a_colour_jpeg_is_its_luma() -> None:
    red = np.full((16, 16, 3), [255, 0, 0], dtype=np.uint8)
    close(decode(jpeg(red), 1), np.full((16, 16, 1), 76), 1)  # ITU-R BT.601: 0.299 * 255 = 76.2


def test_cmyk_becomes_rgb() -> None:
    # Ink of cyan, magenta, yellow, black: what is not absorbed is left: 255 * (1 - ink) * (1 - black).
    inks = {(0, 255, 255, 0): (255, 0, 0), (255, 0, 0, 0): (0, 255, 255), (0, 0, 0, 102): (153, 153, 153),
            (128, 0, 0, 51): (102, 204, 204), (0, 0, 0, 255): (0, 0, 0)}  # fmt: skip
    for ink, colour in inks.items():
        data = jpeg(np.full((16, 16, 4), ink, dtype=np.uint8), "CMYK")
        close(decode(data, 3), np.full((16, 16, 3), colour), 2)
        luma = round(0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2])
        close(decode(data, 1), np.full((16, 16, 1), luma), 2)


def test_sixteen_bits_keep_the_upper_eight() -> None:
    assert decode(png(1, 1, 16, GRAY, b"\0\x80\xff"), 1).tolist() == [[[0x80]]]
    colour = png(1, 1, 16, RGB, b"\0" + bytes([0x80, 0xFF, 0x01, 0x02, 0xFE, 0x00]))
    assert decode(colour, 3).tolist() == [[[0x80, 0x01, 0xFE]]]


def test_transparency_is_left_out() -> None:
    assert decode(png(1, 1, 8, RGBA, b"\0" + bytes([1, 2, 3, 0])), 3).tolist() == [[[1, 2, 3]]]
    assert decode(png(1, 1, 8, GRAY_ALPHA, b"\0" + bytes([9, 0])), 1).tolist() == [[[9]]]
    palette = chunk(b"PLTE", bytes([9, 8, 7, 1, 2, 3])) + chunk(b"tRNS", bytes([0, 255]))
    assert decode(png(2, 1, 8, PALETTE, b"\0\0\1", palette), 3).tolist() == [[[9, 8, 7], [1, 2, 3]]]


def test_a_palette_becomes_gray_by_luma() -> None:
    palette = chunk(b"PLTE", bytes([255, 0, 0, 0, 0, 255]))
    assert decode(png(2, 1, 8, PALETTE, b"\0\0\1", palette), 1).tolist() == [[[76], [29]]]


def test_one_bit_a_pixel_is_black_and_white() -> None:
    assert decode(png(8, 1, 1, GRAY, b"\0\xa5"), 1).ravel().tolist() == [255, 0, 255, 0, 0, 255, 0, 255]


@pytest.mark.parametrize("form", ["BMP", "TIFF", "WEBP"])
def test_other_forms_without_loss_are_read(form: str) -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 9, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(image).save(file, form, lossless=True)
    assert decode(file.getvalue(), 3).tolist() == image.tolist()


@pytest.mark.parametrize("shape", [(3, 5), (3, 5, 1), (3, 5, 3)])
def test_what_is_encoded_is_decoded(shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    assert decode(encode(image), 3 if shape[-1] == 3 else 1).reshape(shape).tolist() == image.tolist()


GOOD_PNG = png(2, 1, 8, RGB, RED_BLUE)
GOOD_JPEG = jpeg(np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8))
FRAME = GOOD_JPEG.index(b"\xff\xc0")  # the frame's header: marker, length, precision, height, width, ...
BROKEN = {
    "empty": b"",
    "text": b"no picture at all",
    "zeros": bytes(400),
    "PNG with a wrong sum of its pixels": GOOD_PNG[:-16] + b"\0\0\0\0" + GOOD_PNG[-12:],
    "PNG with a wrong sum of its header": GOOD_PNG[:29] + b"\0\0\0\0" + GOOD_PNG[33:],
    "PNG without its end": GOOD_PNG[:-12],
    "JPEG cut in the middle": GOOD_JPEG[: len(GOOD_JPEG) // 2],
    "JPEG without its end": GOOD_JPEG[:-2],
    "JPEG's first marker": GOOD_JPEG[:2],
    "JPEG of 13 bits": GOOD_JPEG[: FRAME + 4] + b"\x0d" + GOOD_JPEG[FRAME + 5 :],
    "JPEG of height 0": GOOD_JPEG[: FRAME + 5] + b"\0\0" + GOOD_JPEG[FRAME + 7 :],
    "JPEG without tables": GOOD_JPEG[:2] + GOOD_JPEG[FRAME:],
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_broken_picture_is_refused(name: str, channels: int) -> None:
    assert decode(GOOD_PNG, channels).shape == (1, 2, channels)
    assert decode(GOOD_JPEG, channels).shape == (16, 24, channels)
    with pytest.raises(ValueError, match="^(empty file|not a whole picture: |not decodable: )"):
        decode(BROKEN[name], channels)


def test_a_picture_of_absurd_sides_is_refused() -> None:
    assert decode(png(16384, 1, 1, GRAY, bytes(1 + 2048)), 1).shape == (1, 16384, 1)
    for width, height in ((60_000, 31), (1, 16385)):
        data = png(width, height, 1, GRAY, bytes(height * (1 + (width + 7) // 8)))
        with pytest.raises(ValueError, match="^more than 67108864 pixels, or than 16384 wide or high"):
            decode(data, 1)


def test_a_jpeg_that_declares_more_than_there_is_takes_no_memory_for_it() -> None:
    huge = GOOD_JPEG[: FRAME + 5] + b"\x3f\xff\x3f\xff" + GOOD_JPEG[FRAME + 9 :]  # 16383 x 16383
    script = (
        "import resource, sys\n"
        "from wordmill.pictures.image import decode\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try:\n"
        "    decode(sys.stdin.buffer.read(), 3)\n"
        "except ValueError as error:\n"
        "    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], input=huge, capture_output=True, check=True, cwd=ROOT)
    kilobytes, reason = done.stdout.decode().strip().split(" ", 1)
    assert reason == "more than 67108864 pixels, or than 16384 wide or high"
    assert int(kilobytes) < 20_000  # of 800,000 that its pixels would take
