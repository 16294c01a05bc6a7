"""What a training run leaves in its folder while it runs: metrics, signs of life, steps that were not finite."""

import json
import math
import os
import time
from contextlib import suppress
from pathlib import Path

import numpy as np

from wordmill.recipe.schedule import Plan
from wordmill.store.files import atomic_file, is_full
from wordmill.training.job import Job
from wordmill.training.stream import MicroBatch

NONFINITE_LIMIT = 20  # so many skipped steps in a row end training
NONFINITE_KEPT = 20  # so many skipped batches are kept per process
RECORD_EVERY_S = 2.0
RECORD_SHARE = 1e-4  # of the time since the start, if more: a week's curve has 44,000 points, not 300,000
METRICS = "metrics.jsonl"
UNFIT = "train/unfit_labels"  # the metric of the samples whose labels do not fit, told once by each attempt
NOTICE, NOTICE_BYTES = "notice", 1024


class Metrics:
    """Lines of metrics.jsonl, written by rank 0 alone: step, steps, images, time, metrics."""

    def __init__(self, job: Job, plan: Plan, step: int) -> None:
        self.path, self.plan, self.batch = job.folder / METRICS, plan, job.train.global_batch
        self.losses: list[float] = []
        self.started = time.monotonic()
        self.begin(step)

    def begin(self, step: int) -> None:
        """Begin to measure after this step, leaving out what was done before, such as a validation."""
        self.since, self.since_step, self.waited_s = time.monotonic(), step, 0.0

    def due(self) -> bool:
        """Tell whether it is time for another line of training metrics."""
        now = time.monotonic()
        return bool(self.losses) and now - self.since >= max(RECORD_EVERY_S, RECORD_SHARE * (now - self.started))

    def training(self, step: int, memory_bytes: int) -> None:
        """Record the mean loss and the speed of the steps since the last line, up to this one."""
        elapsed_s = max(time.monotonic() - self.since, 1e-9)
        steps = step - self.since_step
        self.write(step, {
            "train/loss": float(np.mean(self.losses)), "train/lr": float(self.plan.rates[step - 1]),
            "train/images_per_s": steps * self.batch / elapsed_s, "train/step_ms": 1e3 * elapsed_s / steps,
            "train/data_wait": self.waited_s / elapsed_s, "train/memory_gib": memory_bytes / 2**30,
        })  # fmt: skip
        self.losses.clear()
        self.begin(step)

    def write(self, step: int, metrics: dict[str, float]) -> None:
        """Add a line, where there is room; a value that is not finite is no JSON, and the curve leaves it out."""
        finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
        line = {"step": step, "steps": self.plan.steps, "images": step * self.batch, "time": time.time(),
                "metrics": finite}  # fmt: skip
        text, written = f"{json.dumps(line)}\n".encode(), 0
        with self.path.open("ab", buffering=0) as file:
            size = file.tell()
            try:
                written = file.write(text)
            except OSError as error:
                if not is_full(error):
                    raise
            if written < len(text):
                file.truncate(size)


class Pulse:
    """A process's sign of life, the file pulse.<rank>: the steps that it has done, written after each.

    Its time of change tells for how long the process has been at the next one.
    """

    def __init__(self, folder: Path, rank: int) -> None:
        self.descriptor = os.open(folder / f"pulse.{rank}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)

    def beat(self, step: int) -> None:
        """Note that so many steps are done, or that something else went on after them."""
        os.pwrite(self.descriptor, f"{step:>12}\n".encode(), 0)


class Notice:
    """The last word of process 0 for people, the file `notice`: its bytes are there from the start, a disk may fill."""

    def __init__(self, folder: Path) -> None:
        self.descriptor = os.open(folder / NOTICE, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        self._write("")

    def tell(self, text: str) -> None:
        """Leave a warning for the stage, and print it for the log, which may have no room either."""
        self._write(text)
        with suppress(OSError):
            print(f"warning: {text}", flush=True)

    def _write(self, text: str) -> None:
        os.pwrite(self.descriptor, text.encode()[:NOTICE_BYTES].ljust(NOTICE_BYTES), 0)


def read_notice(folder: Path) -> str:
    """Return the last word of process 0, "" where it has none."""
    path = folder / NOTICE
    return path.read_bytes().decode(errors="ignore").strip() if path.exists() else ""


def read_pulse(folder: Path, rank: int) -> tuple[int, float] | None:
    """Return how many steps a process has done and for how many seconds it has given no sign; None before the first."""
    path = folder / f"pulse.{rank}"
    try:
        text, changed = path.read_text(encoding="ascii"), path.stat().st_mtime
    except FileNotFoundError:
        return None
    return (int(text), time.time() - changed) if text else None


def keep_nonfinite(folder: Path, step: int, rank: int, parts: list[MicroBatch]) -> None:
    """Keep what a process was given in a step that was left out: nonfinite/step-<step>.rank-<rank>.npz.

    images uint8 (N, H, W, C) and labels (N,); the first NONFINITE_KEPT steps of a run are kept, on a full disk fewer.
    """
    kept = folder / "nonfinite"
    kept.mkdir(exist_ok=True)
    if len(list(kept.glob(f"*.rank-{rank}.npz"))) >= NONFINITE_KEPT:
        return
    images = np.concatenate([batch.images for batch, _ in parts])
    labels = np.array([label for batch, _ in parts for label in batch.labels])
    path = kept / f"step-{step:08}.rank-{rank}.npz"
    try:
        with atomic_file(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, images=images, labels=labels)
    except OSError as error:
        if not is_full(error):
            raise
