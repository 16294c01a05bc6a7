"""Beam search: readings that are likelier as a whole than that of the likeliest class at each step."""

import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wordmill.text.decoding import AttentionCodec, CtcCodec, Logits, Reading, confidences_of, probabilities

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Prefix = tuple[int, ...]
Beam = dict[Prefix, tuple[float, float]]  # probabilities of a prefix's paths: those that end in a blank, and the others
# Goes on with hypotheses `parents` (R,), each by its class of `tokens` (R,): log-probabilities (R, classes).
Advance = Callable[[Integers, Integers], Floats]


def ctc_beam_search(logits: Logits, codec: CtcCodec, beams: int) -> Reading:
    """Prefix beam search (Hannun et al. 2014, without a language model) of logits (N, T, C).

    A text's probability is the sum over all its paths, and what its confidence is made of.
    """
    found = [prefixes(rows, beams)[0] for rows in probabilities(logits)]
    texts = ["".join(codec.charset.symbols[c - 1] for c in prefix) for prefix, _ in found]
    sums, lengths = np.array([likely for _, likely in found]), np.array([len(prefix) for prefix, _ in found])
    return texts, confidences_of(sums, lengths, codec.temperature)


def prefixes(rows: Floats, beams: int) -> list[tuple[Prefix, float]]:
    """Return the texts that the beam keeps of probabilities (T, C), with their log-probabilities, likeliest first."""
    # Of all that one prefix can grow into, the beam has room for so many, and its last character may count for less
    # than others. What grows into a prefix of the beam is looked at too, so nothing is lost by looking at no more.
    looked_at = min(beams + 1, rows.shape[1] - 1)
    likeliest = np.argpartition(-rows[:, 1:], looked_at - 1, axis=1)[:, :looked_at] + 1
    beam: Beam = {(): (1.0, 0.0)}
    scale = 0.0
    for row, best in zip(rows, likeliest.tolist(), strict=True):
        grown = _grow(beam, row, {*best, *(prefix[-1] for prefix in beam if prefix)})
        kept = sorted(grown.items(), key=lambda item: -sum(item[1]))[:beams]
        largest = sum(kept[0][1])
        scale += math.log(largest)  # taken out at each step, so that long products stay within float64
        beam = {prefix: (blank / largest, last / largest) for prefix, (blank, last) in kept}
    first, *others = [(prefix, sum(paths)) for prefix, paths in beam.items()]  # the first one's sum is 1
    return [(first[0], scale), *((prefix, scale + math.log(odds)) for prefix, odds in others if odds > 0)]


def _grow(beam: Beam, row: Floats, candidates: set[int]) -> Beam:
    """Return the prefixes after one more step of probabilities (C,): each as it was, and with each candidate."""
    blank_odds = float(row[CtcCodec.BLANK])
    odds = {number: float(row[number]) for number in candidates}
    blanks: dict[Prefix, float] = defaultdict(float)
    lasts: dict[Prefix, float] = defaultdict(float)
    for prefix, (blank, last) in beam.items():
        blanks[prefix] += (blank + last) * blank_odds
        for number, odd in odds.items():
            repeats = bool(prefix) and number == prefix[-1]
            if repeats:  # without a blank between them, equal neighbours are one character
                lasts[prefix] += last * odd
            lasts[(*prefix, number)] += (blank if repeats else blank + last) * odd
    return {prefix: (blanks.get(prefix, 0.0), lasts.get(prefix, 0.0)) for prefix in blanks | lasts}


@dataclass(kw_only=True)
class _Hypotheses:
    """What a beam search goes on with: words without STOP, K for each of N samples."""

    scores: Floats  # (N, K) log-probabilities, sums over the words' characters
    words: Integers  # (N, K, length) classes


def attention_beam_search(advance: Advance, samples: int, codec: AttentionCodec, beams: int, steps: int) -> Reading:
    """Beam search with an attention decoder of so many steps; `advance` takes N * K hypotheses, samples first.

    A text's probability is that of its characters and STOP; GO is never written. The confidence is made of the
    characters' alone; where no hypothesis reaches STOP the text is empty.
    """
    live = _Hypotheses(
        scores=np.where(np.arange(beams) == 0, np.zeros((samples, 1)), -np.inf),  # all start alike: one is enough
        words=np.zeros((samples, beams, 0), dtype=np.int64),
    )
    ended = np.full(samples, -np.inf)  # log-probabilities of the best words that reached STOP
    found: list[tuple[list[int], float]] = [([], 0.0)] * samples
    parents, tokens = np.arange(samples * beams), np.full(samples * beams, AttentionCodec.GO)
    for _ in range(steps):
        likely = advance(parents, tokens).astype(np.float64).reshape(samples, beams, -1)
        stops = live.scores + likely[:, :, AttentionCodec.STOP]
        for sample in np.flatnonzero(stops.max(axis=1) > ended):
            best = int(stops[sample].argmax())
            word, total = live.words[sample, best].tolist(), float(live.scores[sample, best])
            ended[sample], found[sample] = stops[sample, best], (word, total)
        live, parents = _extend(live, likely)
        tokens = live.words[:, :, -1].ravel()
        if (ended >= live.scores.max(axis=1)).all():  # probabilities only fall from here
            break
    symbols = codec.charset.symbols
    texts = ["".join(symbols[number - AttentionCodec.FIRST] for number in word) for word, _ in found]
    sums, lengths = np.array([total for _, total in found]), np.array([len(word) for word, _ in found])
    return texts, confidences_of(sums, lengths, codec.temperature)


def _extend(live: _Hypotheses, likely: Floats) -> tuple[_Hypotheses, Integers]:
    """Return the K best hypotheses of each sample with one character more, and which ones (N * K,) they continue."""
    samples, beams, classes = likely.shape
    totals = live.scores[:, :, np.newaxis] + likely
    totals[:, :, [AttentionCodec.GO, AttentionCodec.STOP]] = -np.inf
    flat = totals.reshape(samples, -1)
    kept = np.argpartition(-flat, beams - 1, axis=1)[:, :beams]
    parent, token = np.divmod(kept, classes)
    own = np.arange(samples)[:, np.newaxis]
    longer = _Hypotheses(
        scores=np.take_along_axis(flat, kept, axis=1),
        words=np.concatenate([live.words[own, parent], token[:, :, np.newaxis]], axis=2),
    )
    return longer, (own * beams + parent).ravel()
