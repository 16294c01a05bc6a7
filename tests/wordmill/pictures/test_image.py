import dataclasses
import hashlib
import zlib
from struct import pack

import cv2
import numpy as np
import pytest
from PIL import Image

from wordmill.pictures.decoder import decode
from wordmill.pictures.image import (
    PICTURE_KEYS,
    Fitting,
    Picture,
    fit_picture,
    fit_pictures,
    normalise,
    resize,
    to_channels,
)
from wordmill.recipe.sections import Data


def png(width: int, height: int, depth: int, colour: int, rows: bytes, extra: bytes = b"") -> bytes:
    """A PNG written out by hand: `rows` are the bytes of its lines, each behind a filter byte 0."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return pack(">I", len(body)) + kind + body + pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", pack(">2I5B", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


GRAY, RGB, PALETTE, RGBA = 0, 2, 3, 6  # colour types of a PNG
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
    assert resize(image, 1, 4, "bilinear").tolist() == [[[0], [25], [75], [100]]]
    # Half as high: the new centre lies in the middle between two lines.
    assert resize(np.array([[[10]], [[30]]], dtype=np.uint8), 1, 1, "bilinear").tolist() == [[[20]]]
    assert resize(np.zeros((7, 9, 3), dtype=np.uint8), 32, 100, "bilinear").shape == (32, 100, 3)


def test_enlarging_is_cubic_convolution() -> None:
    # Twice as wide: new pixel 3 lies 1.25, 0.25, 0.75 and 1.75 from four old ones, where Keys' curve has -9/128,
    # 111/128, 29/128 and -3/128: (-9 * 10 + 111 * 50 + 29 * 90 - 3 * 40) / 128 = 62.1
    row = np.array([[[10], [50], [90], [40]]], dtype=np.uint8)
    assert resize(row, 1, 8, "bicubic")[0, 3, 0] == 62


def test_shrinking_by_bicubic_widens_the_curve() -> None:
    # A quarter as wide: new pixel 3 has its centre at 14, old pixel 15 at 15.5, 0.375 of a new pixel away, where the
    # curve has 0.7275; four times as wide, it weighs a quarter: 255 * 0.7275 / 4 = 46.4. Unwidened it is below 0.
    row = np.zeros((1, 32, 1), dtype=np.uint8)
    row[0, 15] = 255
    assert resize(row, 1, 8, "bicubic")[0, 3, 0] == 46


@pytest.mark.parametrize("size", [(32, 100), (31, 7), (1, 1), (90, 260)])
def test_bicubic_is_pillows(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(5)
    for shape in [(60, 210, 1), (13, 300, 3), (100, 9, 1), (32, 100, 3)]:
        image = rng.choice(np.array([0, 1, 60, 254, 255], dtype=np.uint8), shape)
        # One side after the other, whose order differs between Pillow's versions.
        planes = (Image.fromarray(image[:, :, c]) for c in range(shape[2]))
        narrow = (plane.resize((size[1], shape[0]), Image.Resampling.BICUBIC) for plane in planes)
        expected = np.stack([np.asarray(p.resize(size[::-1], Image.Resampling.BICUBIC)) for p in narrow], axis=2)
        np.testing.assert_array_equal(resize(image, *size, "bicubic"), expected)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_the_right_size_is_left_alone(interpolation) -> None:
    image = np.arange(6, dtype=np.uint8).reshape(2, 3, 1)
    assert resize(image, 2, 3, interpolation) is image


def recipe(height: int, width: int, **keys) -> Fitting:
    given = {"channels": 1} | keys
    return Fitting(height=height, width=width, **given)


def noise(height: int, width: int, channels: int = 1) -> Picture:
    return np.random.default_rng(height).integers(1, 256, (height, width, channels), dtype=np.uint8)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_stretching_fills_the_recipes_size(interpolation) -> None:
    image = noise(20, 30, 3)
    fitted = fit_picture(image, recipe(8, 16, channels=3, interpolation=interpolation))
    np.testing.assert_array_equal(fitted, resize(image, 8, 16, interpolation))


def test_the_default_fit_has_the_same_bytes_on_every_processor_and_in_every_version() -> None:
    image = (np.arange(45 * 160 * 3) * 37 % 251).astype(np.uint8).reshape(45, 160, 3)
    fitted = fit_picture(image, recipe(32, 100, channels=3))
    # Shards made so far are found again by their bytes.
    assert hashlib.sha256(fitted.tobytes()).hexdigest().startswith("68d45cbda54557ac")


@pytest.mark.parametrize(("fit", "level"), [("pad_black", 0), ("pad_grey", 127)])
@pytest.mark.parametrize(
    ("height", "width", "kept"),
    [
        (10, 14, 12),  # 8 * 14 / 10 = 11.2, rounded up
        (16, 24, 12),  # exactly
        (8, 12, 12),  # the right height already
        (10, 90, 16),  # wider than the recipe: squeezed
        (200, 2, 1),
    ],
)
def test_padding_keeps_the_ratio_and_fills_up_on_the_right(fit, level, height, width, kept) -> None:
    image = noise(height, width, 3)
    for interpolation in ("bilinear", "bicubic"):
        fitted = fit_picture(image, recipe(8, 16, channels=3, fit=fit, interpolation=interpolation))
        assert fitted.shape == (8, 16, 3)
        np.testing.assert_array_equal(fitted[:, :kept], resize(image, 8, kept, interpolation))
        assert (fitted[:, kept:] == level).all()


def test_black_padding_is_read_as_the_lowest_level_and_grey_as_nearly_0() -> None:
    black, grey = (fit_picture(noise(8, 4), recipe(8, 16, fit=fit))[None] for fit in ("pad_black", "pad_grey"))
    assert normalise(black, 127.0)[0, 0, 0, 15] == -1.0  # MindOCR's middle
    assert normalise(grey, 127.5)[0, 0, 0, 15] == pytest.approx(-0.5 / 127.5)  # half a level under PaddleOCR's 0


def test_tall_pictures_are_turned_to_the_left() -> None:
    image = np.arange(10, dtype=np.uint8).reshape(5, 2, 1)  # its right column becomes the upper line
    turned = fit_picture(image, recipe(2, 5, turn_tall=True))
    assert turned[:, :, 0].tolist() == [[1, 3, 5, 7, 9], [0, 2, 4, 6, 8]]
    padded = fit_picture(image, recipe(2, 7, turn_tall=True, fit="pad_black"))
    assert padded[0, :, 0].tolist() == [1, 3, 5, 7, 9, 0, 0]


def test_pictures_up_to_twice_as_high_as_wide_are_not_turned() -> None:
    image = noise(4, 2)
    assert fit_picture(image, recipe(4, 2, turn_tall=True)) is image
    tall = noise(5, 2)
    assert fit_picture(tall, recipe(5, 2)) is tall


def test_fitting_brings_the_recipes_channels() -> None:
    assert fit_picture(np.full((4, 6), 9, dtype=np.uint8), recipe(2, 3, channels=3)).tolist() == [[[9] * 3] * 3] * 2
    assert fit_picture(noise(4, 6, 3), recipe(2, 3)).shape == (2, 3, 1)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("fit", "turn_tall"), [("stretch", False), ("stretch", True), ("pad_grey", False)])
@pytest.mark.parametrize("channels", [1, 3])
def test_many_pictures_are_fitted_as_each_alone(channels, fit, turn_tall, interpolation) -> None:
    rng = np.random.default_rng(3)
    shapes = [(10, 14, 1)] * 9 + [(8, 16, 1), (8, 16), (10, 14), (30, 7, 1), (200, 3, 1), (5, 90, 3), (10, 14, 3)] * 5
    images = [rng.integers(0, 256, shape, dtype=np.uint8) for shape in rng.permutation(np.array(shapes, dtype=object))]
    how = recipe(8, 16, channels=channels, fit=fit, turn_tall=turn_tall, interpolation=interpolation)
    fitted = fit_pictures(images, how)
    assert fitted.shape == (44, 8, 16, channels)
    for image, made in zip(images, fitted, strict=True):
        np.testing.assert_array_equal(made, fit_picture(image, how))


def test_a_picture_depends_on_the_listed_keys_alone() -> None:
    class Watched:
        def __init__(self, data: Fitting) -> None:
            self.data, self.read = data, set()

        def __getattr__(self, name: str) -> object:
            self.read.add(name)
            return getattr(self.data, name)

    read = set()
    for fit in ("stretch", "pad_grey"):
        watched = Watched(recipe(8, 16, fit=fit, turn_tall=True))
        fit_picture(noise(30, 10), watched)
        read |= watched.read
    assert read == set(PICTURE_KEYS)


def test_a_fitting_has_the_keys_of_a_recipes_data_and_their_defaults() -> None:
    kinds = {field.name: (field.type, field.default) for field in dataclasses.fields(Data)}
    assert {field.name: (field.type, field.default) for field in dataclasses.fields(Fitting)}.items() <= kinds.items()


def test_normalising() -> None:
    images = np.array([[[[0, 255, 51]]]], dtype=np.uint8)  # (1, 1, 1, 3)
    planes = normalise(images, 127.5)
    assert planes.dtype == np.float32
    assert planes.shape == (1, 3, 1, 1)
    np.testing.assert_allclose(planes.ravel(), [-1.0, 1.0, -0.6], rtol=0, atol=1e-7)
    assert planes.flags.c_contiguous


def test_normalising_about_mindocrs_middle() -> None:
    images = np.array([[[[0], [127], [255]]]], dtype=np.uint8)
    np.testing.assert_allclose(normalise(images, 127.0).ravel(), [-1.0, 0.0, 128 / 127], rtol=0, atol=1e-7)
