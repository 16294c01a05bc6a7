"""Batches out of several data sets by given shares, whatever their sizes: a small set comes round again and again.

Sample k of an epoch is of the set that the shares say, the same for any number of ranks. Each set goes on where it was,
through one shuffled pass after the other; nothing but a sample's number in the training says which one it is.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from wordmill.pictures.image import Edits
from wordmill.recipe.schedule import steps_per_epoch
from wordmill.shards.loader import Batch, EpochOrder, Numbers, Samples, joined


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """Data sets, the share of each in every epoch, which add up to 1, and how many samples an epoch has."""

    sets: Sequence[Samples]
    shares: Sequence[float]
    samples: int

    def drawn(self, counts: npt.NDArray[Any] | int) -> Numbers:
        """Return how many of an epoch's first `counts` (n,) samples are of each set, (sets, n), or (sets,) of one.

        They are never fewer for more samples, and within half a sample of what two sets' shares ask for, within two of
        what up to eight's do: the largest takes its part, rounded, the next one its part of what that leaves.
        """
        left, rest = np.asarray(counts, np.int64), 1.0
        taken = np.empty((len(self.shares), *left.shape), np.int64)
        *first, last = sorted(range(len(self.shares)), key=lambda number: -self.shares[number])
        for number in first:
            taken[number] = np.floor(min(1.0, self.shares[number] / rest) * left + 0.5)
            left, rest = left - taken[number], rest - self.shares[number]
        taken[last] = left
        return taken


def mixed_batches(
    mixture: Mixture, *, batch: int, rank: int, ranks: int, seed: int, epoch: int, start_step: int = 0,
    edits: Callable[[int], Edits] = lambda step: (),
) -> Iterator[Batch]:  # fmt: skip
    """Yield this rank's `batch` samples of every step of an epoch, from `start_step` on, as `training_batches` does."""
    steps = steps_per_epoch(mixture.samples, batch * ranks)
    before = epoch * mixture.drawn(steps * batch * ranks)  # of each set, in earlier epochs
    passes = [_Passes(samples, rank, ranks, seed) for samples in mixture.sets]
    for step in range(start_step, steps):
        first = (step * ranks + rank) * batch
        counts = mixture.drawn(np.arange(first, first + batch + 1))
        owners = np.diff(counts, axis=1).argmax(axis=0)  # of each row, the number of its set
        changes = edits(step)
        taken = []
        for number, (one, start, row) in enumerate(zip(passes, before, counts, strict=True)):
            own = [changes[place] for place in np.flatnonzero(owners == number).tolist()] if changes else ()
            taken.append(one.take(int(start + row[0]), int(row[-1] - row[0]), own))
        yield _interleaved(taken, owners)


class _Passes:
    """The samples of a set, pass after pass."""

    def __init__(self, samples: Samples, rank: int, ranks: int, seed: int) -> None:
        self.samples, self.rank, self.ranks, self.seed = samples, rank, ranks, seed
        self.number, self.order = -1, EpochOrder(samples, rank, ranks, seed, 0)

    def take(self, first: int, count: int, edits: Edits) -> Batch | None:
        """Return samples first .. first + count - 1, counted over all passes; None for none."""
        parts = []
        while count:
            number, place = divmod(first, self.samples.samples)
            if number != self.number:
                self.number = number
                self.order = EpochOrder(self.samples, self.rank, self.ranks, self.seed, number)
            size = min(count, self.samples.samples - place)
            parts.append(self.order.take(place, size, edits[:size]))
            first, count, edits = first + size, count - size, edits[size:]
        return joined(parts) if parts else None


def _interleaved(parts: Sequence[Batch | None], owners: Numbers) -> Batch:
    """Return the samples of several sets each in the rows that are its own."""
    shape = next(part.images.shape[1:] for part in parts if part)
    images, labels = np.empty((len(owners), *shape), np.uint8), [""] * len(owners)
    for number, part in enumerate(parts):
        if part:
            rows = np.flatnonzero(owners == number)
            images[rows] = part.images
            for row, label in zip(rows.tolist(), part.labels, strict=True):
                labels[row] = label
    return Batch(images=images, labels=labels)
