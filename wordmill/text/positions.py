"""Where a reading's characters stand in its picture, how sure each is, and what else the picture may say."""

import math
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from wordmill.text.beam import prefixes
from wordmill.text.decoding import AttentionCodec, Codec, CtcCodec, Logits, probabilities

Floats = npt.NDArray[np.float32]

BEAMS = 8  # hypotheses of a search for alternatives, at least


@dataclass(frozen=True, kw_only=True)
class Character:
    """A character of a reading: its confidence in 0..1, and from where to where it stands, in shares of the width.

    The confidence of a reading is the geometric mean of its characters'. One stands from half way to the character
    before to half way to the next; the first and the last reach as far to their other side, within the picture, and one
    alone has all of it. Both are None where a recogniser does not say.
    """

    text: str
    confidence: float
    start: float | None = None
    end: float | None = None


@dataclass(frozen=True, kw_only=True)
class Alternative:
    """A text that a picture may say, with the probability of all its paths."""

    text: str
    probability: float


def characters(logits: Logits, codec: Codec, looks: Logits | None = None) -> list[list[Character]]:
    """Return the characters of `codec.decode`'s texts of logits (N, T, C), of each picture in order.

    An attention recogniser's logits do not say where its characters stand: `looks` (N, T, columns) does, its attention.
    """
    odds = probabilities(logits)
    if isinstance(codec, CtcCodec):
        return [_ctc(rows, codec) for rows in odds]
    return [_attention(rows, codec, None if looks is None else looks[number]) for number, rows in enumerate(odds)]


def likeliest_texts(logits: Logits, codec: Codec, count: int) -> list[list[Alternative]]:
    """Return the likeliest `count` texts of each of logits (N, T, C), the likeliest first; ValueError but for CTC."""
    if count < 1:
        raise ValueError(f"alternatives: found {count}, expected at least 1")
    if not isinstance(codec, CtcCodec):
        raise ValueError("alternatives: an attention recogniser writes each character by those before it, so its "
                         "logits say nothing of other texts")  # fmt: skip
    found = [prefixes(rows, max(count, BEAMS)) for rows in probabilities(logits)]
    symbols = codec.charset.symbols
    return [
        [Alternative(text="".join(symbols[c - codec.FIRST] for c in prefix), probability=math.exp(likely))
         for prefix, likely in beam[:count]] for beam in found
    ]  # fmt: skip


def in_picture(found: list[Character], filled: float) -> list[Character]:
    """Return characters whose spans are shares of the picture itself, which fills so much of the network's input."""

    def share(place: float | None) -> float | None:
        return None if place is None else min(1.0, place / filled)

    return [Character(text=one.text, confidence=one.confidence, start=share(one.start), end=share(one.end))
            for one in found]  # fmt: skip


def as_they_lie(found: list[Character], columns: Floats | None) -> list[Character]:
    """Return characters read of columns that lie elsewhere in the picture, at (columns,) in shares of its width.

    None: nobody says where, so they have no places.
    """

    def moved(one: Character) -> Character:
        if columns is None or one.start is None or one.end is None:
            return Character(text=one.text, confidence=one.confidence)
        read = (np.arange(len(columns)) + 0.5) / len(columns)
        low, high = sorted(float(np.interp(place, read, columns)) for place in (one.start, one.end))
        return Character(text=one.text, confidence=one.confidence, start=low, end=high)

    return [moved(one) for one in found]


def document(found: list[Character]) -> list[dict[str, Any]]:
    """Return characters as JSON has them, with four digits."""
    return [{key: round(value, 4) if isinstance(value, float) else value for key, value in asdict(one).items()}
            for one in found]  # fmt: skip


def _ctc(odds: Logits, codec: CtcCodec) -> list[Character]:
    """Return the characters of one picture's probabilities (T, C): runs of frames, with the mean frame of each."""
    best, frames = odds.argmax(axis=1), np.arange(len(odds))
    first = np.flatnonzero((best != codec.BLANK) & np.append(True, best[1:] != best[:-1]))
    centres, sure = [], []
    for start in first.tolist():
        run = (frames >= start) & np.logical_and.accumulate((best == best[start]) | (frames < start))
        weights = odds[run, best[start]]
        centres.append(float((weights * (frames[run] + 0.5)).sum() / weights.sum()) / len(odds))
        sure.append(float(odds[start, best[start]]) ** (1 / codec.temperature))
    texts = [codec.charset.symbols[best[start] - codec.FIRST] for start in first]
    return [Character(text=text, confidence=one, start=low, end=high)
            for text, one, (low, high) in zip(texts, sure, cells(centres), strict=True)]  # fmt: skip


def cells(centres: list[float]) -> list[tuple[float, float]]:
    """Return from where to where characters stand that have these centres, rising shares of the width."""
    if len(centres) < 2:
        return [(0.0, 1.0)] * len(centres)
    between = [(left + right) / 2 for left, right in pairwise(centres)]
    low, high = max(0.0, 2 * centres[0] - between[0]), min(1.0, 2 * centres[-1] - between[-1])
    edges = [low, *between, high]
    return list(pairwise(edges))


def _attention(odds: Logits, codec: AttentionCodec, looks: Logits | None) -> list[Character]:
    """Return the characters of one picture's probabilities (T, C) up to STOP; none without it.

    With its attention (T, columns) the mean column of each is where it stands; none before the one before.
    """
    best = odds.argmax(axis=1)
    stops = np.flatnonzero(best == codec.STOP)
    steps = [step for step in range(stops[0] if len(stops) else 0) if best[step] != codec.GO]
    spans: list[tuple[float, float]] | list[tuple[None, None]] = [(None, None)] * len(steps)
    if looks is not None and steps:
        columns = (np.arange(looks.shape[1]) + 0.5) / looks.shape[1]
        spans = cells(np.maximum.accumulate(looks[steps] @ columns).tolist())
    symbols = codec.charset.symbols
    sure = [float(odds[step, best[step]]) ** (1 / codec.temperature) for step in steps]
    return [Character(text=symbols[best[step] - codec.FIRST], confidence=one, start=low, end=high)
            for step, one, (low, high) in zip(steps, sure, spans, strict=True)]  # fmt: skip
