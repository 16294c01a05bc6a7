"""How weights are scored on the validation set, split over the processes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from wordmill.models.checkpoint import Tensors
from wordmill.shards.loader import Batch, ordered_batches
from wordmill.shards.sets import ShardSet
from wordmill.text.decoding import Codec
from wordmill.text.protocols import is_correct
from wordmill.training.targets import encode_labels
from wordmill.training.trainer import Logits, Trainer

EVALUATION_BATCH = 256


@dataclass(frozen=True, kw_only=True)
class ValidationResult:
    """Counts over the whole validation set, and its loss: losses of batches times their samples."""

    correct: int
    total: int
    loss_sum: float


def score(
    trainer: Trainer[Any], weights: Tensors, beat: Callable[[], None], ends: Callable[[], bool] = lambda: False
) -> ValidationResult | None:
    """Score weights on the validation set, split over the processes; `beat` is called after every batch.

    None where `ends` was true before a batch of any process.
    """
    context, read = trainer.context, trainer.scorer(weights)
    tally = np.zeros(4, np.float32)  # correct, total, sum of losses, ended: exact up to 2^24 in each process
    for batch in validation_batches(context.val_set, context.rank, context.job.processes):
        if ends():
            tally[3] = 1
            break
        samples = len(batch.labels)
        targets = encode_labels(batch.labels, context.codec, context.time_steps, context.job.train.loss)
        loss, logits = read((batch, targets))
        tally[:3] += count_correct(logits, batch.labels, context.codec), samples, loss * samples
        beat()
    correct, total, loss_sum, ended = trainer.gather(tally).sum(0, dtype=np.float64).tolist()
    if ended:
        return None
    return ValidationResult(correct=int(correct), total=int(total), loss_sum=loss_sum)


def validation_batches(shards: ShardSet, rank: int, ranks: int) -> Iterator[Batch]:
    """Give one process its share of the validation set: every `ranks`-th batch, together each sample once."""
    return ordered_batches(shards, EVALUATION_BATCH, rank, ranks)


def count_correct(logits: Logits, labels: list[str], codec: Codec) -> int:
    """Count the samples of logits (N, T, C) that are read as their label by the word accuracy's rule."""
    texts, _ = codec.decode(logits)
    return sum(is_correct(text, label, codec.charset) for text, label in zip(texts, labels, strict=True))
