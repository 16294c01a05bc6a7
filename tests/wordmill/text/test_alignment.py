from itertools import product

import numpy as np
import pytest

from wordmill.text.alignment import aligned
from wordmill.text.charset import Charset
from wordmill.text.decoding import AttentionCodec, CtcCodec, probabilities
from wordmill.text.positions import characters

AB = Charset(name="ab", symbols="ab")
CTC, WRITER = CtcCodec(charset=AB), AttentionCodec(charset=AB)


def logits(*rows: list[float]) -> np.ndarray:
    """Return the logits (1, T, C) of one picture whose steps have these probabilities."""
    return np.log(np.array([rows], np.float32))


def written(path: tuple[int, ...]) -> str:
    """Return what a path of classes writes, by the rules of CTC."""
    kept = [c for c, before in zip(path, (0, *path), strict=False) if c and c != before]
    return "".join(AB.symbols[c - 1] for c in kept)


@pytest.mark.parametrize("text", ["a", "ab", "aa", "bab", "abb", "aab"])
def test_a_text_takes_the_likeliest_of_all_paths_that_write_it(text: str) -> None:
    given = np.random.default_rng(7).normal(size=(4, 6, 3)).astype(np.float32)
    found, scores = aligned(given, [text] * 4, CTC)
    assert CTC.decode(found)[0] == [text] * 4
    for rows, path, score in zip(np.log(probabilities(given)), found.argmax(axis=2), scores, strict=True):
        likely = {one: rows[range(6), one].sum() for one in product(range(3), repeat=6) if written(one) == text}
        best = max(likely, key=lambda one: likely[one])
        assert tuple(path.tolist()) == best
        assert score == pytest.approx(likely[best] / 6)


def test_characters_stand_where_the_text_is_and_not_where_it_was_read() -> None:
    # Read as "ab"; of the text "bb" the first b is likeliest in the second step, where a is likelier still.
    given = logits([0.8, 0.1, 0.1], [0.1, 0.5, 0.4], [0.8, 0.1, 0.1], [0.1, 0.1, 0.8])
    assert CTC.decode(given)[0] == ["ab"]
    (found,) = characters(aligned(given, ["bb"], CTC)[0], CTC)
    assert [(one.text, one.end) for one in found] == [("b", pytest.approx(2.5 / 4)), ("b", pytest.approx(1.0))]


@pytest.mark.parametrize(("codec", "long"), [(CTC, "aa"), (WRITER, "ab")])  # a blank between, STOP behind
def test_a_text_that_is_empty_or_too_long_is_nowhere(codec: CtcCodec | AttentionCodec, long: str) -> None:
    given = np.zeros((2, 2, codec.classes), np.float32)
    found, scores = aligned(given, ["", long], codec)
    assert characters(found, codec) == [[], []]
    assert scores.tolist() == [-np.inf, -np.inf]


def test_an_attention_recogniser_is_told_the_text_up_to_stop() -> None:
    given = logits([0.1, 0.1, 0.7, 0.1], [0.1, 0.1, 0.4, 0.4], [0.1, 0.5, 0.2, 0.2], [0.25, 0.25, 0.25, 0.25])
    found, (score,) = aligned(given, ["ab"], WRITER)
    assert WRITER.decode(found)[0] == ["ab"]
    assert score == pytest.approx(np.log([0.7, 0.4, 0.5]).mean(), rel=1e-5)


def test_a_character_that_is_never_seen_has_the_place_that_is_left() -> None:
    given = np.full((1, 5, 3), -60, np.float32)
    given[0, [0, 1, 2, 3, 4], [0, 1, 0, 0, 0]] = 0
    (found,) = characters(aligned(given, ["ab"], CTC)[0], CTC)
    assert "".join(one.text for one in found) == "ab"
