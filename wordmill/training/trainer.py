"""What a framework gives the training loop, and how what it trains is scored."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from wordmill.models.checkpoint import Checkpoint, Tensors
from wordmill.pictures.image import Picture
from wordmill.training.course import Course, Logits, Part, count_correct, validation_batches
from wordmill.training.targets import pack

Handle = TypeVar("Handle")
Vector = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Look:
    """A step's result, the same in every process: loss, norm of the gradients, what any process has asked for."""

    loss: float
    norm: float
    save: bool
    stop: bool


@dataclass(frozen=True, kw_only=True)
class Score:
    """Counts over the whole validation set, and its loss: losses of batches times their samples."""

    correct: int
    total: int
    loss_sum: float


class Trainer(Protocol[Handle]):
    """One process's share of the work in a framework. All processes call all methods in the same order."""

    course: Course

    def step(self, number: int, parts: list[Part], rate: float, asked: tuple[bool, bool]) -> Handle:
        """Begin step `number`, 1.., of the optimiser, the moving average included, without waiting for its end.

        Gradient and loss are the mean over all that the parts of all processes count; a step whose gradients are not
        finite changes nothing but the loss scale. `asked` are this process's wishes, Look's save and stop.
        """

    def look(self, handle: Handle) -> Look:
        """Wait for a step's result."""

    def weights(self) -> Tensors:
        """Return what is scored and stored: weights or their moving average, statistics averaged over processes."""

    def scorer(self, weights: Tensors) -> Callable[[Part], tuple[float, Logits]]:
        """Return what tells the loss and the logits (N, T, C) that these weights have for a part."""

    def gather(self, vector: Vector) -> Vector:
        """Return every process's vector (n,) in every process: (processes, n)."""

    def predictor(self, checkpoint: Checkpoint) -> Callable[[Picture], Logits]:
        """Return what turns images (N, H, W, C) uint8 into logits (N, T, C), on process 0 alone."""

    def state(self) -> Tensors:
        """Return copies of all that training goes on from: float32 arrays by name.

        Running statistics are those of every process, `statistics/<name>` of shape (processes, C).
        """

    def share(self, tensors: Tensors) -> Tensors:
        """Return the tensors of process 0 in every process; names and shapes are the same in all."""

    def restore(self, tensors: Tensors) -> None:
        """Go on from what `state` has returned."""

    def memory_bytes(self) -> int:
        """Return the most memory that this process has used: of its device, on a processor its own."""

    def trace(self, folder: Path) -> AbstractContextManager[None]:
        """Trace what is done within for the framework's viewer, into files of an existing folder, process 0 alone."""

    def facts(self) -> dict[str, Any]:
        """Return what the outcome tells of the framework: precision, parameters, versions."""


def score(
    trainer: Trainer[Any], weights: Tensors, beat: Callable[[], None], ends: Callable[[], bool] = lambda: False
) -> Score | None:
    """Score weights on the validation set, split over the processes; `beat` is called after every batch.

    None where `ends` was true before a batch of any process.
    """
    course, read = trainer.course, trainer.scorer(weights)
    tally = np.zeros(4, np.float32)  # correct, total, sum of losses, ended: exact up to 2^24 in each process
    for batch in validation_batches(course.val_set, course.rank, course.job.processes):
        if ends():
            tally[3] = 1
            break
        samples = len(batch.labels)
        loss, logits = read((batch, pack(batch.labels, course.codec, course.reach, course.job.train.loss)))
        tally[:3] += count_correct(logits, batch.labels, course.codec), samples, loss * samples
        beat()
    correct, total, loss_sum, ended = trainer.gather(tally).sum(0, dtype=np.float64).tolist()
    if ended:
        return None
    return Score(correct=int(correct), total=int(total), loss_sum=loss_sum)
