import numpy as np
import pytest

from wordmill.pictures.composition import Composer, Crop, beside_each_other, is_bright_on_dark, relit, text_of

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


def test_a_word_is_the_front_of_one_and_the_back_of_another() -> None:
    composer, rng = Composer([word("abcd"), word("efgh")]), np.random.default_rng(0)
    found = [composer.cross(rng) for _ in range(200)]
    fronts, backs = [("a", "ab", "abc"), ("e", "ef", "efg")], [("bcd", "cd", "d"), ("fgh", "gh", "h")]
    every = {front + back for one in fronts for front in one for other in backs for back in other}
    assert {text_of(pieces) for pieces in found} == every
    for pieces in found:
        picture = beside_each_other(pieces, rng)
        assert picture.shape[0] == 24
        assert heights(picture) == pytest.approx([2 + ord(c) - ord("a") for c in text_of(pieces)], abs=1)


@pytest.mark.parametrize(
    ("text", "lengths"),
    [("abcd", [4]), ("fgab", [2, 2]), ("hcde", [1, 2, 1]), ("ijklmno", [6, 1]), ("aaa", [1, 1, 1]), ("abx", []),
     ("", [])],
)  # fmt: skip
def test_a_text_is_spelled_by_the_longest_pieces_that_there_are(text: str, lengths: list[int]) -> None:
    crops = [word("abcd"), word("efgh"), word("ijklmnop")]
    pieces = Composer(crops).spell(text, np.random.default_rng(0))
    assert [end - begin for _, begin, end in pieces] == lengths
    assert text_of(pieces) == (text if lengths else "")
    if lengths:
        picture = beside_each_other(pieces, np.random.default_rng(0))
        assert heights(picture) == pytest.approx([2 + ord(c) - ord("a") for c in text], abs=1)


def test_a_word_begins_and_ends_with_a_margin_where_a_crop_has_one() -> None:
    crops = [word("xab"), word("aby"), word("xcd"), word("cdy")]
    for seed in range(20):
        (first, begin, _), (last, _, end) = Composer(crops).spell("abcd", np.random.default_rng(seed))
        assert (first.text, begin, last.text, end) == ("aby", 0, "xcd", 3)


def test_the_same_draws_make_the_same_word_and_others_another() -> None:
    composer = Composer([word("abc"), word("abd"), word("ce")])

    def made(seed: int) -> bytes:
        rng = np.random.default_rng(seed)
        return beside_each_other(composer.spell("abce", rng), rng).tobytes()

    assert [made(seed) for seed in range(9)] == [made(seed) for seed in range(9)]
    assert len({made(seed) for seed in range(9)}) > 2


@pytest.mark.parametrize("channels", [1, 3])
def test_other_pieces_are_lit_inked_and_as_wide_as_the_first(channels: int) -> None:
    narrow = word("abc", width=8, channels=channels)
    wide = word("def", width=24, channels=channels, ink=180, ground=60)  # bright on dark, of less contrast
    assert not is_bright_on_dark(narrow.picture)
    assert is_bright_on_dark(wide.picture)
    for seed in range(20):
        picture = beside_each_other([(narrow, 0, 2), (wide, 1, 3), (narrow, 2, 3)], np.random.default_rng(seed))
        assert picture.shape[2] == channels
        assert 8 * 5 * 0.85 < picture.shape[1] < 8 * 5 * 1.18
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
            joined = beside_each_other([(crops[0], 0, 1), (crop, place, place + 1)], np.random.default_rng(place))
            assert joined.shape[1] >= 6
