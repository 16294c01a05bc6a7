"""The decision: what a candidate must reach to be promoted, and in words why it does or does not."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from components.gate.compare import ROUNDING, PairedComparison, reasons_of
from wordmill.recipe.sections import Gate
from wordmill.store.artifacts import Manifest
from wordmill.text.metrics import plain_mean


@dataclasses.dataclass(frozen=True, kw_only=True)
class Decision:
    """Whether the candidate is good enough, why, and the numbers behind it.

    `unmeasured` are benchmarks of the recipe that the run has left out: what is good is then only told.
    """

    good: bool
    reasons: list[str]
    unmeasured: list[str]
    rivals: Mapping[str, PairedComparison]
    benchmarks: list[dict[str, Any]]

    @property
    def promoted(self) -> bool:
        """Tell whether the candidate is to be champion."""
        return self.good and not self.unmeasured

    @property
    def outcome(self) -> str:
        """The decision in a word or three."""
        word = "promoted" if self.good else "refused"
        return f"would be {word}" if self.unmeasured else word

    def facts(self) -> dict[str, Any]:
        """Return what the gate's manifest says of it."""
        keys = ("mean", "difference", "interval", "bound", "margin")
        rivals = {name: {key: getattr(one, key) for key in keys} for name, one in self.rivals.items()}
        return {"promoted": self.promoted, "reasons": self.reasons, "unmeasured": self.unmeasured, "rivals": rivals,
                "benchmarks": self.benchmarks}  # fmt: skip


def judge_candidate(
    gate: Gate, accuracies: Mapping[str, float], rivals: Mapping[str, PairedComparison], refusals: list[str]
) -> Decision:
    """Judge a candidate by floors and comparisons.

    accuracies: 0..1, by benchmark; rivals: by what they are called, the champion first, then the best so far where that
    is another; none for a first model. refusals: what else speaks against a promotion.
    """
    reasons = [reason for name, rival in rivals.items() for reason in reasons_of(rival, name)]
    missed = floors_missed(accuracies, gate)
    unmeasured = [name for name in gate.benchmarks if name not in accuracies]
    if unmeasured:
        told = f"{len(gate.benchmarks) - len(unmeasured)} of the recipe's {len(gate.benchmarks)} benchmarks"
        reasons.append(f"a run of {told} promotes nobody: not measured were {', '.join(unmeasured)}")
    elif not rivals and not refusals and not missed:
        mean = mean_of(accuracies, gate)
        reasons.append(f"no champion yet: mean accuracy {mean:.4f} reaches the floor {gate.floor:.4f}, and each "
                       "benchmark its own")  # fmt: skip
    first = next(iter(rivals.values()), None)
    return Decision(
        good=not missed and not refusals and all(rival.holds for rival in rivals.values()),
        reasons=[*reasons, *missed, *refusals], unmeasured=unmeasured, rivals=rivals,
        benchmarks=first.rows if first else _rows(accuracies, gate),
    )  # fmt: skip


def refuse_unjudged(gate: Gate, accuracies: Mapping[str, float], reason: str) -> Decision:
    """Refuse a candidate that nobody is to judge."""
    return Decision(good=False, reasons=[reason], unmeasured=[], rivals={}, benchmarks=_rows(accuracies, gate))


def _rows(accuracies: Mapping[str, float], gate: Gate) -> list[dict[str, Any]]:
    return [{"name": name, "accuracy": share, "floor": gate.floors.get(name)} for name, share in accuracies.items()]


def mean_of(accuracies: Mapping[str, float], gate: Gate) -> float:
    """Return the plain mean over the recipe's own benchmarks, as far as they were measured; over all if none was."""
    own = [accuracies[name] for name in gate.benchmarks if name in accuracies]
    return plain_mean(own or list(accuracies.values()))


def floors_missed(accuracies: Mapping[str, float], gate: Gate) -> list[str]:
    """Return in words which floors are not reached; the mean's is that of all benchmarks of the recipe."""
    reasons = []
    if all(name in accuracies for name in gate.benchmarks):
        mean = mean_of(accuracies, gate)
        if mean < gate.floor - ROUNDING:
            reasons.append(f"mean accuracy {mean:.4f} is below the floor {gate.floor:.4f}")
    for name, accuracy in accuracies.items():
        floor = gate.floors.get(name)
        if floor is None:
            reasons.append(f"{name}: no floor says what it is to reach: set gate.floors.{name}")
        elif accuracy < floor - ROUNDING:
            reasons.append(f"{name}: accuracy {accuracy:.4f} is below its floor {floor:.4f}")
    return reasons


def disagreeing(proven: list[Manifest]) -> list[str]:
    """Return in words which exported files do not read as the trained model does, by what their test measured."""
    facts = [manifest.facts for manifest in proven if manifest.facts["made"]]
    unlike = [one["format"] for one in facts if one["texts_equal"] < one["texts_needed"]
              or one["max_logit_difference"] > one["tolerance"]]  # fmt: skip
    return [f"exported files that do not behave like the trained model: {', '.join(unlike)}"] if unlike else []
