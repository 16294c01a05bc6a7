from itertools import product

import numpy as np
import pytest

from tests.wordmill.text.steps import steps_needed
from wordmill.recipe.sections import Data, Model
from wordmill.text.charset import Charset, load_charset
from wordmill.text.decoding import AttentionCodec, CtcCodec, codec_of

CTC = CtcCodec(charset=load_charset("lower36"))
ATTENTION = AttentionCodec(charset=load_charset("lower36"))
AB = Charset(name="ab", symbols="ab")
GO, STOP = 0, 1


def path_logits(rows: list[list[int]], classes: int) -> np.ndarray:
    """Return logits (N, T, C) whose best path is the given classes, with a lead of ln(3) over each other class."""
    logits = np.zeros((len(rows), len(rows[0]), classes), np.float32)
    for n, row in enumerate(rows):
        for t, best in enumerate(row):
            logits[n, t, best] = np.log(3.0)
    return logits


def test_ctc_has_the_blank_as_class_0() -> None:
    assert CTC.classes == 37
    assert CTC.encode("0a9Z?") == [1, 11, 10, 36]


def test_attention_has_go_and_stop_before_the_characters() -> None:
    assert ATTENTION.classes == 38
    assert ATTENTION.encode("0a9Z?") == [2, 12, 11, 37]


@pytest.mark.parametrize(
    ("name", "ctc", "attention", "first", "last"),
    [
        ("english94", 95, 96, "0", "~"),
        ("chinese6623", 6624, 6625, "0", "齉"),  # the published 6,624 and 6,625 classes
        ("general9998", 9999, 10_000, " ", None),  # the published 10,000 classes
    ],
)
def test_class_numbers_of_large_charsets(name: str, ctc: int, attention: int, first: str, last: str | None) -> None:
    charset = load_charset(name)
    last = last or charset.symbols[-1]
    codecs = CtcCodec(charset=charset), AttentionCodec(charset=charset)
    assert [codec.classes for codec in codecs] == [ctc, attention]
    assert [codec.encode(first + last) for codec in codecs] == [[1, ctc - 1], [2, attention - 1]]
    texts, _ = codecs[0].decode(path_logits([[1, 0, ctc - 1]], ctc))
    assert texts == [first + last]
    texts, _ = codecs[1].decode(path_logits([[2, attention - 1, STOP]], attention))
    assert texts == [first + last]


@pytest.mark.parametrize(
    ("text", "steps"), [("book", 5), ("aaa", 5), ("aA", 3), ("o-o", 3), ("abab", 4), ("", 0), ("!!", 0)]
)
def test_ctc_needs_a_blank_between_equal_neighbours(text: str, steps: int) -> None:
    assert steps_needed(CTC, text) == steps


def test_the_steps_that_ctc_needs_are_the_shortest_path_that_reads_the_text() -> None:
    codec = CtcCodec(charset=AB)
    for text in ("a", "ab", "aa", "aab", "abba", "aaa"):
        steps = steps_needed(codec, text)
        readings = codec.decode(path_logits([list(path) for path in product(range(3), repeat=steps)], 3))[0]
        assert text in readings
        shorter = codec.decode(path_logits([list(path) for path in product(range(3), repeat=steps - 1)], 3))[0]
        assert text not in shorter


@pytest.mark.parametrize(("text", "steps"), [("book", 5), ("aaa", 4), ("o-o", 3), ("", 1), ("a" * 25, 26)])
def test_attention_needs_a_step_for_stop(text: str, steps: int) -> None:
    assert steps_needed(ATTENTION, text) == steps


def test_best_path_drops_repeats_and_blanks() -> None:
    # a a - a b b -> "aab"; all blank -> ""
    texts, confidences = CTC.decode(path_logits([[11, 11, 0, 11, 12, 12], [0, 0, 0, 0, 0, 0]], 37))
    assert texts == ["aab", ""]
    # A lead of ln 3 over 36 others is a probability of 3 / (3 + 36).
    assert confidences == pytest.approx([3 / 39, 0.0])
    assert confidences.dtype == np.float32


def test_the_confidence_of_ctc_is_the_geometric_mean_over_the_first_step_of_each_character() -> None:
    # Probabilities of (blank, a, b) at each step; a's second step and the blank do not count: sqrt(0.5 * 0.9).
    shares = [[0.2, 0.5, 0.3], [0.1, 0.8, 0.1], [0.6, 0.2, 0.2], [0.05, 0.05, 0.9]]
    logits = np.log(np.array([shares], dtype=np.float32)) + 5.0  # softmax does not see the 5
    texts, confidences = CtcCodec(charset=AB).decode(logits)
    assert (texts, confidences.tolist()) == (["ab"], pytest.approx([0.45**0.5], rel=1e-6))


