import numpy as np
import pytest

from wordmill.pictures.composition import Crop, compose, is_bright_on_dark, relit

INK, GROUND = 40, 200


def word(text: str, width: int = 10, channels: int = 1, ink: int = INK, ground: int = GROUND) -> Crop:
    """Return a word whose letters are bars of their own heights, each in the middle of its cell of so many columns."""
    picture = np.full((24, width * len(text), channels), ground, np.uint8)
    for place, letter in enumerate(text):
        left = place * width + width // 4
        picture[4 : 6 + (ord(letter) - ord("a")), left : left + width // 2] = ink
    return Crop(picture=picture, text=text, cuts=tuple((n + 1) / len(text) for n in range(len(text) - 1)))


def heights(picture: np.ndarray) -> list[int]:
    """Return how high each bar of a word is, from left to right."""
    rows = (picture[:, :, 0] < (INK + GROUND) / 2).sum(axis=0)
    starts = np.flatnonzero((rows > 0) & (np.append(0, rows[:-1]) == 0))
    return [int(part.max()) for part in np.split(rows, starts)[1:]]


def test_words_are_the_front_of_one_and_the_back_of_another() -> None:
    crops = [word("abcd"), word("efgh")]
    found = [compose(crops, seed) for seed in range(200)]
    fronts, backs = [("a", "ab", "abc"), ("e", "ef", "efg")], [("bcd", "cd", "d"), ("fgh", "gh", "h")]
    every = {front + back for one in fronts for front in one for other in backs for back in other}
    assert {text for _, text in found} == every
    for picture, text in found:
        assert picture.shape[0] == 24
        assert heights(picture) == pytest.approx([2 + ord(c) - ord("a") for c in text], abs=1)


def test_a_seed_gives_one_word_and_another_seed_another() -> None:
    crops = [word("abc"), word("defg"), word("hi")]
    for seed in range(5):
        (one, text), (same, again) = compose(crops, seed), compose(crops, seed)
        assert text == again
        assert one.tobytes() == same.tobytes()
    assert len({compose(crops, seed)[0].tobytes() for seed in range(20)}) > 10


@pytest.mark.parametrize("channels", [1, 3])
def test_the_second_piece_is_lit_inked_and_as_wide_as_the_first(channels: int) -> None:
    narrow = word("abc", width=8, channels=channels)
    wide = word("def", width=24, channels=channels, ink=180, ground=60)  # bright on dark, of less contrast
    assert not is_bright_on_dark(narrow.picture)
    assert is_bright_on_dark(wide.picture)
    both = [(picture, text) for picture, text in (compose([narrow, wide], seed) for seed in range(60))
            if text[0] == "a" and text[-1] == "f"]  # fmt: skip
    assert both
    for picture, text in both:
        assert picture.shape[2] == channels
        assert 8 * len(text) * 0.85 < picture.shape[1] < 8 * len(text) * 1.18
        assert np.abs(picture[0].astype(int) - GROUND).max() < 30
        assert picture.min() == pytest.approx(INK, abs=30)


def test_a_picture_with_nothing_in_it_is_no_reason_for_enormous_contrast() -> None:
    flat = Crop(picture=np.full((8, 8, 1), 100, np.uint8), text="ab", cuts=(0.5,))
    noisy = Crop(picture=flat.picture + (np.arange(64, dtype=np.uint8) % 2).reshape(8, 8, 1), text="ab", cuts=(0.5,))
    like = word("ab")
    for crop in (flat, noisy):
        found = relit(crop.picture, crop, like)
        assert found == pytest.approx(np.full((8, 8, 1), like.picture.mean()), abs=0.15 * like.picture.std())


def test_a_word_relit_as_itself_stays() -> None:
    crop = word("abc", channels=3)
    assert relit(crop.picture, crop, crop) == pytest.approx(crop.picture.astype(float), abs=1e-3)


def test_pieces_of_hardly_a_column_are_widened_to_what_can_be_joined() -> None:
    picture = np.tile(np.arange(9, dtype=np.uint8)[None, :, None] * 20, (8, 1, 1))
    crops = [Crop(picture=picture, text="abc", cuts=cuts) for cuts in ((0.01, 0.02), (0.98, 0.99), (0.5, 0.5))]
    for crop in crops:
        for place in range(3):
            assert crop.columns(place, place + 1).stop - crop.columns(place, place + 1).start >= 3
    for seed in range(20):
        assert compose(crops, seed)[0].shape[1] >= 6
