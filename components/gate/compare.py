"""A candidate beside another model on the same samples: how much better or worse, and whether that can be chance."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from components.gate.sampling import Paired, bootstrap_means, margin_of, mean_difference, strata_of
from wordmill.recipe.sections import Gate
from wordmill.text.metrics import mcnemar_exact, plain_mean

ROUNDING = 1e-9  # a mean that misses its bound by the rounding of floating-point sums alone has reached it
BOUND = 0.05  # the share of cases in which the lower bound lies above what is true
FAMILY = 0.05  # the share of cases in which a candidate that is nowhere worse has a benchmark that fell


@dataclass(frozen=True, kw_only=True)
class PairedComparison:
    """A candidate against another model; shares and differences of shares in -1..1.

    mean:       the other's plain mean over the benchmarks
    difference: the candidate's mean less that
    interval:   95 %, of the difference: [low, high]
    bound:      what the difference exceeds in 95 % of cases: the interval's one-sided kin
    margin:     how much worse the candidate may be
    rows:       one for each benchmark: name, counts, difference, McNemar's p, floor, and whether it has fallen
    """

    mean: float
    difference: float
    interval: list[float]
    bound: float
    margin: float
    rows: list[dict[str, Any]]

    @property
    def holds(self) -> bool:
        """Tell whether the candidate is shown not to be worse by the margin, and has fallen nowhere."""
        return self.bound > -self.margin and not self.fallen

    @property
    def fallen(self) -> list[dict[str, Any]]:
        """The benchmarks on which the candidate is worse, which is no accident."""
        return [row for row in self.rows if row["fallen"]]


def compare_pairs(pairs: Sequence[Paired], gate: Gate) -> PairedComparison:
    """Compare on at least one benchmark, each counting once in the mean.

    Benchmarks that the recipe does not name itself may fall, too, but have no part in the mean.
    """
    own = [pair for pair in pairs if pair.name in gate.benchmarks] or list(pairs)
    strata, rows = strata_of(own), [_row(pair, gate, len(pairs)) for pair in pairs]
    low, bound, high = np.quantile(bootstrap_means(strata), (0.025, BOUND, 0.975))
    return PairedComparison(
        mean=plain_mean([sum(pair.champion) / len(pair.champion) for pair in own]),
        difference=mean_difference(strata),
        interval=[float(low), float(high)],
        bound=float(bound),
        margin=margin_of(strata, gate),
        rows=rows,
    )


def has_fallen(gained: int, lost: int, benchmarks: int) -> bool:
    """Tell whether a candidate reads a benchmark worse, at 5 % for all benchmarks of a comparison together.

    The one-sided exact test of McNemar (1947) on the words that only one of both reads, at 5 % by the number of
    benchmarks (Bonferroni; Dunn 1961, JASA 56, 52-64), which holds for benchmarks that share pictures too.
    """
    return lost > gained and mcnemar_exact(gained, lost) / 2 < FAMILY / benchmarks


def reasons_of(comparison: PairedComparison, other: str) -> list[str]:
    """Say what a comparison with `other` came to."""
    low, high = (100 * value for value in comparison.interval)
    ruled = "is ruled out" if comparison.bound > -comparison.margin else "is not ruled out"
    count = len(comparison.rows)
    told = (
        f"against {other}: mean difference {100 * comparison.difference:+.2f} points (95 %: {low:+.2f} to {high:+.2f}) "
        f"over {count} benchmark{'' if count == 1 else 's'}, lower bound {100 * comparison.bound:+.2f}: worse by "
        f"{100 * comparison.margin:.2f} {ruled}"
    )
    return [told, *(_fall(row, other) for row in comparison.fallen)]


def _row(pair: Paired, gate: Gate, benchmarks: int) -> dict[str, Any]:
    """Return the paired numbers of one benchmark, with the exact McNemar test's two-sided p-value."""
    total = len(pair.candidate)
    both = list(zip(pair.candidate, pair.champion, strict=True))
    gained = sum(candidate and not champion for candidate, champion in both)
    lost = sum(champion and not candidate for candidate, champion in both)
    return {
        "name": pair.name,
        "total": total,
        "accuracy": sum(pair.candidate) / total,
        "champion_accuracy": sum(pair.champion) / total,
        "difference": (gained - lost) / total,
        "gained": gained,
        "lost": lost,
        "p": mcnemar_exact(gained, lost),
        "fallen": has_fallen(gained, lost, benchmarks),
        "floor": gate.floors.get(pair.name),
    }


def _fall(row: dict[str, Any], other: str) -> str:
    return (
        f"{row['name']}: {100 * row['difference']:+.2f} points against {other} are no accident: "
        f"{row['gained']} words gained, {row['lost']} lost, McNemar p {row['p']:.2g}"
    )
