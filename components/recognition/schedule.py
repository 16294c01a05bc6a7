"""The plan of a training run: its steps, the learning rate of each, and when validation comes."""

import dataclasses

import numpy as np
import numpy.typing as npt

from components.recognition.recipe import Train


def steps_per_epoch(samples: int, global_batch: int) -> int:
    """Return the number of full global batches; the remainder is left out of the epoch."""
    if samples < global_batch:
        raise ValueError(
            f"{samples} samples do not fill one global batch of {global_batch}: use more data or a smaller batch"
        )
    return samples // global_batch


def warmup_cosine(lr: float, steps: int, warmup_steps: int) -> npt.NDArray[np.float32]:
    """Return the learning rate of every step, (steps,) float32: linear from 0 to `lr`, then half a cosine to 0.

    MindOCR's warmup_cosine_decay, stepwise: the first step has rate 0 where there is a warm-up, step
    `warmup_steps` is the first with the full rate, the last one lies just above 0.
    """
    if not 0 <= warmup_steps < steps:
        raise ValueError(f"train.warmup_epochs gives {warmup_steps} warm-up steps, expected 0 to {steps - 1}: "
                         f"training has {steps} steps in all")  # fmt: skip
    step = np.arange(steps, dtype=np.float64)
    rising = step / max(warmup_steps, 1)
    falling = 0.5 * (1.0 + np.cos(np.pi * (step - warmup_steps) / (steps - warmup_steps)))
    return np.asarray(lr * np.where(step < warmup_steps, rising, falling), dtype=np.float32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """The steps of a training run: sizes, the rate of each step, and after which steps (1..) validation comes."""

    batch: int  # of one process
    epochs: int
    steps_per_epoch: int
    rates: npt.NDArray[np.float32]  # (steps,)
    validate_after: frozenset[int]

    @property
    def steps(self) -> int:
        """Steps in all."""
        return len(self.rates)


def make_plan(train: Train, samples: int, processes: int) -> Plan:
    """Derive the plan from the recipe's section, the number of training samples and of processes."""
    batch = batch_of_process(train.global_batch, processes)
    steps = steps_per_epoch(samples, train.global_batch)
    if not 1 <= train.validations_per_epoch <= steps:
        raise ValueError(f"train.validations_per_epoch is {train.validations_per_epoch}, "
                         f"expected 1 to {steps}, the steps of an epoch")  # fmt: skip
    parts = range(1, train.epochs * train.validations_per_epoch + 1)
    return Plan(
        batch=batch,
        epochs=train.epochs,
        steps_per_epoch=steps,
        rates=warmup_cosine(train.lr, train.epochs * steps, round(train.warmup_epochs * steps)),
        validate_after=frozenset(part * steps // train.validations_per_epoch for part in parts),
    )


def batch_of_process(global_batch: int, processes: int) -> int:
    """Return the batch of one process; ValueError names the nearest global batch that divides."""
    if processes < 1:
        raise ValueError(f"processes is {processes}, expected at least 1")
    if global_batch < 1 or global_batch % processes:
        near = max(1, round(global_batch / processes)) * processes
        raise ValueError(f"train.global_batch is {global_batch}, which {processes} processes cannot share equally: "
                         f"the nearest that they can is {near}")  # fmt: skip
    return global_batch // processes
