"""The decision: a candidate against a floor, or against the champion on the same samples."""

from dataclasses import dataclass
from typing import Any

from wordmill.recipe.sections import Gate
from wordmill.text.metrics import bootstrap_interval, mcnemar_exact, plain_mean

ROUNDING = 1e-9  # a mean that misses its bound by the rounding of floating-point sums alone has reached it
SIGNIFICANT = 0.01  # McNemar's p of a drop that is no accident: on one of ten benchmarks chance has it in 5 % of runs


@dataclass(frozen=True, kw_only=True)
class Paired:
    """Two recognisers on the same samples of one benchmark: which of them each sample is read by, and its picture."""

    name: str
    candidate: list[bool]
    champion: list[bool]
    pictures: list[str]  # digests: a picture that stands in two benchmarks has one


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Whether the candidate is good enough, why, and the numbers behind it."""

    promoted: bool
    reasons: list[str]
    champion_mean: float | None
    interval: list[float] | None  # 95 %, of the mean's difference to the champion: [low, high]
    benchmarks: list[dict[str, Any]]


def uncompared(promoted: bool, reasons: list[str], accuracies: dict[str, float], gate: Gate) -> Decision:
    """Return a decision that no champion was compared for."""
    rows = [{"name": name, "accuracy": share, "floor": gate.floors.get(name)} for name, share in accuracies.items()]
    return Decision(promoted=promoted, reasons=reasons, champion_mean=None, interval=None, benchmarks=rows)


def against_floor(accuracies: dict[str, float], gate: Gate) -> Decision:
    """Judge the first model of a recipe: its plain mean accuracy must reach the floor."""
    mean = plain_mean(list(accuracies.values()))
    reached = mean >= gate.floor - ROUNDING
    reason = f"mean accuracy {mean:.4f} {'reaches' if reached else 'is below'} the floor {gate.floor:.4f}"
    return uncompared(reached, [f"no champion yet: {reason}"], accuracies, gate)


def against_champion(pairs: list[Paired], gate: Gate) -> Decision:
    """Judge a candidate against the champion on at least one benchmark that both were measured on.

    Its mean may lie below the champion's by the tolerance. A single benchmark may fall by more, if that can be chance.
    """
    rows = [_row(pair, gate) for pair in pairs]
    difference = plain_mean([row["difference"] for row in rows])
    low, high = bootstrap_interval([(row["gained"], row["lost"], row["total"]) for row in rows])
    reached = difference >= -gate.tolerance - ROUNDING
    where = f"{len(rows)} benchmark{'' if len(rows) == 1 else 's'}"
    outcome = f"{'within' if reached else 'beyond'} the tolerance {gate.tolerance:.4f}"
    surely = ", and so is the whole interval" if high < -gate.tolerance - ROUNDING else ""
    interval = f"95 %: {low:+.4f} to {high:+.4f}"
    reason = f"mean difference to the champion {difference:+.4f} ({interval}) over {where} is {outcome}{surely}"
    drops = [_drop(row) for row in rows if row["p"] < SIGNIFICANT and row["difference"] < -gate.tolerance - ROUNDING]
    return Decision(
        promoted=reached and not drops,
        reasons=[reason, *drops],
        champion_mean=plain_mean([row["champion_accuracy"] for row in rows]),
        interval=[low, high],
        benchmarks=rows,
    )


def below_floors(accuracies: dict[str, float], gate: Gate) -> list[str]:
    """Return in words which benchmarks' floors are not reached, or cannot be seen to be."""
    reasons = [
        f"{name}: accuracy {accuracies[name]:.4f} is below its floor {floor:.4f}"
        for name, floor in gate.floors.items()
        if name in accuracies and accuracies[name] < floor - ROUNDING
    ]
    if unmeasured := [name for name in gate.floors if name not in accuracies]:
        reasons.append(f"not measured, though there is a floor to reach: {', '.join(unmeasured)}")
    return reasons


def _row(pair: Paired, gate: Gate) -> dict[str, Any]:
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
        "floor": gate.floors.get(pair.name),
    }


def _drop(row: dict[str, Any]) -> str:
    return (
        f"{row['name']}: difference {row['difference']:+.4f} is beyond the tolerance and no accident: "
        f"{row['gained']} words gained, {row['lost']} lost, McNemar p {row['p']:.2g}"
    )
