"""The decision: a candidate against a floor, or against the champion on the same samples."""

from dataclasses import dataclass
from typing import Any

from components.recognition.metrics import mcnemar_exact, plain_mean
from components.recognition.recipe import Gate

ROUNDING = 1e-9  # a mean that misses its bound by the rounding of floating-point sums alone has reached it


@dataclass(frozen=True, kw_only=True)
class Paired:
    """Two recognisers on the same samples of one benchmark: which of them each sample is read by."""

    name: str
    candidate: list[bool]
    champion: list[bool]


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Whether the candidate is good enough, why, and the numbers behind it."""

    promoted: bool
    reasons: list[str]
    champion_mean: float | None
    benchmarks: list[dict[str, Any]]


def against_floor(accuracies: dict[str, float], gate: Gate) -> Decision:
    """Judge the first model of a recipe: its plain mean accuracy must reach the floor."""
    mean = plain_mean(list(accuracies.values()))
    reached = mean >= gate.floor - ROUNDING
    reason = f"mean accuracy {mean:.4f} {'reaches' if reached else 'is below'} the floor {gate.floor:.4f}"
    rows = [{"name": name, "accuracy": accuracy} for name, accuracy in accuracies.items()]
    first = f"no champion yet: {reason}"
    return Decision(promoted=reached, reasons=[first], champion_mean=None, benchmarks=rows)


def against_champion(pairs: list[Paired], left_out: list[str], gate: Gate) -> Decision:
    """Judge a candidate against the champion on the samples of the benchmarks that both were measured on."""
    if not pairs:
        reason = "the champion cannot be compared: no benchmark was measured on the same samples for both"
        return Decision(promoted=False, reasons=[reason], champion_mean=None, benchmarks=[])
    rows = [_row(pair) for pair in pairs]
    difference = plain_mean([row["difference"] for row in rows])
    reached = difference >= -gate.tolerance - ROUNDING
    reasons = [
        f"mean difference to the champion {difference:+.4f} over {len(rows)} benchmarks "
        f"{'is within' if reached else 'is beyond'} the tolerance {-gate.tolerance:+.4f}"
    ]
    if left_out:
        reasons.append(f"not compared, the champion was measured on other samples: {', '.join(left_out)}")
    champion_mean = plain_mean([row["champion_accuracy"] for row in rows])
    return Decision(promoted=reached, reasons=reasons, champion_mean=champion_mean, benchmarks=rows)


def _row(pair: Paired) -> dict[str, Any]:
    """Return the paired numbers of one benchmark, with the exact McNemar test's p-value."""
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
    }
