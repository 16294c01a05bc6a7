"""What training is in every framework: the job, packed targets and their stream, and what is left at its end."""

import ctypes
import dataclasses
import json
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from wordmill.pictures.augmentation import augment_views
from wordmill.recipe.parsing import from_json, to_json
from wordmill.recipe.schedule import Plan, make_plan
from wordmill.recipe.sections import Data, Model, Train
from wordmill.shards.loader import Batch, ordered_batches, training_batches
from wordmill.shards.sets import ShardSet, open_sets
from wordmill.store.files import atomic_file, write_atomically
from wordmill.synth.renderer import SynthSpec
from wordmill.text.decoding import Codec
from wordmill.text.protocols import is_correct
from wordmill.training.rendered import Streamed, rendered_batches
from wordmill.training.targets import Draws, Targets, draw, fitting, pack

Item = TypeVar("Item")
Logits = npt.NDArray[np.float32]
Part = tuple[Batch, Targets]  # of a process's batch: what goes through the network at once

REFERENCE_IMAGES = 64  # how many validation pictures an exported file is compared on
EVALUATION_BATCH = 256
PREFETCHED_BATCHES = 4
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
    folder: Path  # its own: what another attempt at the same training left there is gone on with
    resume: Path | None = None  # the record of the checkpoint that training goes on from
    rendered: str = ""  # the address of the training set where it is drawn while training


def write_job(path: Path, job: Job) -> None:
    """Write a job as JSON; its sections are JSON texts."""
    sections = {name: to_json(getattr(job, name)) for name in ("data", "model", "train")}
    sets = {name: [str(index) for index in getattr(job, name)] for name in ("train_sets", "val_sets")}
    rest = {
        "start": job.start and str(job.start),
        "resume": job.resume and str(job.resume),
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
        resume=document["resume"] and Path(document["resume"]),
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
def at_work(folder: Path, rank: int) -> Iterator[None]:
    """Note a worker's process in worker.<rank> while it works, so that the stage sees when it is killed.

    Its exception is left in failure.<rank>.txt, where the stage finds it among all that launchers print.
    """
    note = folder / f"worker.{rank}"
    write_atomically(note, str(os.getpid()))
    try:
        yield
    except Exception as error:
        write_atomically(folder / f"failure.{rank}.txt", f"{type(error).__name__} in process {rank}: {error}")
        raise
    finally:
        note.unlink()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Course:
    """What one of a job's processes goes through: its place, the data, what targets are packed for, the steps."""

    job: Job
    rank: int
    codec: Codec
    reach: int  # T of the recogniser's logits (N, T, C)
    train_set: ShardSet | Streamed
    unfit: int  # samples that are left out of it
    val_set: ShardSet
    plan: Plan


def make_course(job: Job, rank: int, codec: Codec, reach: int) -> Course:
    """Return the course of one process, of a recogniser with this codec and as many time steps."""
    train_set, unfit = training_set(job, codec, reach)
    plan = make_plan(job.train, train_set.samples, job.processes)
    return Course(job=job, rank=rank, codec=codec, reach=reach, train_set=train_set, unfit=unfit,
                  val_set=open_sets(job.val_sets), plan=plan)  # fmt: skip


def training_set(job: Job, codec: Codec, steps: int) -> tuple[ShardSet | Streamed, int]:
    """Return what is learnt from, and how many samples are left out of it because their label does not fit."""
    if job.rendered:
        return Streamed(spec=SynthSpec.parse(job.rendered), data=job.data), 0
    given = open_sets(job.train_sets)
    kept = fitting(given, codec, steps)
    return kept, given.samples - kept.samples


def training_stream(course: Course, done: int = 0) -> Iterator[list[Part]]:
    """Give a process its batch of every step after `done` ones, in parts, read and packed ahead in a thread."""
    job, rank, plan, given = course.job, course.rank, course.plan, course.train_set

    def batches() -> Iterator[Batch]:
        if isinstance(given, Streamed):
            yield from rendered_batches(
                given.spec, given.data, batch=plan.batch, rank=rank, ranks=job.processes, steps=plan.steps,
                start_step=done,
            )  # fmt: skip
            return
        first, within = divmod(done, plan.steps_per_epoch)
        for epoch in range(first, plan.epochs):
            yield from training_batches(
                given, batch=plan.batch, rank=rank, ranks=job.processes, seed=job.train.seed, epoch=epoch,
                start_step=within if epoch == first else 0,
            )  # fmt: skip

    def source() -> Iterator[list[Part]]:
        rows = slice(rank * plan.batch, (rank + 1) * plan.batch)
        for step, batch in enumerate(batches(), start=done + 1):
            drawn = draw(job.train, step, rows)
            if job.train.augment == "views":
                batch = dataclasses.replace(batch, images=augment_views(batch.images, drawn.seeds))
            yield parts_of(batch, job.train, course.codec, course.reach, drawn)

    return prefetched(source(), PREFETCHED_BATCHES)


def parts_of(batch: Batch, train: Train, codec: Codec, steps: int, drawn: Draws) -> list[Part]:
    """Split a process's batch into train.accumulation equal parts, whose targets are packed each by themselves."""
    size = len(batch.labels) // train.accumulation
    parts = [slice(first, first + size) for first in range(0, len(batch.labels), size)]
    return [
        (
            Batch(images=batch.images[part], labels=batch.labels[part]),
            pack(batch.labels[part], codec, steps, train.loss, drawn[part]),
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


def write_reference(job: Job, predict: Callable[[npt.NDArray[np.uint8]], Logits]) -> None:
    """Write reference.npz: the first validation images (N, H, W, C) uint8 and the trained model's logits (N, T, C)."""
    images = next(ordered_batches(open_sets(job.val_sets), REFERENCE_IMAGES)).images
    with atomic_file(job.folder / "reference.npz") as temporary, temporary.open("wb") as file:
        np.savez(file, images=images, logits=predict(images).astype(np.float32))
