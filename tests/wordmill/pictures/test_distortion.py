import cv2
import numpy as np
import pytest

from wordmill.pictures import distortion
from wordmill.pictures.distortion import (
    EFFECTS,
    blur,
    compress,
    cut_out,
    distort,
    grain,
    relevel,
    streak,
    tilt,
    trim_edges,
)


class Told:
    """A generator that draws what it is told: of a range its place, of numbers as many as there are."""

    def __init__(self, place: float) -> None:
        self.place = place

    def random(self, shape: int | None = None) -> np.ndarray | float:
        return self.place if shape is None else np.full(shape, self.place)

    def uniform(self, low: float, high: float, shape: int | tuple[int, ...] | None = None) -> np.ndarray | float:
        drawn = low + self.place * (high - low)
        return drawn if shape is None else np.full(shape, drawn)

    def integers(self, low: int, high: tuple[int, int]) -> np.ndarray:
        return (np.array(high) * self.place).astype(int)

    def choice(self, values: tuple[float, float]) -> float:
        return values[1]

    def standard_normal(self, shape: tuple[int, ...], dtype: type) -> np.ndarray:
        return np.full(shape, self.place, dtype)


def word(height: int = 40, width: int = 100, channels: int = 3) -> np.ndarray:
    """Return a picture of bars, some of them coloured."""
    image = np.full((height, width, channels), 220, np.uint8)
    image[8:32, 10:20], image[8:32, 50:60, 0] = 30, 60
    return image


@pytest.mark.parametrize("shape", [(40, 100), (40, 100, 1), (40, 100, 3), (5, 5), (1, 1), (1, 60, 3)])
def test_a_picture_is_changed_by_its_seed_alone_and_keeps_its_form(shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    kept = image.copy()
    for seed in range(40):
        changed = distort(image, seed, 1.0)
        assert changed.dtype == np.uint8
        assert changed.ndim == len(shape)
        assert changed.shape[2:] == shape[2:]
        assert changed.shape[0] * changed.shape[1] > 0.25 * shape[0] * shape[1]
        assert np.array_equal(distort(image, seed, 1.0), changed)
    assert np.array_equal(image, kept)


def test_effects_come_each_for_itself_and_the_stronger_the_number() -> None:
    image = word()
    same = [np.array_equal(distort(image, seed, 0.5), image) for seed in range(400)]
    assert 0.7**8 - 0.04 < np.mean(same) < 0.2  # pictures with no effect at all are 5.8 %, weak ones change nothing
    means = []
    for strength in (0.1, 0.4, 1.0):
        changed = [cv2.resize(distort(image, seed, strength), (100, 40)) for seed in range(100)]
        means.append(np.mean([np.abs(one - image.astype(float)).mean() for one in changed if one.mean() > 128]))
    assert means[0] < means[1] < means[2]


def test_a_trimmed_picture_lacks_its_edges() -> None:
    rows = np.repeat(np.arange(40, dtype=np.uint8)[:, None], 100, axis=1)
    changed = trim_edges(rows, 1.0, Told(0.5))  # 0.5 * 0.15 * 40 = 3 pixels of each side
    assert changed.shape == (34, 94)
    assert (changed[0, 0], changed[-1, 0]) == (3, 36)
    assert trim_edges(rows[:5], 1.0, Told(0.99)).shape == (5, 100)  # nothing would be left


def test_a_part_is_cut_out_and_is_of_the_mean_colour() -> None:
    image = np.zeros((40, 100, 3), np.uint8)
    image[:, 50:] = 200, 100, 50
    changed = cut_out(image, 1.0, Told(0.5))  # 1 + int(0.5 * 0.35 * 40) = 8 pixels, from (32, 92) / 2 on
    hole = changed[16:24, 46:54]
    assert np.unique(hole.reshape(-1, 3), axis=0).tolist() == [[100, 50, 25]]
    assert np.count_nonzero((changed != image).any(2)) == 64


def test_levels_are_changed_about_their_middle() -> None:
    image = np.array([[0, 100, 255]], np.uint8)
    assert relevel(image, 1.0, Told(0.5)).tolist() == [[0, 100, 255]]  # half of every range changes nothing
    # Contrast 1 + 0.6, brightness 60: (100 - 127.5) * 1.6 + 127.5 + 60 = 143.5.
    assert relevel(image, 1.0, Told(1.0)).tolist() == [[0, 144, 255]]
    assert relevel(image, 1.0, Told(0.3)).tolist()[0][0] > relevel(image, 1.0, Told(0.3)).tolist()[0][2]  # negative


def test_a_tilted_picture_has_its_middle_where_it_was() -> None:
    image = word()
    changed = tilt(image, 1.0, Told(0.5))  # turned by 0.14, corners where they are
    assert changed.shape == image.shape
    assert not np.array_equal(changed, image)
    assert np.array_equal(tilt(image, 0.0, Told(0.5)), image)
    dot = np.zeros((41, 101), np.uint8)
    dot[20, 70] = 255
    row, column = np.unravel_index(tilt(dot, 1.0, Told(0.5)).argmax(), dot.shape)
    assert (row, column) == (23, 70)  # from the middle 19.5 right, 0.5 up: 20.5 + 19.5 sin 0.14 - 0.5 cos 0.14 = 22.7


def test_blurs_keep_the_mean_and_take_the_edges() -> None:
    image = word(channels=1)[:, :, 0]
    for changed in (blur(image, 1.0, Told(0.5)), streak(image, 1.0, Told(0.0))):
        assert abs(float(changed.mean()) - float(image.mean())) < 1.5
        assert np.abs(np.diff(changed[20].astype(int))).max() < np.abs(np.diff(image[20].astype(int))).max()
    assert np.array_equal(streak(image, 0.05, Told(0.5)), image)
    across = streak(image, 1.0, Told(0.0))[20].astype(int)  # along the rows: 6.4 pixels of 40 * 0.16
    assert np.count_nonzero((across > 35) & (across < 215)) >= 20


def test_grain_is_the_same_in_all_channels_and_ends_at_black_and_white() -> None:
    image = np.array([[[0, 100, 250]]], np.uint8)
    assert grain(image, 0.5, Told(1.0)).tolist() == [[[14, 114, 255]]]
    assert grain(image[:, :, 0], 0.5, Told(-1.0)).tolist() == [[0]]


def test_a_compressed_picture_is_nearly_the_same() -> None:
    image = word()
    far = [np.abs(compress(image, amount, Told(0.5)).astype(int) - image).mean() for amount in (0.1, 1.0)]
    assert 0 < far[0] < far[1] < 20


def test_every_effect_is_among_them() -> None:
    assert (tilt, trim_edges, relevel, cut_out, blur, streak, grain, compress) == EFFECTS
    assert distortion.CHANCE * len(EFFECTS) == pytest.approx(2.4)  # effects of a picture on average
