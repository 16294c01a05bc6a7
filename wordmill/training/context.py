"""The context of a training process: its job and rank, the data sets, the codec, the plan of steps."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from wordmill.recipe.schedule import Plan, make_plan
from wordmill.shards.index import Index
from wordmill.shards.mixing import Mixture
from wordmill.shards.sets import ShardSet, open_sets
from wordmill.text.decoding import Codec
from wordmill.training.job import Job
from wordmill.training.rendered import Streamed
from wordmill.training.targets import fitting

PART_SEED = 0
TrainingSet = ShardSet | Mixture | Streamed


@dataclasses.dataclass(frozen=True, kw_only=True)
class Context:
    """What one process of a training works with; `codec` and `time_steps` are what labels are encoded for."""

    job: Job
    rank: int
    codec: Codec
    time_steps: int  # T of the recogniser's logits (N, T, C)
    train_set: TrainingSet
    unfit: int | None  # samples that are left out of it; None where nobody has counted them
    val_set: ShardSet
    plan: Plan


def make_context(job: Job, rank: int, codec: Codec, time_steps: int) -> Context:
    """Return the context of one process, of a recogniser with this codec and as many time steps."""
    train_set, unfit = training_set(job, codec, time_steps)
    plan = make_plan(job.train, train_set.samples, job.processes)
    return Context(job=job, rank=rank, codec=codec, time_steps=time_steps, train_set=train_set, unfit=unfit,
                   val_set=open_sets(job.val_sets), plan=plan)  # fmt: skip


def training_set(job: Job, codec: Codec, steps: int) -> tuple[TrainingSet, int | None]:
    """Return what is learnt from, and how many samples are left out of it because their label does not fit.

    None for what is rendered while training: labels that do not fit have weight 0 there, and are not counted.
    """
    if job.rendered:
        from wordmill.synth.renderer import SynthSpec  # which no other training needs

        return Streamed(spec=SynthSpec.parse(job.rendered), data=job.data), None
    sets = job.train_sets
    if job.data.shares:
        opened = [open_sets([path]) for path in sets]
        fitted = [fitting(samples, codec, steps) for samples in opened]
        kept = [without(one, sets[i : i + 1], job.left_out[i : i + 1]) for i, one in enumerate(fitted)]
        unfit = sum(one.samples for one in opened) - sum(one.samples for one in fitted)
        names = job.data.train
        length = job.data.epoch_samples or sum(one.samples for one in kept)  # whatever part is learnt from
        learnt = [part_of(one, job.data.fractions.get(name, 1.0)) for one, name in zip(kept, names, strict=True)]
        return Mixture(sets=learnt, shares=[job.data.shares[name] for name in names], samples=length), unfit
    given = open_sets(sets)
    fits = fitting(given, codec, steps)
    return without(fits, sets, job.left_out), given.samples - fits.samples


def part_of(samples: ShardSet, fraction: float) -> ShardSet:
    """Return a part of a set's samples, one at least; drawn, the same every time: a smaller part is of a larger one."""
    if fraction == 1.0:
        return samples
    mask = np.ones(samples.starts[-1], dtype=np.bool_) if samples.kept is None else samples.kept.copy()
    # RandomState, whose sequences are the same in every version of NumPy.
    drawn = np.random.RandomState(PART_SEED).permutation(np.flatnonzero(mask))
    mask[drawn[max(1, round(fraction * len(drawn))) :]] = False
    return samples.keep(mask)


def without(fits: ShardSet, sets: Sequence[Path], left_out: Sequence[Path]) -> ShardSet:
    """Return what fits of training sets, less the samples that are left out of each; no lists: less none."""
    if not left_out:
        return fits
    sizes = [len(Index.load(path).characters) for path in sets]
    mask = np.ones(sum(sizes), dtype=np.bool_) if fits.kept is None else fits.kept.copy()
    for start, path in zip(np.cumsum([0, *sizes[:-1]]), left_out, strict=True):
        mask[start + np.load(path)] = False
    return fits.keep(mask)
