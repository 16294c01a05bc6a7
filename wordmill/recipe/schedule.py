"""The plan of a training run: its steps, the learning rate of each, and when validation comes."""

import dataclasses

import numpy as np
import numpy.typing as npt

from wordmill.recipe.sections import Model, Train

RISE = 25  # of one_cycle: the rate begins at a share of 1 / RISE


def steps_per_epoch(samples: int, global_batch: int) -> int:
    """Return the number of full global batches; the remainder is left out of the epoch."""
    if samples < global_batch:
        raise ValueError(f"train.global_batch is {global_batch}, expected at most {samples}: "
                         f"{samples} samples do not fill one global batch of {global_batch}")  # fmt: skip
    return samples // global_batch


def warmup_cosine(lr: float, steps: int, warmup_steps: int, min_lr: float = 0.0) -> npt.NDArray[np.float32]:
    """Return the learning rate of every step, (steps,) float32: linear from 0 to `lr`, then half a cosine to `min_lr`.

    MindOCR's warmup_cosine_decay, stepwise: the first step has rate 0 where there is a warm-up, step
    `warmup_steps` is the first with the full rate, the last one lies just above `min_lr`.
    """
    rates = constant(lr, steps, warmup_steps).astype(np.float64)
    falling = np.pi * np.arange(steps - warmup_steps) / (steps - warmup_steps)
    rates[warmup_steps:] = min_lr + 0.5 * (lr - min_lr) * (1.0 + np.cos(falling))
    return np.asarray(rates, dtype=np.float32)


def constant(lr: float, steps: int, warmup_steps: int) -> npt.NDArray[np.float32]:
    """Return the learning rate of every step, (steps,) float32: linear from 0 to `lr`, then `lr`."""
    if not 0 <= warmup_steps < steps:
        raise ValueError(f"train.warmup_epochs gives {warmup_steps} warm-up steps, expected 0 to {steps - 1}: "
                         f"training has {steps} steps in all")  # fmt: skip
    rising = np.arange(steps, dtype=np.float64) / max(warmup_steps, 1)
    return np.asarray(lr * np.where(np.arange(steps) < warmup_steps, rising, 1.0), dtype=np.float32)


