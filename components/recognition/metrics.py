"""How good a recogniser is, and whether one is better than another: word accuracy, edit distance, intervals, tests."""

import math
from dataclasses import dataclass

from rapidfuzz.distance import Levenshtein

from components.recognition.charset import Charset

NORMAL_975 = 1.959963984540054  # the standard normal distribution's 97.5 % point: two-sided 95 %


@dataclass(frozen=True, kw_only=True)
class Score:
    """What a recogniser reached on one set of samples; `ned` is 1 - mean normalised edit distance, 0..1."""

    total: int
    correct: int
    ned: float

    @property
    def accuracy(self) -> float:
        """Share of the samples read without a mistake, 0..1."""
        return self.correct / self.total


def comparable(prediction: str, label: str, charset: Charset) -> tuple[str, str]:
    """Return prediction and label in the form in which they are compared (MindOCR's RecMetric).

    Both lose their spaces and, where the charset folds it, their case. Characters outside the charset are
    deleted from the label only: a recogniser cannot write them.
    """
    return charset.fold(prediction.replace(" ", "")), charset.clean(label.replace(" ", ""))


def is_correct(prediction: str, label: str, charset: Charset) -> bool:
    """Tell whether a word is read without a mistake."""
    left, right = comparable(prediction, label, charset)
    return left == right


def score(predictions: list[str], labels: list[str], charset: Charset) -> Score:
    """Score predictions against labels; 1-NED divides each Levenshtein distance by the longer text's length."""
    if not labels:
        raise ValueError("nothing to score: the set has no sample")
    pairs = [comparable(p, label, charset) for p, label in zip(predictions, labels, strict=True)]
    distance = math.fsum(Levenshtein.normalized_distance(p, label) for p, label in pairs)
    return Score(total=len(pairs), correct=sum(p == label for p, label in pairs), ned=1.0 - distance / len(pairs))


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
