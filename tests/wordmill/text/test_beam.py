import itertools
from collections import defaultdict

import numpy as np
import pytest

from wordmill.text.beam import Floats, Integers, attention_beam_search, ctc_beam_search
from wordmill.text.charset import Charset
from wordmill.text.decoding import AttentionCodec, CtcCodec

AB = Charset(name="ab", symbols="ab")
LETTERS = Charset(name="letters", symbols="abcdefghijkl")


def text_probabilities(rows: np.ndarray, symbols: str) -> dict[str, float]:
    """Return each text's probability by going through all paths of probabilities (T, C), blank first."""
    found: dict[str, float] = defaultdict(float)
    for path in itertools.product(range(rows.shape[1]), repeat=len(rows)):
        text = "".join(symbols[number - 1] for number, _ in itertools.groupby(path) if number)
        found[text] += float(np.prod(rows[np.arange(len(rows)), path]))
    return found


def softmax(logits: np.ndarray) -> np.ndarray:
    exponents = np.exp(logits.astype(np.float64))
    return exponents / exponents.sum(axis=-1, keepdims=True)


def test_a_wide_ctc_beam_finds_the_likeliest_of_all_texts() -> None:
    logits = np.random.default_rng(1).normal(0, 1.5, (30, 5, 3)).astype(np.float32)
    texts, confidences = ctc_beam_search(logits, CtcCodec(charset=AB), beams=100)
    lengths = set()
    for rows, text, confidence in zip(softmax(logits), texts, confidences, strict=True):
        known = text_probabilities(rows, "ab")
        best = max(known, key=lambda word: known[word])
        assert text == best
        assert confidence == pytest.approx(known[best] ** (1 / len(best)) if best else 0.0, rel=1e-5)
        lengths.add(len(best))
    assert len(lengths) >= 4


def test_a_ctc_beam_sums_paths_where_the_best_path_misleads() -> None:
    codec, logits = CtcCodec(charset=AB), np.log([[[0.6, 0.4, 1e-9]] * 2]).astype(np.float32)
    assert codec.decode(logits)[0] == [""]  # 0.6 * 0.6 = 0.36
    texts, confidences = ctc_beam_search(logits, codec, beams=2)
    assert texts == ["a"]
    assert confidences[0] == pytest.approx(0.64)  # 0.4 * 0.4 + 0.4 * 0.6 + 0.6 * 0.4
    texts, confidences = ctc_beam_search(logits, CtcCodec(charset=AB, temperature=0.5), beams=2)
    assert (texts, confidences.tolist()) == (["a"], pytest.approx([0.64**2]))


def test_equal_neighbours_need_a_blank_between_them() -> None:
    a, blank = [0.1, 0.8, 0.1], [0.8, 0.1, 0.1]
    logits = np.log([[a, blank, a], [a, a, a]]).astype(np.float32)
    assert ctc_beam_search(logits, CtcCodec(charset=AB), beams=5)[0] == ["aa", "a"]


def plain_prefix_search(rows: np.ndarray, beams: int) -> tuple[tuple[int, ...], float]:
    """Return the best prefix and its probability by the textbook's search, which tries every class at every step."""
    beam = {(): (1.0, 0.0)}
    for row in rows:
        grown: dict[tuple[int, ...], np.ndarray] = defaultdict(lambda: np.zeros(2))
        for prefix, (blank, last) in beam.items():
            grown[prefix][0] += (blank + last) * row[0]
            for number in range(1, len(row)):
                if prefix and prefix[-1] == number:
                    grown[prefix][1] += last * row[number]
                    grown[*prefix, number][1] += blank * row[number]
                else:
                    grown[*prefix, number][1] += (blank + last) * row[number]
        kept = sorted(grown, key=lambda prefix: -grown[prefix].sum())[:beams]
        beam = {prefix: (grown[prefix][0], grown[prefix][1]) for prefix in kept}
    best = next(iter(beam))
    return best, sum(beam[best])


@pytest.mark.parametrize("beams", [1, 2, 5])
def test_looking_at_the_likeliest_classes_only_loses_nothing(beams: int) -> None:
    logits = np.random.default_rng(beams).normal(0, 2, (40, 9, 13)).astype(np.float32)
    texts, confidences = ctc_beam_search(logits, CtcCodec(charset=LETTERS), beams)
    for rows, text, confidence in zip(softmax(logits), texts, confidences, strict=True):
        prefix, probability = plain_prefix_search(rows, beams)
        assert text == "".join(LETTERS.symbols[number - 1] for number in prefix)
        assert confidence == pytest.approx(probability ** (1 / len(prefix)), rel=1e-5)


def test_long_and_improbable_words_stay_within_the_range_of_numbers() -> None:
    logits = np.random.default_rng(2).normal(0, 0.01, (1, 200, 6625)).astype(np.float32)
    charset = Charset(name="many", symbols="".join(map(chr, range(0x4E00, 0x4E00 + 6624))))
    _, confidences = ctc_beam_search(logits, CtcCodec(charset=charset), beams=3)
    assert 0 < confidences[0] < 0.01  # 6625 ** -200 is none