def stepped(lr: float, steps: int, warmup_steps: int, every: int, factor: float) -> npt.NDArray[np.float32]:
    """Return the learning rate of every step, (steps,) float32: `constant`, times the factor after `every` steps each.

    PyTorch's StepLR, stepwise; steps are counted from the first one, warm-up included.
    """
    if every < 1:
        raise ValueError(f"train.step_epochs gives {every} steps, expected at least 1")
    rates = constant(lr, steps, warmup_steps).astype(np.float64)
    return np.asarray(rates * factor ** (np.arange(steps) // every), dtype=np.float32)


def piecewise(
    lr: float, steps: int, warmup_steps: int, starts: tuple[int, ...], rates: tuple[float, ...]
) -> npt.NDArray[np.float32]:
    """Return the learning rate of every step, (steps,) float32: `constant` up to the first of `starts`, then `rates`.

    From step starts[i], counted from 0, up to the next one the rate is rates[i].
    """
    if list(starts) != sorted(set(starts)) or not warmup_steps <= starts[0] or starts[-1] >= steps:
        raise ValueError(f"train.piece_epochs gives steps {list(starts)}, expected rising ones from the end of the "
                         f"warm-up, {warmup_steps}, to {steps - 1}")  # fmt: skip
    pieces = np.searchsorted(np.array(starts), np.arange(steps), side="right")
    later = np.array([0.0, *rates])[pieces]
    return np.asarray(np.where(pieces > 0, later, constant(lr, steps, warmup_steps)), dtype=np.float32)


def one_cycle(lr: float, steps: int, warmup_steps: int, min_lr: float) -> npt.NDArray[np.float32]:
    """Return the learning rate of every step, (steps,) float32: from lr / RISE up to `lr`, then down to `min_lr`.

    PyTorch's OneCycleLR with two phases of half a cosine each (Smith and Topin 2017, arXiv 1708.07120): the last step
    of the warm-up has the full rate, the last step of all `min_lr`.
    """
    if not 2 <= warmup_steps < steps:
        raise ValueError(f"train.warmup_epochs gives {warmup_steps} steps in which the rate rises, expected 2 to "
                         f"{steps - 1}: training has {steps} steps in all")  # fmt: skip
    up = np.arange(warmup_steps) / (warmup_steps - 1)
    down = np.arange(1, steps - warmup_steps + 1) / (steps - warmup_steps)
    rising = lr + 0.5 * (lr / RISE - lr) * (1.0 + np.cos(np.pi * up))
    falling = min_lr + 0.5 * (lr - min_lr) * (1.0 + np.cos(np.pi * down))
    return np.asarray(np.concatenate([rising, falling]), dtype=np.float32)


def parts_of_model(model: Model) -> tuple[str, ...]:
    """Return the names of a recogniser's parts, which its weights' names begin with."""
    rectifier = ("rectifier",) if model.rectification != "none" else ()
    neck = ("neck",) if model.neck != "none" else ()
    return (*rectifier, "backbone", *neck, "head" if model.name == "crnn" else "decoder")


def part_factor(train: Train, part: str, step: int) -> float:
    """Return what a part's learning rate is multiplied by in step 1..: 0 while it is frozen."""
    return 0.0 if step <= train.freeze.get(part, 0) else train.lr_factors.get(part, 1.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """The steps of a training run: sizes, the rate of each step, and after which steps (1..) validation comes."""

    batch: int  # of one process and step, all parts of it
    epochs: int
    steps_per_epoch: int
    rates: npt.NDArray[np.float32]  # (steps,)
    validate_after: frozenset[int]
    flat_steps: int = 0  # of the flat start

    @property
    def steps(self) -> int:
        """Steps in all."""
        return len(self.rates)

    def flat(self, step: int) -> float:
        """Return the share of the loss of step 1.. that learns frames of equal letters: falls from 1 to 0."""
        return max(0.0, 1.0 - (step - 1) / self.flat_steps) if self.flat_steps else 0.0


def make_plan(train: Train, samples: int, processes: int) -> Plan:
    """Derive the plan from the recipe's section, the number of training samples and of processes."""
    batch = batch_of_process(train, processes)
    steps = steps_per_epoch(samples, train.global_batch)
    if not 1 <= train.validations_per_epoch <= steps:
        raise ValueError(f"train.validations_per_epoch is {train.validations_per_epoch}, "
                         f"expected 1 to {steps}, the steps of an epoch")  # fmt: skip
    validations = range(1, train.epochs * train.validations_per_epoch + 1)
    return Plan(
        batch=batch,
        epochs=train.epochs,
        steps_per_epoch=steps,
        rates=_rates(train, steps),
        validate_after=frozenset(number * steps // train.validations_per_epoch for number in validations),
        flat_steps=round(train.flat_start_epochs * steps),
    )


def _rates(train: Train, steps_of_epoch: int) -> npt.NDArray[np.float32]:
    steps, warmup_steps = train.epochs * steps_of_epoch, round(train.warmup_epochs * steps_of_epoch)
    match train.schedule:
        case "constant":
            return constant(train.lr, steps, warmup_steps)
        case "step":
            return stepped(train.lr, steps, warmup_steps, round(train.step_epochs * steps_of_epoch), train.step_factor)
        case "piecewise":
            starts = tuple(round(epoch * steps_of_epoch) for epoch in train.piece_epochs)
            return piecewise(train.lr, steps, warmup_steps, starts, train.piece_lrs)
        case "one_cycle":
            return one_cycle(train.lr, steps, warmup_steps, train.min_lr)
    return warmup_cosine(train.lr, steps, warmup_steps, train.min_lr)


def batch_of_process(train: Train, processes: int) -> int:
    """Return how many samples of a step one process has; ValueError names the nearest global batch that divides."""
    if processes < 1:
        raise ValueError(f"processes is {processes}, expected at least 1")
    if train.accumulation < 0:
        raise ValueError(f"train.accumulation is {train.accumulation}, expected 0, as memory asks for, or more")
    shares = processes * train.parts
    if train.global_batch < 1 or train.global_batch % shares:
        near = max(1, round(train.global_batch / shares)) * shares
        parts = f" in {train.parts} parts each" if train.parts > 1 else ""
        raise ValueError(f"train.global_batch is {train.global_batch}, which {processes} processes cannot share "
                         f"equally{parts}: the nearest that they can is {near}")  # fmt: skip
    return train.global_batch // processes
