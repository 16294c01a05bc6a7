"""Every form in which a data set may hold a picture, and what only looks like one."""

import io
import subprocess
import sys
import zlib
from pathlib import Path
from struct import pack

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.wordmill.pictures.test_image import GRAY, PALETTE, RED_BLUE, RGB, RGBA, png
from wordmill.pictures.decoder import decode
from wordmill.pictures.image import Picture, encode

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


# The largest value of a line, and what is read of it and of half of it: 8 of the bits that the values use.
USED = {255: (255, 127), 1023: (255, 127), 4095: (255, 127), 16383: (255, 127), 65535: (255, 127), 2048: (128, 64)}


@pytest.mark.parametrize("top", USED)
def test_values_of_fewer_bits_in_sixteen_are_read_as_they_are_meant(top: int) -> None:
    values = np.array([top, top // 2, 0], dtype=">u2")
    expected = [*USED[top], 0]
    assert decode(png(3, 1, 16, GRAY, b"\0" + values.tobytes()), 1).ravel().tolist() == expected
    colour = np.stack([values, values[::-1], values[[0, 0, 0]]], axis=1).astype(">u2")  # (3, 3)
    found = decode(png(3, 1, 16, RGB, b"\0" + colour.tobytes()), 3)[0]
    assert found.T.tolist() == [expected, expected[::-1], [expected[0]] * 3]
    opaque = np.concatenate([colour, [[65535]] * 3], axis=1).astype(">u2")
    assert decode(png(3, 1, 16, RGBA, b"\0" + opaque.tobytes()), 3)[0].tolist() == found.tolist()
    grays = np.stack([values, [255] * 3], axis=1).astype(">u2")
    assert decode(png(3, 1, 16, GRAY_ALPHA, b"\0" + grays.tobytes()), 1).ravel().tolist() == expected
    file = io.BytesIO()
    Image.fromarray(values.astype("<u2")[None]).save(file, "TIFF")
    assert decode(file.getvalue(), 1).ravel().tolist() == expected


def test_what_is_transparent_is_white() -> None:
    half = png(3, 1, 8, RGBA, b"\0" + bytes([1, 2, 3, 0, 1, 2, 3, 255, 0, 100, 200, 51]))
    # A fifth of 0, 100 and 200 and four of white: 204, 224, 244
    assert decode(half, 3).tolist() == [[[255, 255, 255], [1, 2, 3], [204, 224, 244]]]
    assert decode(png(2, 1, 8, GRAY_ALPHA, b"\0" + bytes([9, 0, 9, 255])), 1).tolist() == [[[255], [9]]]
    palette = chunk(b"PLTE", bytes([9, 8, 7, 1, 2, 3])) + chunk(b"tRNS", bytes([0, 255]))
    assert decode(png(2, 1, 8, PALETTE, b"\0\0\1", palette), 3).tolist() == [[[255, 255, 255], [1, 2, 3]]]


def test_a_colour_that_stands_for_transparency_is_white() -> None:
    gray = png(2, 1, 8, GRAY, b"\0" + bytes([7, 8]), chunk(b"tRNS", b"\0\7"))
    assert decode(gray, 1).ravel().tolist() == [255, 8]
    red = png(2, 1, 8, RGB, RED_BLUE, chunk(b"tRNS", pack(">3H", 255, 0, 0)))
    assert decode(red, 3).tolist() == [[[255, 255, 255], [0, 0, 255]]]
    deep = png(2, 1, 16, GRAY, b"\0" + pack(">2H", 0x1234, 0x8000), chunk(b"tRNS", b"\x12\x34"))
    assert decode(deep, 1).ravel().tolist() == [255, 0x80]


def test_black_text_on_nothing_is_read_as_on_paper() -> None:
    ink = np.zeros((4, 6), dtype=np.uint8)
    ink[1:3, 2:5] = 255
    for form in ("PNG", "WEBP", "TIFF"):
        file = io.BytesIO()
        layers = Image.fromarray(np.dstack([np.zeros((4, 6, 3), np.uint8), ink]))
        layers.save(file, form, lossless=True)
        assert decode(file.getvalue(), 1)[:, :, 0].tolist() == (255 - ink).tolist()


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("form", ["WEBP", "TIFF", "PNG"])
def test_every_form_that_has_an_orientation_is_turned(form: str, orientation: int) -> None:
    tagged = Image.Exif()
    tagged[0x0112] = orientation
    file = io.BytesIO()
    layers = np.array([[[7] * 3 + [255], [200] * 3 + [255]]], dtype=np.uint8)  # with an alpha, which only Pillow reads
    Image.fromarray(layers).save(file, form, exif=tagged, lossless=True)
    assert decode(file.getvalue(), 1)[:, :, 0].tolist() == UPRIGHT[orientation]


def test_the_first_picture_of_an_animation_is_read() -> None:
    first, second = (Image.fromarray(np.full((3, 5), level, np.uint8)) for level in (40, 90))
    for form in ("GIF", "WEBP", "PNG", "TIFF"):
        file = io.BytesIO()
        first.convert("RGB").save(file, form, save_all=True, append_images=[second.convert("RGB")], lossless=True)
        assert decode(file.getvalue(), 1).tolist() == np.full((3, 5, 1), 40).tolist(), form


def test_a_palette_becomes_gray_by_luma() -> None:
    palette = chunk(b"PLTE", bytes([255, 0, 0, 0, 0, 255]))
    assert decode(png(2, 1, 8, PALETTE, b"\0\0\1", palette), 1).tolist() == [[[76], [29]]]


def test_one_bit_a_pixel_is_black_and_white() -> None:
    assert decode(png(8, 1, 1, GRAY, b"\0\xa5"), 1).ravel().tolist() == [255, 0, 255, 0, 0, 255, 0, 255]


@pytest.mark.parametrize("form", ["BMP", "TIFF", "WEBP", "PPM"])
def test_other_forms_without_loss_are_read(form: str) -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 9, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(image).save(file, form, lossless=True)
    assert decode(file.getvalue(), 3).tolist() == image.tolist()


@pytest.mark.parametrize("shape", [(3, 5), (3, 5, 1), (3, 5, 3)])
def test_what_is_encoded_is_decoded(shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    assert decode(encode(image), 3 if shape[-1] == 3 else 1).reshape(shape).tolist() == image.tolist()


# The first bytes of what no decoder gets, and what the message calls it.
STRANGERS = {
    b"\0\0\0\x1cftypavif": "AVIF", b"\0\0\0\x18ftypheic": "HEIC", b"\0\0\0\x18ftypmif1": "HEIC or AVIF",
    b"\0\0\0\x18ftypisom": "a film, or another file in boxes",
    b"\0\0\0\x14ftypqt  ": "a film, or another file in boxes",
    b"\0\0\0\x0cjP  \r\n\x87\n": "JPEG 2000", b"\xff\x4f\xff\x51\0\x2f": "JPEG 2000", b"\xff\x0a\xfa": "JPEG XL",
    b"v/1\x01\x02\0": "OpenEXR", b"#?RADIANCE\n": "Radiance HDR", b"8BPS\0\1": "Photoshop", b"%PDF-1.4": "PDF",
    b"<!DOCTYPE html>": "a web page", b"PK\x03\x04": "a zip file",
    b"\0\x05\x16\x07\0\2\0\0Mac OS X": "what macOS keeps beside a file, no picture",
}  # fmt: skip


@pytest.mark.parametrize("head", STRANGERS)
def test_forms_that_no_decoder_gets_are_refused_by_name(head: bytes) -> None:
    with pytest.raises(ValueError, match=f"^not decodable: it is {STRANGERS[head]}, expected JPEG, PNG, GIF"):
        decode(head + bytes(80), 3)


def saved(form: str, image: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


@pytest.mark.parametrize(("most", "shown"), [(4095, [255, 127, 0]), (65535, [255, 127, 0])])
def test_a_pnm_of_more_than_eight_bits_is_read_by_its_upper_ones(most: int, shown: list[int]) -> None:
    gray = b"P5 3 1 %d\n" % most + pack(">3H", most, most // 2, 0)
    assert decode(gray, 1).ravel().tolist() == shown
    colour = b"P6 1 1 %d\n" % most + pack(">3H", most, most // 2, 0)
    close(decode(colour, 3), np.array([[shown]], dtype=np.uint8), 1)


def test_what_cannot_be_shown_in_eight_bits_is_refused_by_name() -> None:
    floats = saved("TIFF", Image.fromarray(np.full((2, 3), 0.5, dtype=np.float32)))
    with pytest.raises(ValueError, match="^not decodable: TIFF with values of kind F, expected whole numbers"):
        decode(floats, 1)
    dark = cv2.imencode(".tif", np.full((2, 3, 3), 255, dtype=np.uint16))[1].tobytes()
    with pytest.raises(ValueError, match="^not decodable: TIFF with colours of 16 bits that use fewer"):
        decode(dark, 3)


def test_opencv_gets_plain_jpegs_and_pngs_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bytes] = []
    monkeypatch.setattr(
        cv2, "imdecode", lambda data, flags: seen.append(data.tobytes()) or np.zeros((2, 3, 3), np.uint8)
    )
    colour, gray = Image.new("RGB", (3, 2)), Image.new("L", (3, 2))
    plain = [saved("PNG", colour), saved("PNG", gray), saved("JPEG", colour), saved("JPEG", gray, progressive=True)]
    others = [saved("PNG", colour.convert("RGBA")), saved("PNG", colour.convert("P")), saved("PNG", gray.convert("1")),
              saved("PNG", colour, save_all=True, append_images=[Image.new("RGB", (3, 2), "red")]),
              *(saved(form, colour) for form in ("GIF", "BMP", "WEBP", "TIFF", "PPM"))]  # fmt: skip
    for data in [*plain, *others]:
        assert decode(data, 3).shape == (2, 3, 3)
    assert seen == plain


GOOD_PNG = png(2, 1, 8, RGB, RED_BLUE)
GOOD_JPEG = jpeg(np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8))
FRAME = GOOD_JPEG.index(b"\xff\xc0")  # the frame's header: marker, length, precision, height, width, ...
NOISE = Image.fromarray(np.random.default_rng(1).integers(0, 256, (16, 24, 3), dtype=np.uint8))
GIF, WEBP, TIFF = (saved(form, NOISE) for form in ("GIF", "WEBP", "TIFF"))
BAD_ALPHA = png(1, 1, 8, RGBA, b"\0" + bytes(4))
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
    "JPEG of lossless coding": GOOD_JPEG[: FRAME + 1] + b"\xc3" + GOOD_JPEG[FRAME + 2 :],
    "JPEG of arithmetic coding": GOOD_JPEG[: FRAME + 1] + b"\xc9" + GOOD_JPEG[FRAME + 2 :],
    "PNG without pixels": png(2, 1, 8, RGB, RED_BLUE).replace(b"IDAT", b"iDAT"),
    "PNG with alpha and a wrong sum": BAD_ALPHA[:-16] + b"\0\0\0\0" + BAD_ALPHA[-12:],
    "PNG with alpha and fewer lines": png(2, 9, 8, RGBA, b"\0" + bytes(8)),
    "GIF cut in the middle": GIF[: len(GIF) // 2],
    "WebP cut in the middle": WEBP[: len(WEBP) // 2],
    "TIFF cut in the middle": TIFF[: len(TIFF) // 2],
    "BMP's first bytes": b"BM" + bytes(30),
    "RIFF that is a sound": b"RIFF\x24\0\0\0WAVEfmt " + bytes(30),
    "JPEG of stray markers": GOOD_JPEG[:2] + b"\xff\x01" * 10_000 + GOOD_JPEG[2:],
    "JPEG without tables": GOOD_JPEG[:2] + GOOD_JPEG[FRAME:],
}


def test_fill_bytes_before_a_jpegs_segment_are_skipped() -> None:
    filled = GOOD_JPEG[:2] + b"\xff" * 1_000_000 + GOOD_JPEG[2:]
    assert np.array_equal(decode(filled, 3), decode(GOOD_JPEG, 3))


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
        "from wordmill.pictures.decoder import decode\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try:\n"
        "    decode(sys.stdin.buffer.read(), 3)\n"
        "except ValueError as error:\n"
        "    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], input=huge, capture_output=True, check=True, cwd=ROOT)
    kilobytes, reason = done.stdout.decode().strip().split(" ", 1)
    assert reason == "more than 67108864 pixels, or than 16384 wide or high: 16383x16383"
    assert int(kilobytes) < 20_000  # of 800,000 that its pixels would take


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_a_changed_picture_is_refused_or_read_the_same_twice() -> None:
    """Bytes of other memory in a picture would differ, for what lay there before differs."""
    rng, whole = np.random.default_rng(7), [GOOD_JPEG, GIF, WEBP, TIFF, saved("PNG", NOISE.convert("RGBA"))]
    read = 0
    for number in range(400):
        changed = bytearray(whole[number % len(whole)])
        for place in rng.integers(2, len(changed), 3):
            changed[place] = rng.integers(256)
        try:
            first = decode(bytes(changed), 3)
        except ValueError:
            continue
        del [np.full(size, 255, dtype=np.uint8) for size in (300, 1200, 5000)][:]
        read += 1
        assert np.array_equal(decode(bytes(changed), 3), first)
    assert read > 50