class Chain:
    """A decoder whose next class depends on the step and on what it wrote last: log-probabilities (N, L, C, C)."""

    def __init__(self, tables: np.ndarray, beams: int) -> None:
        self.tables, self.step = tables, 0
        self.samples = np.repeat(np.arange(len(tables)), beams)

    def __call__(self, parents: Integers, tokens: Integers) -> Floats:
        assert np.array_equal(self.samples[parents], self.samples)  # no hypothesis moves to another sample
        self.step += 1
        return self.tables[self.samples, self.step - 1, tokens]


def chains(samples: int, steps: int, classes: int) -> np.ndarray:
    values = np.random.default_rng(steps).normal(0, 1.5, (samples, steps, classes, classes))
    return values - np.log(np.exp(values).sum(axis=3, keepdims=True))


def likeliest(table: np.ndarray) -> tuple[float, tuple[int, ...]]:
    """Return the log-probability and the classes of the likeliest word of a chain (L, C, C) that ends with STOP."""
    steps, classes, _ = table.shape
    words = (word for length in range(steps) for word in itertools.product(range(2, classes), repeat=length))
    return max((score(table, word), word) for word in words)


def score(table: np.ndarray, word: tuple[int, ...]) -> float:
    tokens = [AttentionCodec.GO, *word, AttentionCodec.STOP]
    return float(sum(table[step, a, b] for step, (a, b) in enumerate(itertools.pairwise(tokens))))


def test_a_wide_attention_beam_finds_the_likeliest_of_all_words() -> None:
    tables, codec = chains(40, 5, 4), AttentionCodec(charset=AB)
    texts, confidences = attention_beam_search(Chain(tables, 20), 40, codec, beams=20, steps=5)
    for table, text, confidence in zip(tables, texts, confidences, strict=True):
        _, word = likeliest(table)
        assert text == "".join("ab"[number - 2] for number in word)
        odds = [np.exp(table[step, a, b]) for step, (a, b) in enumerate(itertools.pairwise([0, *word]))]
        assert confidence == pytest.approx(np.prod(odds) ** (1 / len(odds)) if odds else 0.0, rel=1e-5)
    assert {len(text) for text in texts} >= {0, 1, 2}


def greedy(table: np.ndarray) -> tuple[int, ...]:
    """Return the word that the likeliest class of each step, GO aside, writes before STOP."""
    word: list[int] = []
    for step in range(len(table)):
        token = int(table[step, word[-1] if word else 0, 1:].argmax()) + 1
        if token == AttentionCodec.STOP:
            return tuple(word)
        word.append(token)
    return ()


def test_a_beam_of_five_is_never_below_greedy_and_often_above() -> None:
    tables, codec = chains(60, 8, 14), AttentionCodec(charset=LETTERS)
    texts, _ = attention_beam_search(Chain(tables, 5), 60, codec, beams=5, steps=8)
    beam = [score(table, tuple(codec.encode(text))) for table, text in zip(tables, texts, strict=True)]
    one = [score(table, greedy(table)) for table in tables]
    assert all(a >= b - 1e-9 for a, b in zip(beam, one, strict=True))
    assert sum(a > b for a, b in zip(beam, one, strict=True)) >= 20


def test_a_beam_takes_the_worse_first_step_where_the_word_is_the_better_one() -> None:
    never = -50.0
    table = np.full((3, 4, 4), never)
    table[0, 0, 2], table[0, 0, 3] = np.log(0.6), np.log(0.4)  # a before b
    table[1, 2, :] = np.log([0.01, 0.4, 0.3, 0.29])  # after a nothing is sure
    table[1, 3, 1] = np.log(0.99)  # b is a word
    codec = AttentionCodec(charset=AB)
    texts, confidences = attention_beam_search(Chain(table[np.newaxis], 2), 1, codec, beams=2, steps=3)
    assert texts == ["b"]  # 0.4 * 0.99 against 0.6 * 0.4
    assert confidences[0] == pytest.approx(0.4)
    assert greedy(table) == (2,)
    texts, confidences = attention_beam_search(
        Chain(table[np.newaxis], 2), 1, AttentionCodec(charset=AB, temperature=2.0), beams=2, steps=3
    )
    assert (texts, confidences.tolist()) == (["b"], pytest.approx([0.4**0.5]))


def test_words_are_shorter_than_the_steps_and_empty_without_stop() -> None:
    tables = np.full((2, 4, 4, 4), np.log(0.01))
    tables[:, :, :, 2] = np.log(0.9)  # writes a for ever,
    tables[:, :, :, 0] = np.log(0.99)  # and GO rather, which is not a character
    tables[0, :, :, AttentionCodec.STOP] = -np.inf
    tables[1, :3, :, AttentionCodec.STOP] = -np.inf
    texts, confidences = attention_beam_search(Chain(tables, 3), 2, AttentionCodec(charset=AB), beams=3, steps=4)
    assert texts == ["", "aaa"]
    assert confidences.tolist() == pytest.approx([0.0, 0.9])
