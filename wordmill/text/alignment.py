"""Forced alignment: of all the ways in which a recogniser can write a text that is known, the likeliest."""

from collections.abc import Sequence
from itertools import chain, pairwise

import numpy as np
import numpy.typing as npt

from wordmill.text.decoding import AttentionCodec, Codec, CtcCodec, Logits, probabilities

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

LEAST = 1e-8  # probability, so that a character that is never seen has its place too


def aligned(logits: Logits, texts: Sequence[str], codec: Codec) -> tuple[Logits, Floats]:
    """Return logits (N, T, C) that read as the texts, each at its place, and how well the given ones agree with that.

    The latter, (N,), are mean logarithms of the probability of a step; -inf where a text is empty, or is longer than
    so many steps can write, and is nowhere then. Of CTC it is the likeliest path of the text (Viterbi 1967, by Graves
    et al. 2006's rules), of attention the text itself, which `TextRecogniser.places` looks for by these logits.
    """
    odds = np.log(np.maximum(probabilities(logits), LEAST))
    paths, scores = np.zeros(odds.shape[:2], np.int64), np.full(len(odds), -np.inf)
    for number, (rows, text) in enumerate(zip(odds, texts, strict=True)):
        path = _path(rows, codec.encode(text), codec)
        if path is not None:
            paths[number, : len(path)] = path
            scores[number] = rows[np.arange(len(path)), path].mean()
    return np.where(np.arange(odds.shape[2]) == paths[:, :, None], 0, -np.inf).astype(np.float32), scores


def _path(rows: Floats, classes: list[int], codec: Codec) -> Integers | None:
    """Return the class of each step of one picture's log-probabilities (T, C) that together write these classes."""
    if isinstance(codec, AttentionCodec):
        return np.array([*classes, codec.STOP]) if 0 < len(classes) < len(rows) else None
    repeats = sum(one == other for one, other in pairwise(classes))
    if not 0 < len(classes) + repeats <= len(rows):
        return None
    return _viterbi(rows, np.array([CtcCodec.BLANK, *chain.from_iterable((one, CtcCodec.BLANK) for one in classes)]))


def _viterbi(rows: Floats, states: Integers) -> Integers:
    """Return the likeliest classes of the steps (T,): characters with a blank between any two, which may be left out.

    states (2 L + 1,): the characters' classes with a blank before, between and behind.
    """
    skips = np.append([False, False], (states[2:] != CtcCodec.BLANK) & (states[2:] != states[:-2]))
    best = np.where(np.arange(len(states)) < 2, rows[0, states], -np.inf)
    moves = np.zeros((len(rows), len(states)), np.int64)  # how many states a step goes on by
    for step in range(1, len(rows)):
        one = np.append(-np.inf, best[:-1])
        two = np.where(skips, np.append([-np.inf, -np.inf], best[:-2]), -np.inf)
        ways = np.stack([best, one, two])
        moves[step] = ways.argmax(axis=0)
        best = ways.max(axis=0) + rows[step, states]
    place, found = len(states) - (2 if best[-2] > best[-1] else 1), []
    for step in reversed(range(len(rows))):
        found.append(states[place])
        place -= moves[step, place]
    return np.array(found[::-1])
