"""How good a recogniser is, and whether one is better than another: accuracies, intervals, calibration, tests."""

import math
from collections import Counter
from dataclasses import dataclass

from rapidfuzz.distance import LCSseq, Levenshtein

NORMAL_975 = 1.959963984540054  # the standard normal distribution's 97.5 % point: two-sided 95 %
BINS = 15  # of the calibration

Pair = tuple[str, str]  # a reading and its label, as a protocol compares them


@dataclass(frozen=True, kw_only=True)
class Score:
    """What a recogniser reached on one set of samples; each share lies in 0..1.

    `ned` is 1 - mean normalised edit distance, `character_precision` the share of the characters of readings and
    labels that stand in both in the same order; what FSNS calls annotation precision is the accuracy.
    """

    total: int
    correct: int
    ned: float
    character_precision: float

    @property
    def accuracy(self) -> float:
        """Share of the samples read without a mistake, 0..1."""
        return self.correct / self.total


@dataclass(frozen=True, kw_only=True)
class Length:
    """How many words of one length, in characters of the label, there are, and how many are read right."""

    length: int
    total: int
    correct: int


@dataclass(frozen=True, kw_only=True)
class Slip:
    """A character read as another; without a truth it was put in, without a reading it was left out."""

    truth: str
    read: str
    count: int


@dataclass(frozen=True, kw_only=True)
class Bin:
    """Samples with low < confidence <= high, their mean confidence and their accuracy; None where there are none."""

    low: float
    high: float
    count: int
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """How far confidences are from accuracies; `ece` is the expected calibration error, 0..1."""

    ece: float
    bins: tuple[Bin, ...]


def score_pairs(pairs: list[Pair]) -> Score:
    """Score readings; 1-NED divides each Levenshtein distance by the longer text's length (RecMetric of MindOCR).

    Character precision is the sum of 2 * LCS over the sum of both lengths (MindSpore's crnn_seq2seq_ocr, eval.py).
    """
    if not pairs:
        raise ValueError("nothing to score: the set has no sample")
    distance = math.fsum(Levenshtein.normalized_distance(read, label) for read, label in pairs)
    common = sum(LCSseq.similarity(read, label) for read, label in pairs)
    characters = sum(len(read) + len(label) for read, label in pairs)
    correct = sum(read == label for read, label in pairs)
    return Score(total=len(pairs), correct=correct, ned=1.0 - distance / len(pairs),
                 character_precision=2 * common / characters if characters else 1.0)  # fmt: skip


def by_length(pairs: list[Pair]) -> list[Length]:
    """Return the accuracy by the label's length, the shortest first."""
    total = Counter(len(label) for _, label in pairs)
    correct = Counter(len(label) for read, label in pairs if read == label)
    return [Length(length=length, total=total[length], correct=correct[length]) for length in sorted(total)]


def confusion(pairs: list[Pair]) -> list[Slip]:
    """Return what the shortest edits from the labels to the readings (Levenshtein 1966) do, the most frequent first."""
    counts = Counter[Pair]()
    for read, label in pairs:
        for edit in Levenshtein.editops(label, read):
            truth = "" if edit.tag == "insert" else label[edit.src_pos]
            counts[truth, "" if edit.tag == "delete" else read[edit.dest_pos]] += 1
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [Slip(truth=truth, read=read, count=count) for (truth, read), count in ordered]


def calibration(outcomes: list[tuple[float, bool]]) -> Calibration:
    """Compare confidences, 0..1, with outcomes, in 15 bins of equal width (Guo et al. 2017, section 2)."""
    rows: list[list[tuple[float, bool]]] = [[] for _ in range(BINS)]
    for confidence, right in outcomes:
        rows[max(0, math.ceil(confidence * BINS) - 1)].append((confidence, right))
    bins = tuple(_bin(number, row) for number, row in enumerate(rows))
    gaps = (abs(sum(right for _, right in row) - math.fsum(sure for sure, _ in row)) for row in rows)
    return Calibration(ece=math.fsum(gaps) / len(outcomes), bins=bins)


def _bin(number: int, row: list[tuple[float, bool]]) -> Bin:
    confidence = math.fsum(sure for sure, _ in row) / len(row) if row else None
    accuracy = sum(right for _, right in row) / len(row) if row else None
    return Bin(low=number / BINS, high=(number + 1) / BINS, count=len(row), confidence=confidence, accuracy=accuracy)


def wilson_interval(correct: int, total: int) -> tuple[float, float]:
    """Return the 95 % score interval of a proportion (Wilson 1927, JASA 22, 209-212), within 0..1."""
    share, z2 = correct / total, NORMAL_975**2
    centre = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = NORMAL_975 * math.sqrt(share * (1 - share) / total + z2 / (4 * total**2)) / (1 + z2 / total)
    return max(0.0, centre - half), min(1.0, centre + half)


def mcnemar_exact(gained: int, lost: int) -> float:
    """Return the two-sided exact p-value of paired outcomes (McNemar 1947; the sign test over discordant pairs).

    `gained` samples only the candidate reads, `lost` ones only the champion.
    """
    discordant = gained + lost
    tail = sum(math.comb(discordant, k) for k in range(min(gained, lost) + 1))
    return min(1.0, 2 * tail / (1 << discordant))


def plain_mean(values: list[float]) -> float:
    """Return the arithmetic mean: the published figure over benchmarks, each counting once whatever its size."""
    return math.fsum(values) / len(values)


def weighted_mean(correct: list[int], totals: list[int]) -> float:
    """Return the accuracy over all samples of all benchmarks, each sample counting once."""
    return sum(correct) / sum(totals)