def test_logits_that_are_no_numbers_are_read_with_no_confidence() -> None:
    logits = np.full((1, 2, 3), np.nan, dtype=np.float32)
    logits[0, 0, 1] = 1.0
    assert CtcCodec(charset=AB).decode(logits)[1].tolist() == [0.0]
    assert AttentionCodec(charset=AB).decode(logits)[1].tolist() == [0.0]


def test_the_confidence_of_attention_is_the_geometric_mean_over_the_characters_before_stop() -> None:
    # Probabilities of (GO, STOP, a, b); STOP's own 0.97 and what follows it do not count: sqrt(0.4 * 0.8).
    shares = [[0.3, 0.2, 0.4, 0.1], [0.1, 0.05, 0.05, 0.8], [0.01, 0.97, 0.01, 0.01], [0.01, 0.01, 0.97, 0.01]]
    texts, confidences = AttentionCodec(charset=AB).decode(np.log(np.array([shares], dtype=np.float32)))
    assert (texts, confidences.tolist()) == (["ab"], pytest.approx([0.32**0.5], rel=1e-6))


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ([2, 2, 3, STOP], "aab"),  # repeats are kept
        ([2, STOP, 3, STOP], "a"),  # up to the first STOP
        ([2, GO, 3, STOP], "ab"),  # GO within a word is left out
        ([STOP, 2, 3, 2], ""),
        ([2, 3, 2, 3], ""),  # no STOP: MindOCR counts no reading
        ([GO, GO, GO, STOP], ""),
    ],
)
def test_attention_reads_up_to_the_first_stop(path: list[int], text: str) -> None:
    texts, confidences = AttentionCodec(charset=AB).decode(path_logits([path], 4))
    assert texts == [text]
    assert confidences == pytest.approx([3 / 6 if text else 0.0])


def test_each_sample_of_a_batch_has_its_own_confidence() -> None:
    logits = np.zeros((3, 2, 3), dtype=np.float32)
    logits[0, :, 1] = np.log([2.0, 2.0])  # a and its repeat: 2 / 4
    logits[2, 0, 1], logits[2, 1, 2] = np.log(6.0), np.log(14.0)  # a 6 / 8, b 14 / 16: sqrt(21 / 32)
    texts, confidences = CtcCodec(charset=AB).decode(logits)
    assert texts == ["a", "", "ab"]
    assert confidences == pytest.approx([0.5, 0.0, (21 / 32) ** 0.5])


@pytest.mark.parametrize(("temperature", "expected"), [(0.5, 0.25), (1.0, 0.5), (2.0, 0.5**0.5)])
def test_a_temperature_makes_confidences_a_power_and_leaves_texts_alone(temperature: float, expected: float) -> None:
    # Of (blank, a, b), then of (GO, STOP, a, b): a at 0.5, and STOP; an empty text stays at 0.
    ctc = np.log(np.array([[[0.3, 0.5, 0.2]], [[0.9, 0.05, 0.05]]], dtype=np.float32))
    attention = np.log(np.array([[[0.1, 0.2, 0.5, 0.2], [0.01, 0.97, 0.01, 0.01]]], dtype=np.float32))
    texts, confidences = CtcCodec(charset=AB, temperature=temperature).decode(ctc)
    assert (texts, confidences.tolist()) == (["a", ""], pytest.approx([expected, 0.0], rel=1e-6))
    texts, confidences = AttentionCodec(charset=AB, temperature=temperature).decode(attention)
    assert (texts, confidences.tolist()) == (["a"], pytest.approx([expected], rel=1e-6))


def test_very_large_logits_do_not_overflow() -> None:
    logits = np.array([[[0.0, 1e4, -1e4]]], dtype=np.float32)
    texts, confidences = CtcCodec(charset=AB).decode(logits)
    assert (texts, confidences.tolist()) == (["a"], [1.0])


def test_decoding_leaves_the_logits_as_they_are() -> None:
    logits = path_logits([[1, 2, 1]], 3)
    before = logits.copy()
    CtcCodec(charset=AB).decode(logits)
    assert (logits == before).all()


@pytest.mark.parametrize(("name", "kind"), [("crnn", CtcCodec), ("rare", AttentionCodec), ("seq2seq", AttentionCodec)])
def test_the_recipe_decides_the_codec_and_its_charset(name: str, kind: type) -> None:
    data = Data(train=(), val=(), charset="lower36", height=32, width=100, channels=1, space=True)
    model = Model(name=name, backbone="vgg7", neck="bilstm", hidden=256, layers=2)
    codec = codec_of(model, data)
    assert type(codec) is kind
    assert codec.classes == {CtcCodec: 38, AttentionCodec: 39}[kind]
