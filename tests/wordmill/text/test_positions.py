import math

import numpy as np
import pytest

from wordmill.text.beam import ctc_beam_search
from wordmill.text.charset import Charset
from wordmill.text.decoding import AttentionCodec, CtcCodec
from wordmill.text.positions import Character, as_they_lie, cells, characters, document, in_picture, likeliest_texts

AB = Charset(name="ab", symbols="ab")
CTC, WRITER = CtcCodec(charset=AB), AttentionCodec(charset=AB)


def logits(*rows: list[float]) -> np.ndarray:
    """Return the logits (1, T, C) of one picture whose steps have these probabilities."""
    return np.log(np.array([rows], np.float32))


# blank, a, b: the runs a a, b, b around a blank, in 8 frames.
FRAMES = logits(
    [0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.2, 0.4, 0.4 - 1e-3], [0.9, 0.05, 0.05],
    [0.1, 0.1, 0.8], [0.9, 0.05, 0.05], [0.2, 0.2, 0.6], [0.8, 0.1, 0.1],
)  # fmt: skip


def test_characters_of_ctc_are_those_of_the_reading_each_where_its_frames_are() -> None:
    (found,) = characters(FRAMES, CTC)
    texts, confidence = CTC.decode(FRAMES)
    assert "".join(one.text for one in found) == texts[0] == "abb"
    assert [one.confidence for one in found] == pytest.approx([0.8, 0.8, 0.6], rel=1e-3)
    assert math.prod(one.confidence for one in found) ** (1 / 3) == pytest.approx(confidence[0], rel=1e-6)
    # Centres: frames 1 and 2 weighted 0.8 and 0.4 are at 1.5 + 1 / 3, then 4.5 and 6.5, of 8.
    first, second, third = 11 / 6 / 8, 4.5 / 8, 6.5 / 8
    edges = [(first + second) / 2, (second + third) / 2]
    expected = [(first - (edges[0] - first), edges[0]), (edges[0], edges[1]), (edges[1], third + third - edges[1])]
    spans = np.array([(one.start, one.end) for one in found])
    assert spans == pytest.approx(np.array([(max(0.0, low), high) for low, high in expected]), abs=1e-3)


def test_confidences_of_characters_have_the_temperature_of_the_readings() -> None:
    codec = CtcCodec(charset=AB, temperature=0.5)
    (found,) = characters(FRAMES, codec)
    assert [one.confidence for one in found] == pytest.approx([0.64, 0.64, 0.36], rel=1e-3)
    assert math.prod(one.confidence for one in found) ** (1 / 3) == pytest.approx(codec.decode(FRAMES)[1][0], rel=1e-6)
    writer = AttentionCodec(charset=AB, temperature=0.5)
    rows = logits([0.1, 0.1, 0.7, 0.1], [0.0001, 0.9997, 0.0001, 0.0001])  # a, STOP
    assert [one.confidence for (one,) in characters(rows, writer)] == pytest.approx([0.49], rel=1e-3)


def test_cells_lie_between_the_middles_of_neighbours_and_within_the_picture() -> None:
    assert cells([]) == []
    assert cells([0.3]) == [(0.0, 1.0)]
    assert np.array(cells([0.3, 0.5])) == pytest.approx(np.array([(0.2, 0.4), (0.4, 0.6)]))
    assert np.array(cells([0.1, 0.5, 0.95])) == pytest.approx(np.array([(0.0, 0.3), (0.3, 0.725), (0.725, 1.0)]))


def test_an_attention_recogniser_tells_confidences_up_to_stop_and_no_places() -> None:
    rows = logits([0.1, 0.1, 0.7, 0.1], [0.7, 0.1, 0.1, 0.1], [0.1, 0.2, 0.1, 0.6], [0.0001, 0.9997, 0.0001, 0.0001])
    (found,) = characters(rows, WRITER)  # a, GO, b, STOP
    assert [(one.text, one.start, one.end) for one in found] == [("a", None, None), ("b", None, None)]
    assert [one.confidence for one in found] == pytest.approx([0.7, 0.6], rel=1e-5)
    assert characters(rows[:, :3], WRITER) == [[]]  # without STOP it is no reading
    looks = np.zeros((1, 4, 8))
    looks[0, 0, 1:3], looks[0, 2, 5] = 0.5, 1.0  # a at 2 of 8 columns, b at 5.5: half way is 3.75
    (found,) = characters(rows, WRITER, looks)
    assert [one.start for one in found] == pytest.approx([0.25 / 8, 3.75 / 8])
    assert [one.end for one in found] == pytest.approx([3.75 / 8, 7.25 / 8])
    with pytest.raises(ValueError, match="alternatives: an attention recogniser writes each character by those before"):
        likeliest_texts(rows, WRITER, 2)


def test_alternatives_are_the_likeliest_texts_with_their_probabilities() -> None:
    rows = logits([0.3, 0.6, 0.1], [0.5, 0.4, 0.1])
    (found,) = likeliest_texts(rows, CTC, 4)
    # a: aa, a-, -a; "": --; ab and ba have one path each, b has b-, -b, bb.
    expected = {"a": 0.6 * 0.4 + 0.6 * 0.5 + 0.3 * 0.4, "": 0.15, "b": 0.05 + 0.03 + 0.01, "ab": 0.06, "ba": 0.04}
    assert [one.text for one in found] == sorted(expected, key=lambda text: -expected[text])[:4]
    assert [one.probability for one in found] == pytest.approx([expected[one.text] for one in found], rel=1e-5)
    assert ctc_beam_search(rows, CTC, 8)[0] == [found[0].text]
    assert math.isclose(sum(one.probability for one in likeliest_texts(rows, CTC, 5)[0]), 1.0, rel_tol=1e-5)
    with pytest.raises(ValueError, match="alternatives: found 0, expected at least 1"):
        likeliest_texts(rows, CTC, 0)


def test_characters_read_of_a_straightened_picture_stand_where_its_columns_lie() -> None:
    found = [
        Character(text="a", confidence=0.5, start=0.3, end=0.7),
        Character(text="b", confidence=1.0, start=0.7, end=1),
    ]
    lie = np.array([0.4, 0.5, 0.6, 0.7, 0.8], np.float32)  # of columns whose middles are at 0.1, 0.3 .. 0.9
    first, second = as_they_lie(found, lie)
    assert (first.text, first.confidence) == ("a", 0.5)
    assert (first.start, first.end, second.start, second.end) == pytest.approx((0.5, 0.7, 0.7, 0.8))
    (mirrored, _) = as_they_lie(found, lie[::-1].copy())
    assert (mirrored.start, mirrored.end) == pytest.approx((0.5, 0.7))
    assert as_they_lie(found[:1], None) == [Character(text="a", confidence=0.5)]


def test_places_in_a_picture_that_is_padded_are_of_the_picture_itself() -> None:
    found = [Character(text="a", confidence=0.98765, start=0.125, end=0.25), Character(text="b", confidence=1.0)]
    assert document(in_picture(found, 0.2)) == [
        {"text": "a", "confidence": 0.9877, "start": 0.625, "end": 1.0},
        {"text": "b", "confidence": 1.0, "start": None, "end": None},
    ]
