"""Labels as losses take them, and which labels a recogniser can learn."""

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from components.recognition.decoding import AttentionCodec, Codec
from components.recognition.index import MANY, count_repeats
from components.recognition.recipe import Train
from components.recognition.shards import ShardSet

Counts = npt.NDArray[np.integer[Any]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Targets:
    """Labels of a batch: the batch's loss is sum(weights * loss of each sample).

    classes (N, L) int32: class numbers; an attention decoder's end with STOP; padded with 0 to L, the steps
    lengths (N,) int32:   how many of them count, from 1 on
    weights (N,) float32: make the batch's mean; 0 for a label that is empty or too long, which nothing is learnt from
    forced (N,) float32:  1 where the decoder is told the truth before each step, 0 where it goes by its own reading
    """

    classes: npt.NDArray[np.int32]
    lengths: npt.NDArray[np.int32]
    weights: npt.NDArray[np.float32]
    forced: npt.NDArray[np.float32]


def fitting(shards: ShardSet, codec: Codec, steps: int) -> ShardSet:
    """Return the training samples whose label fits; the others are left out before training starts.

    A deliberate correction of MindOCR, which keeps them as pictures of an empty word.
    """
    if steps >= MANY:
        raise ValueError(f"a recogniser of {steps} steps: an index of shards tells labels apart up to {MANY - 1}")
    kept = shards.keep(_fit(shards.index.characters, shards.index.frames, codec, steps))
    if not kept.samples:
        raise ValueError(f"none of the {shards.samples} training labels fits: expected labels with characters of "
                         f"charset {codec.charset.name} that need at most {steps} steps")  # fmt: skip
    return kept


def _fit(characters: Counts, frames: Counts, codec: Codec, steps: int) -> npt.NDArray[np.bool_]:
    """Tell which labels (N,) can be learnt in so many steps, as `codec.steps_needed` has it; empty ones cannot."""
    return (characters > 0) & (characters < steps if isinstance(codec, AttentionCodec) else frames <= steps)


def pack(
    labels: list[str], codec: Codec, steps: int, loss: str, forced: npt.NDArray[np.float32] | None = None
) -> Targets:
    """Encode labels for a recogniser of so many steps; `loss` is the recipe's train.loss, `forced` all 1 if not given.

    L is `steps` whatever the labels, so that shapes stay. A label that does not fit has one class in its place.
    """
    numbers, counts = codec.charset.spell(labels)
    fit = _fit(counts, counts + count_repeats(numbers, counts), codec, steps)
    classes = np.zeros((len(labels), steps), dtype=np.int32)
    classes[~fit, 0] = 1
    rows = np.repeat(np.arange(len(labels)), counts)
    columns = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    chosen = fit[rows]
    classes[rows[chosen], columns[chosen]] = numbers[chosen] + codec.FIRST
    lengths = np.where(fit, counts, 1).astype(np.int32)
    if isinstance(codec, AttentionCodec):
        classes[fit, lengths[fit]] = AttentionCodec.STOP
        lengths[fit] += 1
    if loss == "cross_entropy_unmasked":
        lengths[:] = steps
    everyone = np.ones(len(labels), dtype=np.float32)
    return Targets(
        classes=classes,
        lengths=lengths,
        weights=_weights(fit, lengths, loss),
        forced=everyone if forced is None else forced,
    )


def _weights(fit: npt.NDArray[np.bool_], lengths: npt.NDArray[np.int32], loss: str) -> npt.NDArray[np.float32]:
    """Return each sample's share in the batch's loss, (N,)."""
    if loss == "ctc_by_length":  # what PyTorch calls reduction "mean"
        shares = fit / (lengths * len(fit))
    elif loss == "cross_entropy":
        shares = fit / max(1, int(lengths[fit].sum()))
    else:
        shares = fit / len(fit)
    return np.asarray(shares, dtype=np.float32)


def coins(train: Train, count: int, step: int, rank: int) -> npt.NDArray[np.float32]:
    """Toss one coin per sample of a process's batch: 1 for teacher forcing; the same in every framework."""
    words = np.random.Philox(np.random.SeedSequence((train.seed, step, rank))).random_raw(count)
    return np.asarray((words >> np.uint64(11)) * 2.0**-53 < train.teacher_forcing, dtype=np.float32)
