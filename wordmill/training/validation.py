"""How weights are scored on the validation set, split over the processes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from wordmill.models.checkpoint import Tensors
from wordmill.shards.loader import Batch, ordered_batches, pictures_at_once
from wordmill.shards.sets import ShardSet
from wordmill.text.decoding import Codec
from wordmill.text.protocols import is_correct
from wordmill.training.targets import encode_labels
from wordmill.training.trainer import Logits, Trainer


@dataclass(frozen=True, kw_only=True)
class ValidationResult:
    """Counts over the whole validation set, and its loss: losses of batches times their samples.

    `total` are the samples that the recipe's protocol counts, `correct` those of them that are read right.
    """

    correct: int
    total: int
    samples: int
    loss_sum: float


def score(
    trainer: Trainer[Any], weights: Tensors, beat: Callable[[], None], ends: Callable[[], bool] = lambda: False
) -> ValidationResult | None:
    """Score weights on the validation set, split over the processes; `beat` is called after every batch.

    None where `ends` was true before a batch of any process.
    """
    context, read = trainer.context, trainer.scorer(weights)
    protocol = context.job.train.protocol
    tally = np.zeros(5, np.float32)  # correct, total, samples, sum of losses, ended: exact up to 2^24 in each process
    for batch in validation_batches(context.val_set, context.rank, context.job.processes):
        if ends():
            tally[4] = 1
            break
        samples = len(batch.labels)
        targets = encode_labels(batch.labels, context.codec, context.time_steps, context.job.train.loss)
        loss, logits = read((batch, targets))
        tally[:4] += *count_correct(logits, batch.labels, context.codec, protocol), samples, loss * samples
        beat()
    correct, total, samples, loss_sum, ended = trainer.gather(tally).sum(0, dtype=np.float64).tolist()
    if ended:
        return None
    return ValidationResult(correct=int(correct), total=int(total), samples=int(samples), loss_sum=loss_sum)


def validation_batches(shards: ShardSet, rank: int, ranks: int) -> Iterator[Batch]:
    """Give one process its share of the validation set: every `ranks`-th batch, together each sample once."""
    return ordered_batches(shards, pictures_at_once(shards.shape), rank, ranks)


def count_correct(logits: Logits, labels: list[str], codec: Codec, protocol: str) -> tuple[int, int]:
    """Count the samples of logits (N, T, C) that a protocol takes for read right, and those that it counts."""
    texts, _ = codec.decode(logits)
    found = [is_correct(protocol, text, label, codec.charset) for text, label in zip(texts, labels, strict=True)]
    return found.count(True), len(found) - found.count(None)
