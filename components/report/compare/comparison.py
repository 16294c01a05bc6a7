"""Runs side by side: benchmarks, cost, and what differs in recipe, data, code and environment."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, get_args

from components.report.compare.runs import Logged
from components.report.logged.entries import OFF, PLACES
from components.report.page import count, percent, seconds_text
from wordmill.recipe.sections import Format
from wordmill.store.experiments import VERSIONS
from wordmill.store.tracking import COMMIT
from wordmill.text.metrics import plain_mean, wilson_interval

# How a value is shown, by its unit; a share is 0..1.
TEXTS: dict[str, Callable[[Any], str]] = {
    "share": percent, "1-NED": "{:.4f}".format, "devices": str, "h": "{:.3g}".format, "s": seconds_text,
    "ms": "{:.2f}".format, "images/s": lambda number: count(round(number)),
}  # fmt: skip
LETTERS = "ABCDEFGH"  # what tables and charts call the runs
ABSENT = "-"
MISSING = "absent"
UNUSED = {MISSING, *OFF}  # older runs have logged what they did not use
SECTIONS = ("data.", "model.", "train.", "gate.")
RECIPE = {"wordmill.recipe": "recipe", "wordmill.protocol": "protocol"}  # tag -> what it is called here
FORMATS = get_args(Format)
OF_SET, OF_FILE = PLACES["evaluate"], PLACES["smoke"]  # where the metrics of a benchmark and of an exported file stand


@dataclass(frozen=True, kw_only=True)
class Row:
    """A number of every run, in the runs' order, None where one has none; with 95 % intervals where it has such.

    Of training devices it is text, how many and which.
    """

    name: str
    unit: str  # one of TEXTS
    values: tuple[float | str | None, ...]
    intervals: tuple[tuple[float, float] | None, ...] = ()

    @property
    def cells(self) -> tuple[str, ...]:
        """Return the values as people read them."""
        return tuple(ABSENT if value is None else TEXTS[self.unit](value) for value in self.values)

    @property
    def ranges(self) -> tuple[str, ...]:
        """Return the intervals as people read them, in per cent."""
        return tuple(f"{100 * found[0]:.2f} to {100 * found[1]:.2f}" if found else "" for found in self.intervals)


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Something in which the runs are not alike: each value with the letters of the runs that have it."""

    name: str
    values: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two to eight runs side by side."""

    runs: dict[str, Logged]  # by letter
    notes: list[str]  # what a reader must know before believing a difference
    differences: dict[str, list[Difference]]  # recipe, data, code and environment, those with any first
    benchmarks: list[Row]
    cost: list[Row]


def compare(runs: list[Logged]) -> Comparison:
    """Put runs side by side in their order; ValueError unless they are two to eight different ones."""
    if not 2 <= len(runs) <= len(LETTERS):
        raise ValueError(f"a comparison takes 2 to {len(LETTERS)} runs, found {len(runs)}")
    names = [run.name for run in runs]
    if len({run.run_id for run in runs}) < len(runs):
        raise ValueError(f"run '{max(names, key=names.count)}' is named twice")
    lettered = dict(zip(LETTERS, runs, strict=False))
    groups = {group: {letter: read(run) for letter, run in lettered.items()} for group, read in GROUPS.items()}
    differing = {group: differences(facts) for group, facts in groups.items()}
    return Comparison(
        runs=lettered,
        notes=[*_notes(lettered), *_unrecorded(groups), *_other_samples(runs)],
        differences=dict(sorted(differing.items(), key=lambda entry: not entry[1])),
        benchmarks=_benchmarks(runs),
        cost=_cost(runs),
    )


def differences(facts: dict[str, dict[str, str]]) -> list[Difference]:
    """Return where facts by letter and name are not alike; a run of which nothing was recorded is left out."""
    recorded = {letter: known for letter, known in facts.items() if known}
    found = []
    for name in sorted({name for known in recorded.values() for name in known}):
        values: dict[str, str] = {}
        for letter, known in recorded.items():
            value = known.get(name, MISSING)
            values[value] = f"{values.get(value, '')} {letter}".strip()
        if len(values) > 1 and not set(values) <= UNUSED:
            found.append(Difference(name=name, values=values))
    return found


def _recipe(run: Logged) -> dict[str, str]:
    facts = {label: run.tags[tag] for tag, label in RECIPE.items() if tag in run.tags}
    return facts | {name: value for name, value in run.params.items() if name.startswith(SECTIONS)}


def _environment(run: Logged) -> dict[str, str]:
    facts = {"host": run.tags["wordmill.host"]} if "wordmill.host" in run.tags else {}
    facts |= {name: run.params[name] for name in ("device", "processes", "precision") if name in run.params}
    return facts | {name.removeprefix(VERSIONS): value for name, value in run.params.items()
                    if name.startswith(VERSIONS)}  # fmt: skip


GROUPS: dict[str, Callable[[Logged], dict[str, str]]] = {
    "recipe": _recipe,
    "data": lambda run: run.datasets | run.contents,
    "code": lambda run: {"commit": run.tags[COMMIT]} if COMMIT in run.tags else {},
    "environment": _environment,
}


def _notes(runs: dict[str, Logged]) -> list[str]:
    notes = [f"{letter} is {run.status}: its numbers are not those of a finished run"
             for letter, run in runs.items() if run.status != "FINISHED"]  # fmt: skip
    for tag, what in (("recipe", "the runs are of different recipes"), ("protocol", "texts are scored by protocols")):
        found = {run.tags.get(f"wordmill.{tag}", "not recorded") for run in runs.values()}
        if len(found) > 1:
            notes.append(f"{what}: {', '.join(sorted(found))}")
    dirty = [letter for letter, run in runs.items() if run.tags.get(COMMIT, "").endswith("-dirty")]
    if dirty:
        notes.append(f"uncommitted changes in the code of {' '.join(dirty)}: it may differ where the commit does not")
    return notes


def _unrecorded(groups: dict[str, dict[str, dict[str, str]]]) -> list[str]:
    """Say of which runs nothing was recorded, so that their silence does not pass for likeness."""
    return [f"{group}: nothing is recorded of {' '.join(lacking)}" for group, facts in groups.items()
            if (lacking := [letter for letter, known in facts.items() if not known])]  # fmt: skip


def _other_samples(runs: list[Logged]) -> list[str]:
    return [f"{name}: not measured on the same samples, its accuracies do not compare"
            for name in _sets(runs) if not _same_samples(name, runs)]  # fmt: skip


def _same_samples(name: str, runs: list[Logged]) -> bool:
    """Tell whether the runs that were measured on a benchmark were so on as many samples, and on the same ones."""
    measured = [run for run in runs if f"{OF_SET}{name}/samples" in run.metrics]
    counts = {run.metrics[f"{OF_SET}{name}/samples"] for run in measured}
    return len(counts) <= 1 and len({run.contents[name] for run in measured if name in run.contents}) <= 1


def _sets(runs: list[Logged]) -> list[str]:
    """Return the benchmarks that any of the runs was measured on."""
    found = {name for run in runs for name in run.metrics if name.startswith(OF_SET) and name.endswith("/samples")}
    return sorted(name.removeprefix(OF_SET).removesuffix("/samples") for name in found)


def _benchmarks(runs: list[Logged]) -> list[Row]:
    names = _sets(runs)
    measured = [run for run in runs if any(f"{OF_SET}{name}/samples" in run.metrics for name in names)]
    by_all = [name for name in names if all(f"{OF_SET}{name}/samples" in run.metrics for run in measured)]
    shared = [name for name in by_all if _same_samples(name, measured)]
    rows = [_accuracy(name, runs) for name in names]
    if shared:
        label = "plain mean" if shared == names else f"plain mean of {len(shared)} shared"
        found = {run.run_id: [run.metrics[f"{OF_SET}{name}/accuracy"] for name in shared] for run in measured}
        means = {run_id: plain_mean(accuracies) for run_id, accuracies in found.items()}
        rows.append(Row(name=label, unit="share", values=tuple(means.get(run.run_id) for run in runs)))
    return rows + [_metric(f"{name} 1-NED", f"{OF_SET}{name}/1-NED", "1-NED", runs) for name in names]


def _accuracy(name: str, runs: list[Logged]) -> Row:
    intervals: list[tuple[float, float] | None] = []
    for run in runs:
        samples = round(run.metrics.get(f"{OF_SET}{name}/samples", 0))
        right = round(run.metrics[f"{OF_SET}{name}/accuracy"] * samples) if samples else 0
        intervals.append(wilson_interval(right, samples) if samples else None)
    row = _metric(name, f"{OF_SET}{name}/accuracy", "share", runs)
    return replace(row, intervals=tuple(intervals))


def _cost(runs: list[Logged]) -> list[Row]:
    devices = tuple(f"{run.params['processes']} {run.params['device']}" if "device" in run.params else None
                    for run in runs)  # fmt: skip
    durations = tuple(run.ended - run.started if run.ended else None for run in runs)
    rows = [
        Row(name="training devices", unit="devices", values=devices),
        _metric("training, device-hours", "device_hours", "h", runs),
        _metric("training, images/s", "mean_images_per_s", "images/s", runs),
        Row(name="pipeline run, time", unit="s", values=durations),
        *(_metric(f"{kind}, ms an image", f"{OF_FILE}{kind}/latency_ms_batch1", "ms", runs) for kind in FORMATS),
        *(_metric(f"{kind}, images/s", f"{OF_FILE}{kind}/images_per_s_batch64", "images/s", runs) for kind in FORMATS),
    ]
    return [row for row in rows if set(row.values) != {None}]


def _metric(label: str, name: str, unit: str, runs: list[Logged]) -> Row:
    return Row(name=label, unit=unit, values=tuple(run.metrics.get(name) for run in runs))


def date(at: float) -> str:
    """Return a unix time in s as people read it."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(at))
