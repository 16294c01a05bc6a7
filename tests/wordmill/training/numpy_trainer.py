"""A trainer of NumPy alone, whose processes are threads: a linear reader, momentum, statistics of each process."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.waiting import LIMIT_S
from wordmill.models.checkpoint import Checkpoint, Tensors
from wordmill.pictures.image import Picture
from wordmill.text.decoding import codec_of
from wordmill.training.context import make_context
from wordmill.training.job import Job, write_job
from wordmill.training.loop import Loop
from wordmill.training.stream import MicroBatch
from wordmill.training.trainer import StepResult

STEPS, CLASSES, FEATURES = 8, 37, 41

Array = npt.NDArray[np.float32]
Event = tuple[str, int]


class Group:
    """Threads that exchange values as processes do."""

    def __init__(self, ranks: int) -> None:
        self.barrier, self.values = threading.Barrier(ranks), [None] * ranks

    def gather(self, rank: int, value: Any) -> list[Any]:
        """Return every thread's value, in the order of their ranks."""
        self.values[rank] = value
        self.barrier.wait(LIMIT_S)
        values = list(self.values)
        self.barrier.wait(LIMIT_S)
        return values


def features(images: Picture) -> Array:
    """Return the mean level of each square of 8 x 10, and a one: (N, FEATURES)."""
    squares = images.reshape(len(images), 4, 8, 10, 10).mean((2, 4), dtype=np.float64).reshape(len(images), -1) / 255
    return np.column_stack([squares, np.ones(len(images))]).astype(np.float32)


def probabilities(logits: Array) -> Array:
    """Return the softmax of (N, T, C) over the classes."""
    raised = np.exp(logits - logits.max(2, keepdims=True))
    return np.asarray(raised / raised.sum(2, keepdims=True))


