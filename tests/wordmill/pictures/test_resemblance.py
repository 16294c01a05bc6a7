from collections.abc import Callable

import cv2
import numpy as np
import pytest

from wordmill.pictures import resemblance
from wordmill.pictures.image import Picture, fit_pictures
from wordmill.pictures.resemblance import Lookup, differing, fingerprints, thumbnails, variants
from wordmill.recipe.sections import Data
from wordmill.synth.renderer import SynthSpec, render

DATA = Data(train=("t",), val=("v",), charset="lower36", height=32, width=100, channels=1)
COUNT = 150


def words(seed: int) -> list[Picture]:
    address = f"synth://words?seed={seed}&count={COUNT}&fonts=train&words=train&difficulty=mixed"
    return [image for image, _ in render(SynthSpec.parse(address), 0, COUNT)]


def prints(images: list[Picture]) -> np.ndarray:
    return fingerprints(thumbnails(fit_pictures(images, DATA)))


@pytest.fixture(scope="module")
def pictures() -> list[Picture]:
    return words(1)


@pytest.fixture(scope="module")
def known(pictures: list[Picture]) -> tuple[Lookup, np.ndarray]:
    """What finds copies of the pictures, and whose each known fingerprint is."""
    made = [variants(image) for image in pictures]
    owners = np.repeat(np.arange(len(pictures)), [len(some) for some in made])
    return Lookup(prints([image for some in made for image in some])), owners


def compressed(image: Picture) -> Picture:
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 60])[1], cv2.IMREAD_GRAYSCALE)


COPIES: dict[str, Callable[[Picture], Picture]] = {
    "the same": lambda image: image,
    "compressed anew": compressed,
    "smaller": lambda image: cv2.resize(image, (67, 22), interpolation=cv2.INTER_AREA),
    "larger": lambda image: cv2.resize(image, (170, 50), interpolation=cv2.INTER_CUBIC),
    "cropped on a side": lambda image: image[2:],
    "cropped on all": lambda image: image[2:-2, 2:-2],
    "brighter": lambda image: np.clip(image.astype(np.int64) + 20, 0, 255).astype(np.uint8),
}


@pytest.mark.parametrize("how", COPIES)
def test_copies_are_found_as_what_they_are(how: str, pictures: list[Picture], known: tuple[Lookup, np.ndarray]) -> None:
    lookup, owners = known
    rows, near = lookup.near(prints([COPIES[how](image) for image in pictures]))
    assert len(rows) >= 0.97 * COUNT
    assert np.array_equal(owners[near], rows)


def test_other_words_and_faces_are_not_taken(known: tuple[Lookup, np.ndarray]) -> None:
    rows, _ = known[0].near(prints(words(2)))
    assert len(rows) == 0


def test_blank_pictures_are_nobodys() -> None:
    blank = prints([np.full((32, 100, 1), level, np.uint8) for level in (0, 90, 255)])
    assert not blank.any()
    assert len(Lookup(blank).near(blank)[0]) == 0


def test_the_nearest_is_told_and_parts_of_any_size_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = np.random.default_rng(0).integers(1 << 63, size=(50, 3), dtype=np.uint64)
    theirs = np.concatenate([ours ^ np.uint64(1), ours, ours ^ np.uint64(3)])
    asked = np.concatenate([ours, ours[::-1] ^ np.uint64(2)])
    expected = [*range(50, 100), *range(99, 49, -1)]  # 2 is as far from 0 as from 3: the first is told
    for at_once in (1 << 18, 7, 1):
        monkeypatch.setattr(resemblance, "AT_ONCE", at_once)
        rows, near = Lookup(theirs).near(asked)
        assert rows.tolist() == list(range(100))
        assert near.tolist() == expected
    assert [len(found) for found in Lookup(theirs).near(asked[:0])] == [0, 0]


def test_bits_that_differ_are_counted() -> None:
    ours = np.array([[0, 0, 0], [1, 2, 1 << 63]], np.uint64)
    theirs = np.array([[2**64 - 1, 2**64 - 1, 7], [1, 1, 0]], np.uint64)
    assert differing(ours, theirs).tolist() == [131, 3]


@pytest.mark.parametrize("shape", [(32, 100, 1), (64, 256, 3), (31, 80, 1), (32, 320, 1)])
def test_thumbnails_are_means_of_areas(shape: tuple[int, int, int]) -> None:
    half = np.zeros((2, *shape), np.uint8)
    half[1, :, : shape[1] // 2] = 200
    small = thumbnails(half)
    assert small.shape == (2, 8, 25)
    assert not small[0].any()
    assert (small[1, :, :12] == 200).all()
    assert not small[1, :, 13:].any()


def test_variants_lack_two_pixels_on_sides_or_have_them_more() -> None:
    image = np.arange(40 * 60, dtype=np.uint64).astype(np.uint8).reshape(40, 60, 1)
    shapes = [made.shape for made in variants(image)]
    assert shapes[:3] == [(40, 60, 1), (38, 60, 1), (42, 60, 1)]
    assert shapes[-2:] == [(36, 56, 1), (44, 64, 1)]
    assert len(shapes) == 15
    assert len(variants(image[:8])) == 1  # too small to lack anything
