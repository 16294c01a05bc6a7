"""What chance does to a mean over benchmarks that share pictures.

A picture counts in every benchmark that it stands in, and is drawn once: IC03_867 holds all but seven of IC03_860's
words again. What is drawn independently is the picture, the cluster of a cluster bootstrap (Davison and Hinkley 1997,
Bootstrap Methods and their Application, 3.8), within strata of pictures that stand in the same benchmarks.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from wordmill.recipe.sections import Gate

Values = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

RESAMPLES = 10_000  # of the bootstrap
DISCORDANT = 0.08  # share of words that one of two recognisers reads and the other does not, as is usual
MARGIN, ERRORS = 0.005, 1.33  # half a point: so many standard errors on the ten benchmarks where 8 % are discordant


@dataclass(frozen=True, kw_only=True)
class Paired:
    """Two recognisers on the same samples of one benchmark: which of them each sample is read by, and what it is."""

    name: str
    candidate: list[bool]
    champion: list[bool]
    pictures: list[str]  # digests: a picture that stands in two benchmarks has one
    lengths: list[int] = field(default_factory=list)  # of the labels, in characters; none where nobody asks for them


@dataclass(frozen=True, kw_only=True)
class Stratum:
    """Pictures that stand in the same benchmarks.

    weight: what one of them adds to the mean over the benchmarks when all its samples are read
    values: (k,) what those of each kind add to the mean's difference, within -weight..weight
    counts: (k,) how many there are of each kind
    """

    weight: float
    values: Values
    counts: Counts

    @property
    def pictures(self) -> int:
        """How many there are."""
        return int(self.counts.sum())


def strata_of(pairs: Sequence[Paired]) -> list[Stratum]:
    """Return the pictures of benchmarks by where they stand; the mean counts each benchmark once whatever its size."""
    shares = [1 / (len(pairs) * len(pair.candidate)) for pair in pairs]
    standing = defaultdict[str, list[tuple[int, int]]](list)  # picture -> benchmark and difference of each sample
    for number, pair in enumerate(pairs):
        for picture, ours, theirs in zip(pair.pictures, pair.candidate, pair.champion, strict=True):
            standing[picture].append((number, ours - theirs))
    strata = defaultdict[tuple[int, ...], list[tuple[float, int]]](list)
    for rows, count in sorted(Counter(tuple(sorted(rows)) for rows in standing.values()).items()):
        value = math.fsum(shares[number] * difference for number, difference in rows)
        strata[tuple(number for number, _ in rows)].append((value, count))
    return [
        Stratum(
            weight=math.fsum(shares[number] for number in where),
            values=np.array([value for value, _ in kinds]),
            counts=np.array([count for _, count in kinds]),
        )
        for where, kinds in sorted(strata.items())
    ]


def mean_difference(strata: Sequence[Stratum]) -> float:
    """Return the candidate's plain mean of accuracies less the other's, -1..1."""
    return math.fsum(float(stratum.values @ stratum.counts) for stratum in strata)


def bootstrap_means(strata: Sequence[Stratum]) -> Values:
    """Return the mean's difference in pictures drawn anew within each stratum, (10000,), in rising order.

    Drawing pictures is drawing multinomial counts of their kinds. The seed is fixed: the same pictures give the same.
    """
    generator = np.random.Generator(np.random.Philox(0))
    means = np.zeros(RESAMPLES)
    for stratum in strata:
        drawn = generator.multinomial(stratum.pictures, stratum.counts / stratum.pictures, size=RESAMPLES)
        means += drawn @ stratum.values
    return np.sort(means)


def expected_error(strata: Sequence[Stratum]) -> float:
    """Return the standard error of the mean's difference, 0..1, that benchmarks of these sizes and overlaps have.

    Of two recognisers that are as good, a share of 8 % of the words is read by one alone: each adds its weight or takes
    it, and a sum of independent +w and -w with probabilities p / 2 has the variance p w^2 for each.
    """
    return math.sqrt(DISCORDANT * math.fsum(stratum.pictures * stratum.weight**2 for stratum in strata))


def margin_of(strata: Sequence[Stratum], gate: Gate) -> float:
    """Return how much worse a candidate may be, 0..1: as the recipe says, else half a point or, of few words, more."""
    return gate.margin or max(MARGIN, ERRORS * expected_error(strata))
