import cv2
import numpy as np
import pytest

from wordmill.pictures.augmentation import (
    augment_views,
    brighten,
    crop,
    crop_size,
    recolour,
    saturate,
    stretch,
    turn_hue,
)

RED, GREEN, BLUE = [255, 0, 0], [0, 255, 0], [0, 0, 255]


def pixels(*colours: list[int]) -> np.ndarray:
    """Return a picture (1, N, 3) of the given colours."""
    return np.array([colours], dtype=np.uint8)


def seeds(first: int, count: int) -> np.ndarray:
    """Return a seed for each of some pictures."""
    return np.arange(first, first + count, dtype=np.int32)


def signs(count: int) -> np.ndarray:
    """Return pictures (N, 128, 512, 3) of four smooth views each."""
    small = np.random.default_rng(2).integers(0, 256, (count, 8, 32, 3), dtype=np.uint8)
    return np.kron(small, np.ones((1, 16, 16, 1), dtype=np.uint8))


def test_brightness_multiplies_and_saturates() -> None:
    assert brighten(pixels([100, 0, 250]), 1.1).tolist() == [[[110, 0, 255]]]


def test_contrast_is_about_the_views_mean_luma() -> None:
    # Gray 50 and 150: the mean is 100.
    assert stretch(pixels([50] * 3, [150] * 3), 1.5).tolist() == [[[25] * 3, [175] * 3]]
    assert stretch(pixels([50] * 3, [150] * 3), 0.5).tolist() == [[[75] * 3, [125] * 3]]
    # One colour: its luma is 76 (0.299 * 255), from which red is 179 away and the others 76.
    assert stretch(pixels(RED), 0.5).tolist() == [[[166, 38, 38]]]


def test_saturation_is_about_each_pixels_luma() -> None:
    assert saturate(pixels(RED, [90, 90, 90]), 0.5).tolist() == [[[166, 38, 38], [90, 90, 90]]]
    assert saturate(pixels([110, 100, 100]), 1.5).tolist() == [[[114, 99, 99]]]  # luma 102.99: 113.5, 98.5


def test_hue_turns_on_the_circle() -> None:
    assert turn_hue(pixels(RED, GREEN, BLUE), 0.0).tolist() == pixels(RED, GREEN, BLUE).tolist()
    assert turn_hue(pixels(RED, GREEN, BLUE), 1 / 3).tolist() == pixels(GREEN, BLUE, RED).tolist()
    assert turn_hue(pixels(RED, GREEN, BLUE), -1 / 3).tolist() == pixels(BLUE, RED, GREEN).tolist()
    assert turn_hue(pixels(RED), 1 / 6).tolist() == [[[255, 255, 0]]]
    assert turn_hue(pixels([77, 77, 77]), 0.2).tolist() == [[[77, 77, 77]]]  # gray has no hue


def test_crops_keep_most_of_the_area_and_nearly_the_shape() -> None:
    rng = np.random.default_rng(3)
    sizes = np.array([crop_size(128, rng) for _ in range(2000)])
    areas, aspects = sizes.prod(axis=1) / 128**2, sizes[:, 1] / sizes[:, 0]
    # A width loses up to one pixel to rounding, which is up to 1/104 of either.
    assert 0.79 <= areas.min() < 0.81
    assert 0.96 < areas.max() < 1.0
    assert 0.79 <= aspects.min() < 0.85
    assert 1.15 < aspects.max() <= 1.2
    assert sizes.max() == 127


def test_a_crop_is_a_part_of_the_view_in_its_full_size() -> None:
    rows, columns = np.meshgrid(np.arange(128), np.arange(128), indexing="ij")
    view = np.stack([rows, columns, rows], axis=2).astype(np.uint8)  # each pixel tells its place
    corners = set()
    for seed in range(200):
        cut = crop(view, np.random.default_rng(seed)).astype(int)
        assert cut.shape == (128, 128, 3)
        height, width = cut[-1, 0, 0] - cut[0, 0, 0], cut[0, -1, 1] - cut[0, 0, 1]
        assert 0.75 < height * width / 127**2 < 1.0  # from the first pixel's centre to the last one's
        corners.add((cut[0, 0, 0], cut[0, 0, 1]))
    assert len(corners) > 100
    assert max(top for top, _ in corners) > 10
    assert max(left for _, left in corners) > 10


