"""Batches out of shards: a seeded global shuffle that is the same for any number of ranks and resumes at any step."""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from components.recognition.blocks import Block
from components.recognition.image import Picture
from components.recognition.schedule import steps_per_epoch
from components.recognition.shards import ShardSet

WINDOW_BLOCKS = 32  # samples are shuffled within so many blocks, which lie anywhere in the data

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Pictures uint8 (n, H, W, C) and their n labels."""

    images: Picture
    labels: list[str]


@dataclass(frozen=True, kw_only=True)
class _Window:
    """Samples of some blocks in their order of use: sample i is row `rows[i]` of `blocks[slots[i]]`."""

    blocks: list[Block]
    slots: list[int]
    rows: list[int]


def training_batches(
    shards: ShardSet, *, batch: int, rank: int, ranks: int, seed: int, epoch: int, start_step: int = 0
) -> Iterator[Batch]:
    """Yield this rank's `batch` samples of every step of an epoch, from `start_step` on.

    Global batch s is the same for any number of ranks; rank r gets its rows r * batch to (r + 1) * batch.
    """
    order = _EpochOrder(shards, seed, epoch)
    for step in range(start_step, steps_per_epoch(shards.samples, batch * ranks)):
        yield order.take((step * ranks + rank) * batch, batch)


def ordered_batches(shards: ShardSet, batch: int) -> Iterator[Batch]:
    """Yield all samples in their stored order, `batch` at a time; the last batch may be smaller."""
    images, labels = [], []
    for index, rows in enumerate(shards.rows):
        block = shards.block(index)
        for row in rows.tolist():
            images.append(block.images[row])
            labels.append(block.label(row))
            if len(images) == batch:
                yield Batch(images=np.stack(images), labels=labels)
                images, labels = [], []
    if images:
        yield Batch(images=np.stack(images), labels=labels)


class _EpochOrder:
    """The order of one epoch: blocks are shuffled over all data, then samples within windows of 32 blocks."""

    def __init__(self, shards: ShardSet, seed: int, epoch: int) -> None:
        self.shards, self.seed, self.epoch = shards, seed, epoch
        blocks = _permutation(shards.blocks, seed, epoch, 0).tolist()
        self.groups = [blocks[first : first + WINDOW_BLOCKS] for first in range(0, len(blocks), WINDOW_BLOCKS)]
        sizes = (sum(len(shards.rows[block]) for block in group) for group in self.groups)
        self.starts = list(accumulate(sizes, initial=0))
        # A batch touches two windows at most unless windows are tiny; the one before is never needed again.
        self.window = lru_cache(maxsize=2)(self._window)

    def take(self, first: int, count: int) -> Batch:
        """Return samples first .. first + count - 1 of the epoch."""
        images = np.empty((count, *self.shards.shape), dtype=np.uint8)
        labels: list[str] = []
        number = bisect_right(self.starts, first) - 1
        while len(labels) < count:
            window = self.window(number)
            start = first + len(labels) - self.starts[number]
            stop = start + count - len(labels)
            for slot, row in zip(window.slots[start:stop], window.rows[start:stop], strict=True):
                block = window.blocks[slot]
                images[len(labels)] = block.images[row]
                labels.append(block.label(row))
            number += 1
        return Batch(images=images, labels=labels)

    def _window(self, number: int) -> _Window:
        group = self.groups[number]
        slots = np.concatenate([np.full(len(self.shards.rows[block]), slot) for slot, block in enumerate(group)])
        rows = np.concatenate([self.shards.rows[block] for block in group])
        order = _permutation(len(rows), self.seed, self.epoch, 1 + number)
        blocks = [self.shards.block(block) for block in group]
        return _Window(blocks=blocks, slots=slots[order].tolist(), rows=rows[order].tolist())


def _permutation(count: int, *key: int) -> Indices:
    """Return a permutation of 0..count-1 that depends on the key alone.

    Sorting raw words of a fixed generator: NumPy may change how its own shuffles use them, and a resumed run must
    see the order of the run before it.
    """
    return np.argsort(np.random.Philox(np.random.SeedSequence(key)).random_raw(count), kind="stable")