class NumpyTrainer:
    """Fulfils trainer.Trainer. `bad` steps have no finite gradient; `events` tells what was called, in order."""

    def __init__(self, job: Job, rank: int, group: Group, bad: frozenset[int], begin: Callable[[int], None]) -> None:
        self.job, self.rank, self.group, self.bad, self.begin = job, rank, group, bad, begin
        self.context = make_context(job, rank, codec_of(job.model, job.data), STEPS)
        rng = np.random.default_rng((job.train.seed, rank))  # processes must be made equal by `share`
        self.weight = rng.normal(0, 0.1, (FEATURES, STEPS * CLASSES)).astype(np.float32)
        self.velocity, self.mean = np.zeros_like(self.weight), np.zeros(FEATURES, np.float32)
        self.events: list[Event] = []
        self.losses: dict[int, float] = {}
        self.rates: dict[int, float] = {}
        self.seeds: dict[int, list[int]] = {}

    def gradient(self, part: MicroBatch) -> tuple[float, Array]:
        """Return a part's loss, the weighted cross entropies of all steps, and its gradient."""
        batch, targets = part
        x = features(batch.images)
        right = probabilities((x @ self.weight).reshape(-1, STEPS, CLASSES))
        picked = np.take_along_axis(right, targets.classes[:, :, None], 2)[:, :, 0]
        wrong = right.copy()
        np.put_along_axis(wrong, targets.classes[:, :, None], picked[:, :, None] - 1, 2)
        loss = float((targets.weights * -np.log(picked).mean(1)).sum())
        weighted = (wrong * targets.weights[:, None, None] / STEPS).reshape(len(x), -1)
        self.mean = np.float32(0.9) * self.mean + np.float32(0.1) * x.mean(0, dtype=np.float32)
        return loss, np.asarray(x.T @ weighted, dtype=np.float32)

    def step(self, number: int, parts: list[MicroBatch], rate: float, asked: tuple[bool, bool]) -> StepResult:
        self.events.append(("step", number))
        self.rates[number] = rate
        self.seeds[number] = [seed for _, targets in parts for seed in targets.seeds.tolist()]
        if self.rank == self.job.processes - 1:
            self.begin(number)
        counted = [targets.counted for _, targets in parts]
        mine = [self.gradient(part) for part in parts]
        loss = sum(count * loss for count, (loss, _) in zip(counted, mine, strict=True))
        total = np.sum([count * gradient for count, (_, gradient) in zip(counted, mine, strict=True)], axis=0)
        everybodys = self.group.gather(self.rank, (loss, total, sum(counted), asked))
        among = sum(count for _, _, count, _ in everybodys)
        gradient = np.sum([total for _, total, _, _ in everybodys], axis=0) / np.float32(among)
        finite = number not in self.bad
        if finite:
            self.velocity = np.float32(0.9) * self.velocity + gradient
            self.weight = self.weight - np.float32(rate) * self.velocity
        norm = float(np.linalg.norm(gradient)) if finite else float("inf")
        self.losses[number] = sum(loss for loss, _, _, _ in everybodys) / among
        wishes = [asked for _, _, _, asked in everybodys]
        return StepResult(loss=self.losses[number], norm=norm, save=any(save for save, _ in wishes),
                    stop=any(stop for _, stop in wishes))  # fmt: skip

    def result(self, handle: StepResult) -> StepResult:
        self.events.append(("result", next(step for step, loss in self.losses.items() if loss == handle.loss)))
        return handle

    def weights(self) -> Tensors:
        means = self.group.gather(self.rank, self.mean)
        return {"weight": self.weight, "mean": np.mean(means, axis=0, dtype=np.float32)}

    def scorer(self, weights: Tensors) -> Callable[[MicroBatch], tuple[float, Array]]:
        self.events.append(("score", len(self.losses)))

        def read(part: MicroBatch) -> tuple[float, Array]:
            logits = (features(part[0].images) @ weights["weight"]).reshape(-1, STEPS, CLASSES)
            return float(-np.log(probabilities(logits)[:, :, 0]).mean()), logits

        return read

    def gather(self, vector: Array) -> Array:
        return np.stack(self.group.gather(self.rank, vector))

    def predictor(self, checkpoint: Checkpoint) -> Callable[[Picture], Array]:
        weight = checkpoint.tensors["weight"]
        return lambda images: (features(images) @ weight).reshape(-1, STEPS, CLASSES)

    def state(self) -> Tensors:
        means = self.group.gather(self.rank, self.mean)
        return {"model/weight": self.weight.copy(), "optimizer/velocity": self.velocity.copy(),
                "statistics/mean": np.stack(means)}  # fmt: skip

    def share(self, tensors: Tensors) -> Tensors:
        return dict(self.group.gather(self.rank, tensors)[0])

    def restore(self, tensors: Tensors) -> None:
        self.weight, self.velocity = tensors["model/weight"], tensors["optimizer/velocity"]
        self.mean = tensors["statistics/mean"][self.rank]

    def memory_bytes(self) -> int:
        return 2**30

    @contextmanager
    def trace(self, folder: Path) -> Iterator[None]:
        begun = len(self.losses)
        yield
        (folder / "steps").write_text(f"{begun + 1} to {len(self.losses)}")

    def facts(self) -> dict[str, Any]:
        return {"precision": "float32"}


class Run:
    """A run of some threads: what each one's trainer saw, and whether each reached the end; raises the first error.

    `begin` is called by the last one with the number of each step that it begins.
    """

    def __init__(
        self, jobs: list[Job], bad: frozenset[int] = frozenset(), begin: Callable[[int], None] = lambda step: None
    ) -> None:
        self.jobs, self.group = jobs, Group(len(jobs))
        # Not in the threads: Python 3.11, and so NumPy's files, parse in one thread at a time (python/cpython#106905).
        self.trainers = {rank: NumpyTrainer(job, rank, self.group, bad, begin) for rank, job in enumerate(jobs)}
        self.ended: dict[int, bool] = {}
        self.errors: list[Exception] = []
        for job in jobs:
            write_job(job.folder / "job.json", job)
        threads = [threading.Thread(target=self.work, args=(rank,)) for rank in range(len(jobs))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for error in self.errors:
            raise error

    def work(self, rank: int) -> None:
        """Be one process."""
        try:
            self.ended[rank] = Loop(self.trainers[rank]).run()
        except Exception as error:
            self.errors.append(error)
            self.group.barrier.abort()


def on(job: Job, folder: Path, processes: int = 1, resume: Path | None = None) -> list[Job]:
    """Return a job for each of some processes that share a folder; what a checkpoint says of metrics is put back."""
    folder.mkdir(parents=True, exist_ok=True)
    if resume:
        metrics = resume.with_name(resume.name.replace("step-", "metrics-")).with_suffix(".jsonl")
        (folder / "metrics.jsonl").write_bytes(metrics.read_bytes())
    return [replace(job, folder=folder, processes=processes, resume=resume)] * processes
