"""The batches that a training process learns from, with their targets, made ahead of the steps."""

import dataclasses
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from wordmill.pictures.augmentation import augment_views
from wordmill.recipe.sections import Train
from wordmill.shards.loader import Batch, training_batches
from wordmill.shards.mixing import Mixture, mixed_batches
from wordmill.text.decoding import Codec
from wordmill.training.context import Context
from wordmill.training.rendered import Streamed, rendered_batches
from wordmill.training.targets import Draws, Targets, draw, edits_of, encode_labels

Item = TypeVar("Item")
MicroBatch = tuple[Batch, Targets]  # of a process's batch: what goes through the network at once

PREFETCHED_BATCHES = 4


def training_stream(context: Context, done: int = 0) -> Iterator[list[MicroBatch]]:
    """Give a process its batch of every step after `done` ones, in parts, read and encoded ahead in a thread."""
    job, rank, plan, given = context.job, context.rank, context.plan, context.train_set
    rows = slice(rank * plan.batch, (rank + 1) * plan.batch)

    def batches() -> Iterator[Batch]:
        if isinstance(given, Streamed):
            yield from rendered_batches(
                given.spec, given.data, job.train, batch=plan.batch, rank=rank, ranks=job.processes, steps=plan.steps,
                start_step=done,
            )  # fmt: skip
            return
        first, within = divmod(done, plan.steps_per_epoch)
        for epoch in range(first, plan.epochs):
            start = within if epoch == first else 0
            edits = partial(edits_of, job.train, 1 + epoch * plan.steps_per_epoch, rows)
            take = partial(mixed_batches, given) if isinstance(given, Mixture) else partial(training_batches, given)
            yield from take(batch=plan.batch, rank=rank, ranks=job.processes, seed=job.train.seed, epoch=epoch,
                            start_step=start, edits=edits)  # fmt: skip

    def source() -> Iterator[list[MicroBatch]]:
        for step, batch in enumerate(batches(), start=done + 1):
            drawn = draw(job.train, step, rows)
            if job.train.augment == "views":
                batch = dataclasses.replace(batch, images=augment_views(batch.images, drawn.seeds))
            yield parts_of(batch, job.train, context.codec, context.time_steps, drawn, plan.flat(step))

    return prefetched(source(), PREFETCHED_BATCHES)


def parts_of(batch: Batch, train: Train, codec: Codec, steps: int, drawn: Draws, flat: float = 0.0) -> list[MicroBatch]:
    """Split a process's batch into the recipe's equal parts, whose labels are encoded each by themselves."""
    size = len(batch.labels) // train.parts
    parts = [slice(first, first + size) for first in range(0, len(batch.labels), size)]
    return [
        (
            Batch(images=batch.images[part], labels=batch.labels[part]),
            encode_labels(batch.labels[part], codec, steps, train.loss, drawn[part], flat),
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
