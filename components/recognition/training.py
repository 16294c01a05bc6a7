"""What training is in every framework: the job, packed targets and their stream, scores, and the records of a run."""

import ctypes
import dataclasses
import json
import math
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from components.recognition.artifacts import write_atomically
from components.recognition.augment import augment_views
from components.recognition.checkpoint import Checkpoint, Tensors, save
from components.recognition.decoding import Codec
from components.recognition.loader import Batch, ordered_batches, training_batches
from components.recognition.protocols import is_correct
from components.recognition.recipe import Data, Model, Train, from_json, to_json
from components.recognition.rendered import Streamed, rendered_batches
from components.recognition.schedule import Plan
from components.recognition.shards import ShardSet, open_sets
from components.recognition.synth import SynthSpec
from components.recognition.targets import Targets, coins, fitting, pack

Item = TypeVar("Item")
Logits = npt.NDArray[np.float32]
Part = tuple[Batch, Targets]  # of a process's batch: what goes through the network at once

REFERENCE_IMAGES = 64  # how many validation pictures an exported file is compared on
EVALUATION_BATCH = 256
PREFETCHED_BATCHES = 4
NONFINITE_LIMIT = 20  # so many skipped steps in a row end training
RECORD_EVERY_S = 2.0
PR_SET_PDEATHSIG = 1  # from Linux's <sys/prctl.h>


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """What a training process is told: the recipe's sections, data sets, where to run and where to write."""

    data: Data
    model: Model
    train: Train
    train_sets: tuple[Path, ...]  # index files
    val_sets: tuple[Path, ...]
    start: Path | None  # the checkpoint whose weights training starts from; None: fresh ones
    device: str
    processes: int
    folder: Path
    rendered: str = ""  # the address of the training set where it is drawn while training


def write_job(path: Path, job: Job) -> None:
    """Write a job as JSON; its sections are JSON texts."""
    sections = {name: to_json(getattr(job, name)) for name in ("data", "model", "train")}
    sets = {name: [str(index) for index in getattr(job, name)] for name in ("train_sets", "val_sets")}
    start = job.start and str(job.start)
    rest = {
        "start": start,
        "rendered": job.rendered,
        "device": job.device,
        "processes": job.processes,
        "folder": str(job.folder),
    }
    write_atomically(path, json.dumps(sections | sets | rest, indent=1))


def read_job(path: Path) -> Job:
    """Read what `write_job` wrote."""
    document = json.loads(path.read_text(encoding="utf-8"))
    return Job(
        data=from_json(Data, document["data"]),
        model=from_json(Model, document["model"]),
        train=from_json(Train, document["train"]),
        train_sets=tuple(Path(index) for index in document["train_sets"]),
        rendered=document["rendered"],
        val_sets=tuple(Path(index) for index in document["val_sets"]),
        start=document["start"] and Path(document["start"]),
        device=document["device"],
        processes=document["processes"],
        folder=Path(document["folder"]),
    )


def die_with_parent() -> None:
    """Have the kernel kill this process when the one that started it ends, however it ends (Linux alone has this).

    Launchers start workers in sessions of their own, where a signal to the launcher's group does not reach them.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


@contextmanager
def failure_told(folder: Path, rank: int) -> Iterator[None]:
    """Leave a worker's exception in failure.<rank>.txt, where the stage finds it among all that launchers print."""
    try:
        yield
    except Exception as error:
        write_atomically(folder / f"failure.{rank}.txt", f"{type(error).__name__} in process {rank}: {error}")
        raise


def training_set(job: Job, codec: Codec, steps: int) -> tuple[ShardSet | Streamed, int]:
    """Return what is learnt from, and how many samples are left out of it because their label does not fit."""
    if job.rendered:
        return Streamed(spec=SynthSpec.parse(job.rendered), data=job.data), 0
    given = open_sets(job.train_sets)
    kept = fitting(given, codec, steps)
    return kept, given.samples - kept.samples


def training_stream(
    job: Job, plan: Plan, given: ShardSet | Streamed, codec: Codec, steps: int, rank: int
) -> Iterator[list[Part]]:
    """Give one process its batch of every step in turn, in parts, read and packed ahead in a thread of their own."""

    def batches() -> Iterator[Batch]:
        if isinstance(given, Streamed):
            yield from rendered_batches(
                given.spec, given.data, batch=plan.batch, rank=rank, ranks=job.processes, steps=plan.steps
            )
            return
        for epoch in range(plan.epochs):
            yield from training_batches(
                given, batch=plan.batch, rank=rank, ranks=job.processes, seed=job.train.seed, epoch=epoch
            )

    def source() -> Iterator[list[Part]]:
        for step, batch in enumerate(batches(), start=1):
            if job.train.augment == "views":
                rng = np.random.default_rng((job.train.seed, step, rank))
                batch = dataclasses.replace(batch, images=augment_views(batch.images, rng))
            yield parts_of(batch, job.train, codec, steps, coins(job.train, plan.batch, step, rank))

    return prefetched(source(), PREFETCHED_BATCHES)


