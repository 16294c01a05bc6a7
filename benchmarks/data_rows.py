"""Lines of the data plane's table, and how their figures are taken."""

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.models import Row

CPU = "us CPU/sample"


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much is measured: samples in the data set, rounds of which the median counts, and the least of a round."""

    folder: Path  # for everything that is written
    samples: int
    rounds: int
    round_s: float
    quick: bool  # everything runs once, on little; the figures mean nothing


def print_rows(rows: list[Row], as_json: bool) -> None:
    """Print figures that have no peer, each with its goal, or all as JSON for programs."""
    if as_json:
        print(json.dumps(rows))
        return
    for row in rows:
        goal = "" if row["goal"] is None else f"  goal {row['goal']} {'met' if row['met'] else 'missed'}"
        print(f"{row['name']:72} {row['value']:10.3f} {row['unit']}{goal}")


def alone(name: str, value: float, unit: str, goal: float = 0.0, *, least: bool = False) -> Row:
    """Make the line of a figure that has no peer; its goal is the most that it may be, or the least."""
    met = (value >= goal if least else value <= goal) if goal else None
    return {"name": name, "value": rounded(value), "unit": unit, "peer": None, "ratio": None,
            "goal": goal or None, "met": met}  # fmt: skip


def against(
    name: str, value: float, unit: str, peer: str, theirs: float, goal: float = 0.0, *, rate: bool = False
) -> Row:
    """Make the line of a cost, or a rate, beside a peer's; the goal is the least ratio, how much better ours is."""
    ratio = value / theirs if rate else theirs / value
    return {"name": name, "value": rounded(value), "unit": unit, "peer": peer, "ratio": rounded(ratio),
            "goal": goal or None, "met": ratio >= goal if goal else None}  # fmt: skip


def rounded(value: float) -> float:
    """Keep three digits of what is below 1000, and whole numbers above."""
    return float(f"{value:.3g}") if abs(value) < 1000 else round(value)


def per_sample_us(
    work: dict[str, Callable[[], int]], scale: Scale, clock: Callable[[], float] = time.process_time
) -> dict[str, float]:
    """Let all take turns, round after round; the median of microseconds per sample by name.

    Each does its work at least once in a round, and again until `scale.round_s` are over; it returns the number of
    samples that it worked on.
    """
    times: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(scale.rounds):
        for name, run in work.items():
            samples, start = 0, clock()
            while not samples or clock() - start < scale.round_s:
                samples += run()
            times[name].append(1e6 * (clock() - start) / samples)
    return {name: statistics.median(values) for name, values in times.items()}
