"""Labels as losses take them, and which labels a recogniser can learn."""

import dataclasses
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from wordmill.pictures.distortion import distort
from wordmill.pictures.image import Edits
from wordmill.pictures.svtr import roughen
from wordmill.recipe.sections import Train
from wordmill.shards.index import MANY, count_repeats
from wordmill.shards.sets import ShardSet
from wordmill.text.decoding import AttentionCodec, Codec, CtcCodec

Counts = npt.NDArray[np.integer[Any]]

_INKED = 0.64  # of a letter's part at a flat start
_FEW_FRAMES = 2.2  # a letter
DRAWS = 1  # parts these words from those that the loader shuffles an epoch by: a seed sequence ends with any zeros


@dataclasses.dataclass(frozen=True, kw_only=True)
class Targets:
    """Labels of a batch: the batch's loss is sum(weights * loss of each sample).

    classes (N, L) int32: class numbers; an attention decoder's end with STOP; padded with 0 to L, the steps
    lengths (N,) int32:   how many of them count, from 1 on
    weights (N,) float32: make the batch's mean; 0 for a label that is empty or too long, which nothing is learnt from
    forced (N,) float32:  1 where the decoder is told the truth before each step, 0 where it goes by its own reading
    seeds (N,) int32:     what the sample's dropout masks are drawn from
    frames (N, T) int32:  of CTC: the class of each frame were all letters as wide
    flat (N,) float32:    of CTC: the share of the loss that learns `frames`
    counted:              of how many things, samples or characters, the batch's loss is the mean
    """

    classes: npt.NDArray[np.int32]
    lengths: npt.NDArray[np.int32]
    weights: npt.NDArray[np.float32]
    forced: npt.NDArray[np.float32]
    seeds: npt.NDArray[np.int32]
    frames: npt.NDArray[np.int32]
    flat: npt.NDArray[np.float32]
    counted: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Draws:
    """What is drawn for each sample of a batch, Targets.forced and Targets.seeds."""

    forced: npt.NDArray[np.float32]
    seeds: npt.NDArray[np.int32]

    def __getitem__(self, rows: slice) -> "Draws":
        return Draws(forced=self.forced[rows], seeds=self.seeds[rows])


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
    """Tell which labels (N,) can be learnt in so many steps, of which blanks and STOP take some; empty ones cannot."""
    return (characters > 0) & (characters < steps if isinstance(codec, AttentionCodec) else frames <= steps)


def encode_labels(
    labels: list[str], codec: Codec, steps: int, loss: str, drawn: Draws | None = None, flat: float = 0.0
) -> Targets:
    """Encode labels for a recogniser of so many steps; `loss` is the recipe's train.loss, `flat` the plan's share.

    Without `drawn` decoders are told the truth. L is `steps` whatever the labels, so that shapes stay. A label that
    does not fit has one class in its place.
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
    counted = max(1, int(lengths[fit].sum())) if loss == "cross_entropy" else len(labels)
    shares = fit / (lengths if loss == "ctc_by_length" else 1)  # by length: what PyTorch calls reduction "mean"
    drawn = drawn or Draws(forced=np.ones(len(labels), np.float32), seeds=np.zeros(len(labels), np.int32))
    return Targets(
        classes=classes,
        lengths=lengths,
        weights=np.asarray(shares / counted, dtype=np.float32),
        forced=drawn.forced,
        seeds=drawn.seeds,
        frames=_even_frames(classes, lengths) if flat else np.zeros_like(classes),
        flat=np.full(len(labels), flat, np.float32),
        counted=counted,
    )


def _even_frames(classes: npt.NDArray[np.int32], lengths: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """The class of each frame (N, T) were all letters of a label as wide, which is all that is known at first.

    A letter has the middle of its part and the blank the rest; all of its part where that is a frame or two.
    Speech recognisers start so, flat, from equal parts (Young et al., The HTK Book, 3.4: flat start).
    """
    steps = classes.shape[1]
    place = (np.arange(steps) + 0.5) * lengths[:, None] / steps
    letter = place.astype(np.int64)
    inked = (np.abs(place - letter - 0.5) < _INKED / 2) | (steps < _FEW_FRAMES * lengths[:, None])
    return np.where(inked, np.take_along_axis(classes, letter, 1), np.int32(CtcCodec.BLANK))


def draw(train: Train, step: int, rows: slice) -> Draws:
    """Draw for some rows of global batch `step`, 1..: the same for any number of processes, in every framework.

    A sample's decoder is told the truth with probability train.teacher_forcing.
    """
    key = np.random.SeedSequence((train.seed, step, 0, DRAWS))
    words = np.random.Philox(key).random_raw(2 * train.global_batch)
    coins, seeds = words.reshape(2, -1)[:, rows]
    forced = (coins >> np.uint64(11)) * 2.0**-53 < train.teacher_forcing
    return Draws(forced=forced.astype(np.float32), seeds=seeds.astype(np.uint32).view(np.int32))


def edits_of(train: Train, first: int, rows: slice, step: int) -> Edits:
    """Return what is done to the pictures of some rows of global batch `first` + `step` before they are fitted."""
    if train.augment not in ("words", "svtr"):
        return ()
    seeds = draw(train, first + step, rows).seeds.view(np.uint32).tolist()
    if train.augment == "svtr":
        return [partial(roughen, seed=seed) for seed in seeds]
    return [partial(distort, seed=seed, strength=train.augment_strength) for seed in seeds]