def parts_of(batch: Batch, train: Train, codec: Codec, steps: int, forced: npt.NDArray[np.float32]) -> list[Part]:
    """Split a process's batch into train.accumulation equal parts, whose targets are packed each by themselves."""
    size = len(batch.labels) // train.accumulation
    parts = [slice(first, first + size) for first in range(0, len(batch.labels), size)]
    return [
        (
            Batch(images=batch.images[part], labels=batch.labels[part]),
            pack(batch.labels[part], codec, steps, train.loss, forced[part]),
        )
        for part in parts
    ]


def prefetched(source: Iterator[Item], depth: int) -> Iterator[Item]:
    """Give the items of `source`, taken from it in a thread up to `depth` items ahead; its errors arrive in turn."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        ahead = deque(pool.submit(next, source, None) for _ in range(depth))
        while (item := ahead.popleft().result()) is not None:
            ahead.append(pool.submit(next, source, None))
            yield item


def validation_batches(shards: ShardSet, rank: int, ranks: int) -> Iterator[Batch]:
    """Give one process its share of the validation set: every `ranks`-th batch, together each sample once."""
    return ordered_batches(shards, EVALUATION_BATCH, rank, ranks)


def count_correct(logits: Logits, labels: list[str], codec: Codec) -> int:
    """Count the samples of logits (N, T, C) that are read as their label by the word accuracy's rule."""
    texts, _ = codec.decode(logits)
    return sum(is_correct(text, label, codec.charset) for text, label in zip(texts, labels, strict=True))


class NonfiniteGuard:
    """Counts the steps that were skipped because a gradient was not finite; too many in a row end training."""

    def __init__(self) -> None:
        self.total = self.in_a_row = 0

    def add(self, step: int, finite: bool) -> None:
        """Note one step, 1..; RuntimeError at the limit."""
        self.total += not finite
        self.in_a_row = 0 if finite else self.in_a_row + 1
        if self.in_a_row >= NONFINITE_LIMIT:
            raise RuntimeError(
                f"training diverged: the gradients of {self.in_a_row} steps in a row up to step {step} were not "
                f"finite ({self.total} skipped in all): lower train.lr, set train.clip_norm or use train.amp O0"
            )


class Recorder:
    """The records of a run, written by rank 0 alone: metrics.jsonl, the best and the last weights, outcome.json."""

    def __init__(self, job: Job, plan: Plan) -> None:
        self.job, self.plan = job, plan
        self.started = self.recorded = time.monotonic()
        self.recorded_step = 0
        self.best: tuple[float, float] = (-math.inf, -math.inf)  # accuracy, and -loss among equals

    def due(self) -> bool:
        """Tell whether it is time for another line of training metrics."""
        return time.monotonic() - self.recorded >= RECORD_EVERY_S

    def training(self, step: int, loss: float) -> None:
        """Record the mean loss since the last line, after `step` steps."""
        elapsed_s = time.monotonic() - self.recorded
        images = (step - self.recorded_step) * self.job.train.global_batch
        metrics = {"train/loss": loss, "train/lr": float(self.plan.rates[step - 1])}
        self._write(step, metrics | {"train/images_per_s": images / max(elapsed_s, 1e-9)})

    def validation(self, step: int, correct: int, total: int, loss_sum: float, tensors: Tensors) -> None:
        """Record counts over the whole validation set (`loss_sum`: losses by label length) and keep the weights."""
        accuracy, loss = correct / max(total, 1), loss_sum / max(total, 1)
        self._write(step, {"val/accuracy": accuracy, "val/loss": loss})
        job = self.job
        state = Checkpoint(tensors=tensors, data=job.data, model=job.model, train=job.train, step=step)
        save(job.folder / "last.safetensors", state)
        if (accuracy, -loss) > self.best:
            self.best = (accuracy, -loss)
            save(job.folder / "best.safetensors", state)

    def finish(self, guard: NonfiniteGuard, unfit_labels: int, facts: dict[str, Any]) -> None:
        """Write outcome.json: the facts that every framework has, and the framework's own."""
        seconds = time.monotonic() - self.started
        images = self.plan.steps * self.job.train.global_batch
        common = {
            "framework": self.job.train.framework, "device": self.job.device, "processes": self.job.processes,
            "steps": self.plan.steps, "images": images, "images_per_s": images / seconds,
            "val_accuracy": self.best[0], "unfit_labels": unfit_labels, "nonfinite_steps": guard.total,
        }  # fmt: skip
        write_atomically(self.job.folder / "outcome.json", json.dumps(common | facts, indent=1))

    def _write(self, step: int, metrics: dict[str, float]) -> None:
        # A loss that is not finite is no JSON; the guard reports it, the curve leaves it out.
        finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
        images = step * self.job.train.global_batch
        line = {"step": step, "steps": self.plan.steps, "images": images, "time": time.time(), "metrics": finite}
        with (self.job.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self.recorded, self.recorded_step = time.monotonic(), step


def write_reference(job: Job, shards: ShardSet, predict: Callable[[npt.NDArray[np.uint8]], Logits]) -> None:
    """Write reference.npz: the first validation images (N, H, W, C) uint8 and the trained model's logits (N, T, C)."""
    images = next(ordered_batches(shards, REFERENCE_IMAGES)).images
    path = job.folder / "reference.npz"
    temporary = path.with_name(f"part.{os.getpid()}.npz")  # numpy appends .npz to any other name
    np.savez(temporary, images=images, logits=predict(images).astype(np.float32))
    temporary.replace(path)
