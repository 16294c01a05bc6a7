import numpy as np
import pytest

from wordmill.pictures import svtr
from wordmill.pictures.svtr import add_noise, coarsen, look_aside, move, roughen, slant, turn


def word() -> np.ndarray:
    """Return a picture of bars, some of them coloured."""
    image = np.full((40, 100, 3), 220, np.uint8)
    image[8:32, 10:20], image[8:32, 50:60, 0] = 30, 60
    return image


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("shape", [(40, 100), (40, 100, 1), (40, 100, 3), (5, 5), (1, 1), (1, 60, 3)])
def test_a_picture_is_changed_by_its_seed_alone_and_keeps_its_channels(shape: tuple[int, ...]) -> None:
    image = rng().integers(0, 256, shape, dtype=np.uint8)
    kept = image.copy()
    for seed in range(40):
        changed = roughen(image, seed)
        assert changed.dtype == np.uint8
        assert (changed.ndim, changed.shape[2:]) == (len(shape), shape[2:])
        assert min(changed.shape[:2]) >= 1
        assert np.array_equal(roughen(image, seed), changed)
    assert np.array_equal(image, kept)


def test_more_than_a_third_of_the_pictures_are_left_as_they_are() -> None:
    """Half of all, three quarters and three quarters are left by the three kinds: 28 %; some changes change nothing."""
    same = [np.array_equal(roughen(word(), seed), word()) for seed in range(400)]
    assert 0.22 < np.mean(same) < 0.42


def test_a_turned_picture_is_whole_on_a_larger_canvas() -> None:
    sizes = [turn(word(), rng(seed)).shape for seed in range(30)]
    assert all(height >= 39 for height, _, _ in sizes)
    assert max(height for height, _, _ in sizes) <= 40 * np.cos(np.radians(15)) + 100 * np.sin(np.radians(15))


def test_slanting_makes_pictures_up_to_twice_as_large_and_half_as_small() -> None:
    """Told no angle and no shear it scales alone: what it says about sizes shows there."""

    class Still(np.random.Generator):
        def beta(self, a: float, b: float, size: None = None) -> float:
            return 0.5

    widths = [slant(word(), Still(np.random.PCG64(seed))).shape[1] for seed in range(60)]
    assert 48 <= min(widths) < 60
    assert 160 < max(widths) <= 198


def test_corners_move_in_by_a_quarter_of_a_side_at_most() -> None:
    sizes = np.array([look_aside(word(), rng(seed)).shape[:2] for seed in range(60)])
    assert (sizes >= (20, 50)).all()
    assert (sizes <= (40, 100)).all()


def test_noise_is_weak_and_falls_on_every_number_by_itself() -> None:
    noise = add_noise(np.full((60, 60, 3), 128, np.uint8), rng(3)).astype(int) - 128
    assert 0.8 < noise.std() < 4.6
    assert not np.array_equal(noise[:, :, 0], noise[:, :, 1])


def test_motion_keeps_plain_ground_and_coarsening_the_size() -> None:
    plain = np.full((40, 100, 3), 90, np.uint8)
    for seed in range(20):
        assert coarsen(word(), rng(seed)).shape == word().shape
        assert np.abs(coarsen(plain, rng(seed)).astype(int) - 90).max() <= 1
        assert move(plain, rng(seed)).shape == plain.shape


def test_grey_pictures_are_never_tinted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(svtr, "tint", None)
    grey = np.full((40, 100), 90, np.uint8)
    assert {roughen(grey, seed).ndim for seed in range(40)} == {2}