@pytest.mark.parametrize("way", range(4))
def test_a_crop_is_resized_in_one_of_four_ways(way: int) -> None:
    class Scripted:
        """Draws the aspect 1, then 120 pixels high, from line 3 and column 5 on, and the given way."""

        def __init__(self) -> None:
            self.draws = iter([120, 3, 5, way])

        def uniform(self, low: float, high: float) -> float:
            return (low + high) / 2

        def integers(self, *limits: int, endpoint: bool = False) -> int:
            return next(self.draws)

    view = signs(1)[0, :, :128]
    ways = [cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_AREA, cv2.INTER_NEAREST]
    expected = cv2.resize(view[3:123, 5:125], (128, 128), interpolation=ways[way])
    np.testing.assert_array_equal(crop(view, Scripted()), expected)


def test_colours_change_in_each_of_the_four_ways_and_in_any_order() -> None:
    class Scripted:
        """Gives the order that it is told, and the middle of each range but for one factor."""

        def __init__(self, order: list[int]) -> None:
            self.order = order

        def permutation(self, count: int) -> list[int]:
            assert count == 4
            return self.order

        def uniform(self, low: float, high: float) -> float:
            return high

    view = pixels([40, 90, 200], [220, 120, 10], [130, 130, 60])
    ways = [lambda v: brighten(v, 1 + 32 / 255), lambda v: stretch(v, 1.5), lambda v: saturate(v, 1.5)]
    ways.append(lambda v: turn_hue(v, 0.2))
    results = set()
    for order in ([0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2]):
        expected = view
        for step in order:
            expected = ways[step](expected)
        found = recolour(view, Scripted(order))
        np.testing.assert_array_equal(found, expected)
        results.add(found.tobytes())
    assert len(results) == 3


def test_each_view_is_changed_by_itself() -> None:
    same = np.tile(signs(1)[:, :, :128], (1, 1, 4, 1))
    changed = augment_views(same, seeds(4, len(same)))
    views = [changed[0, :, left : left + 128] for left in range(0, 512, 128)]
    assert len({view.tobytes() for view in views}) == 4
    # A view's place in the picture is kept: no change reaches over its border.
    borders = signs(1)
    borders[:, :, 128:] = 0
    changed = augment_views(borders, seeds(4, len(borders)))
    assert changed[:, :, :128].any()
    assert not changed[:, :, 128:].any()


def test_the_pictures_given_are_left_alone_and_a_seed_gives_the_same_again() -> None:
    images = signs(3)
    before = images.copy()
    first = augment_views(images, seeds(9, len(images)))
    assert first.dtype == np.uint8
    assert first.shape == images.shape
    np.testing.assert_array_equal(images, before)
    np.testing.assert_array_equal(augment_views(images, seeds(9, len(images))), first)
    assert (augment_views(images, seeds(12, len(images))) != first).any()


def test_a_picture_is_changed_by_its_own_seed_wherever_it_stands() -> None:
    images = signs(4)
    drawn = np.array([5, -1, -(2**31), 5], dtype=np.int32)
    together = augment_views(images, drawn)
    for n in range(4):
        np.testing.assert_array_equal(augment_views(images[n : n + 1], drawn[n : n + 1])[0], together[n])
    alike = augment_views(np.repeat(images[:1], 4, axis=0), drawn)
    assert len({picture.tobytes() for picture in alike}) == 3
    np.testing.assert_array_equal(alike[0], alike[3])


@pytest.mark.parametrize("views", [1, 4])
def test_the_number_of_views_follows_from_the_shape(views: int) -> None:
    images = signs(1)[:, :, : views * 128]
    changed = augment_views(images, seeds(1, len(images)))
    assert changed.shape == images.shape
    assert all(
        (changed[0, :, v * 128 : v * 128 + 128] != images[0, :, v * 128 : v * 128 + 128]).any() for v in range(views)
    )
