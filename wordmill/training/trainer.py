"""What a framework gives the training loop."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from wordmill.models.checkpoint import Checkpoint, Tensors
from wordmill.pictures.image import Picture
from wordmill.training.context import Context
from wordmill.training.stream import MicroBatch

Handle = TypeVar("Handle")
Vector = npt.NDArray[np.float32]
Logits = npt.NDArray[np.float32]

STATISTICS = "statistics/"  # of batch normalisation, which each process has of its own: their names in a state


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """A step's result, the same in every process: loss, norm of the gradients, what any process has asked for."""

    loss: float
    norm: float
    save: bool
    stop: bool


class Trainer(Protocol[Handle]):
    """One process's share of the work in a framework. All processes call all methods in the same order."""

    context: Context

    def step(self, number: int, parts: list[MicroBatch], rate: float, asked: tuple[bool, bool]) -> Handle:
        """Begin step `number`, 1.., of the optimiser, the moving average included, without waiting for its end.

        Gradient and loss are the mean over all that the parts of all processes count; a step whose gradients are not
        finite changes nothing but the loss scale. `asked` are this process's wishes, StepResult's save and stop.
        """

    def result(self, handle: Handle) -> StepResult:
        """Wait for a step's result."""

    def weights(self) -> Tensors:
        """Return what is scored and stored: weights or their moving average, statistics averaged over processes."""

    def scorer(self, weights: Tensors) -> Callable[[MicroBatch], tuple[float, Logits]]:
        """Return what tells the loss and the logits (N, T, C) that these weights have for a part."""

    def gather(self, vector: Vector) -> Vector:
        """Return every process's vector (n,) in every process: (processes, n)."""

    def predictor(self, checkpoint: Checkpoint) -> Callable[[Picture], Logits]:
        """Return what turns images (N, H, W, C) uint8 into logits (N, T, C), on process 0 alone."""

    def state(self) -> Tensors:
        """Return copies of all that training goes on from: float32 arrays by name.

        Running statistics are those of every process, STATISTICS + name, of shape (processes, C).
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
