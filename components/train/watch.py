"""What people and MLflow see of training: a line of progress, points of curves, the profiler's trace."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wordmill.store.progress import Progress, duration
from wordmill.store.storage import Store
from wordmill.training.job import Job
from wordmill.training.records import METRICS, UNFIT, read_notice

if TYPE_CHECKING:  # MLflow takes seconds to import, which a finished training need not
    from wordmill.store import tracking

USAGE_EVERY_S, USAGE_FIRST_S = 10.0, 2.0
SYSTEM = "system/"  # how MLflow's page knows such metrics
FORECAST_S = 10.0  # seconds of steps by which training's end is foretold; the first ones are slower
NOTES = {  # what the line of progress says of the latest metrics: name, form and factor
    "train/loss": ("loss {:.3f}", 1),
    "train/data_wait": ("waiting for data {:.1f} %", 100),
    "train/memory_gib": ("memory {:.1f} GiB", 1),
    "val/accuracy": ("validation accuracy {:.1f} %", 100),
}


class Usage:
    """Measures the machine by MLflow's own monitors, in a pod its whole node; `step` counts the measurements.

    The first one comes soon: a training of some seconds has one too.
    """

    def __init__(self, run: "tracking.Run", step: int) -> None:
        from wordmill.store.experiments import system_monitor

        self.monitor, self.step = system_monitor(run), step
        self.measured = time.monotonic() + USAGE_FIRST_S - USAGE_EVERY_S

    def points(self) -> list["tracking.Point"]:
        """Return what the machine does now, every USAGE_EVERY_S seconds; else nothing."""
        if time.monotonic() - self.measured < USAGE_EVERY_S:
            return []
        self.measured = time.monotonic()
        self.monitor.collect_metrics()
        found = self.monitor.aggregate_metrics()
        for part in self.monitor.monitors:
            part.clear_metrics()
        self.step += 1
        return [(f"{SYSTEM}{name}", float(value), self.step, time.time()) for name, value in found.items()]


class Sender:
    """Sends points to MLflow while it answers; training goes on without it. Of no recipe's training it sends none.

    What an attempt that was lost has sent stays: of each metric only steps after its last one are sent.
    """

    def __init__(self, store: Store, run_tag: str, recipe: str) -> None:
        self.store, self.run_tag, self.recipe = store, run_tag, recipe
        self.run: tracking.Run | None = None
        self.usage: Usage | None = None
        self.sent: dict[str, int] = {}  # the last step of each metric
        self.answers = bool(recipe)

    def send(self, points: list["tracking.Point"]) -> None:
        """Send (name, value, step, unix time in s) points; the first failure is told, and no other is sought."""
        if points:
            self._try(lambda run: self._send(run, points))

    def send_usage(self) -> None:
        """Send what the machine's parts do, if it is time for that."""
        self._try(self._send_usage)

    def send_folder(self, folder: Path) -> None:
        """Send the files of a folder, if it has any, as artifacts below its name."""
        if folder.is_dir():
            self._try(lambda run: run.log_artifact(folder, folder.name))

    def _send(self, run: "tracking.Run", points: list["tracking.Point"]) -> None:
        new = [point for point in points if point[2] > self.sent.get(point[0], -1)]
        if new:
            run.log_metrics(new)
            self.sent |= {name: step for name, _, step, _ in new}

    def _send_usage(self, run: "tracking.Run") -> None:
        if self.usage is None:
            before = [step for name, step in self.sent.items() if name.startswith(SYSTEM)]
            self.usage = Usage(run, max(before, default=0))
        self._send(run, self.usage.points())

    def _try(self, work: Callable[["tracking.Run"], None]) -> None:
        if not self.answers:
            return
        from wordmill.store import experiments, tracking

        try:
            if self.run is None:
                self.run = tracking.open_run(self.store, self.run_tag, self.recipe)
                self.sent = experiments.latest_steps(self.run)
            work(self.run)
        except RuntimeError as error:
            self.answers = False
            print(f"warning: training goes on without live metrics: {error}", flush=True)


class Watch:
    """Follows the lines that an attempt adds to metrics.jsonl: progress for people, points for MLflow."""

    def __init__(self, job: Job, sender: Sender) -> None:
        self.job, self.sender = job, sender
        self.path = job.folder / METRICS
        self.offset = self.path.stat().st_size if self.path.exists() else 0
        self.progress: Progress | None = None
        self.latest: dict[str, float] = {}
        self.measured_from: dict[str, Any] | None = None  # the first line that tells a speed
        self.foretold, self.noticed = False, ""

    def look(self) -> None:
        """Take in the lines written since the last look, and show the trainer's last word."""
        if (notice := read_notice(self.job.folder)) and notice != self.noticed:
            self.noticed = notice
            print(f"warning: {notice}", flush=True)
        lines = self._new_lines()
        for line in lines:
            self.progress = self.progress or self._begin(line)
            self.latest |= line["metrics"]
            self._foretell(line)
            self.progress.update(line["images"], self.note())
        points = [
            (name, value, line["step"], line["time"]) for line in lines for name, value in line["metrics"].items()
        ]
        # MLflow's comparison begins with the metric that came first: that none is left out says nothing.
        self.sender.send([point for point in points if point[1] or point[0] != UNFIT])
        if self.progress:  # of several nodes the first one alone has lines, and tells of its machine
            self.sender.send_usage()

    def _begin(self, line: dict[str, Any]) -> Progress:
        """Begin to measure progress from an attempt's first line on, which says what is left out."""
        if unfit := line["metrics"].get(UNFIT):
            print(f"train: {unfit:,} samples are left out: their labels do not fit the recogniser", flush=True)
        total = line["steps"] * self.job.train.global_batch
        return Progress("train", total, "images", already=line["images"])

    def _foretell(self, line: dict[str, Any]) -> None:
        """Say once, as soon as this machine's speed is known, how long training will take."""
        if self.foretold or "train/images_per_s" not in line["metrics"]:
            return
        start = self.measured_from = self.measured_from or line
        if (seconds := line["time"] - start["time"]) >= FORECAST_S:
            self.foretold = True
            rate = (line["images"] - start["images"]) / seconds
            left = duration((line["steps"] * self.job.train.global_batch - line["images"]) / rate)
            print(f"train: about {left} from here on this machine, at {rate:,.0f} images/s, and validation", flush=True)

    def note(self) -> str:
        """Return the latest loss, waiting, memory and validation accuracy, as far as they are known."""
        known = [(self.latest[name], *NOTES[name]) for name in NOTES if name in self.latest]
        return "  ".join(form.format(factor * value) for value, form, factor in known)

    def _new_lines(self) -> list[dict[str, Any]]:
        if not self.path.exists():
            return []
        with self.path.open("rb") as file:
            file.seek(self.offset)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]  # the worker may be in the middle of a line
        self.offset += len(whole)
        return [json.loads(line) for line in whole.splitlines()]


def curves(folder: Path) -> dict[str, list[tuple[int, float, float]]]:
    """Return a whole run's (step, value, unix time in s) by name, of all attempts, without steps that were undone."""
    found: dict[str, list[tuple[int, float, float]]] = {}
    for text in (folder / METRICS).open(encoding="utf-8", newline="\n"):
        line = json.loads(text)
        for name, value in line["metrics"].items():
            found.setdefault(name, []).append((line["step"], value, line["time"]))
    return found
