"""The context of a training process: its job and rank, the data sets, the codec, the plan of steps."""

import dataclasses

import numpy as np

from wordmill.recipe.schedule import Plan, make_plan
from wordmill.shards.index import Index
from wordmill.shards.sets import ShardSet, open_sets
from wordmill.text.decoding import Codec
from wordmill.training.job import Job
from wordmill.training.rendered import Streamed
from wordmill.training.targets import fitting


@dataclasses.dataclass(frozen=True, kw_only=True)
class Context:
    """What one process of a training works with; `codec` and `time_steps` are what labels are encoded for."""

    job: Job
    rank: int
    codec: Codec
    time_steps: int  # T of the recogniser's logits (N, T, C)
    train_set: ShardSet | Streamed
    unfit: int  # samples that are left out of it
    val_set: ShardSet
    plan: Plan


def make_context(job: Job, rank: int, codec: Codec, time_steps: int) -> Context:
    """Return the context of one process, of a recogniser with this codec and as many time steps."""
    train_set, unfit = training_set(job, codec, time_steps)
    plan = make_plan(job.train, train_set.samples, job.processes)
    return Context(job=job, rank=rank, codec=codec, time_steps=time_steps, train_set=train_set, unfit=unfit,
                   val_set=open_sets(job.val_sets), plan=plan)  # fmt: skip


def training_set(job: Job, codec: Codec, steps: int) -> tuple[ShardSet | Streamed, int]:
    """Return what is learnt from, and how many samples are left out of it because their label does not fit."""
    if job.rendered:
        from wordmill.synth.renderer import SynthSpec  # which no other training needs

        return Streamed(spec=SynthSpec.parse(job.rendered), data=job.data), 0
    given = open_sets(job.train_sets)
    kept = fitting(given, codec, steps)
    unfit = given.samples - kept.samples
    return (without(kept, job) if job.left_out else kept), unfit


def without(kept: ShardSet, job: Job) -> ShardSet:
    """Return what is kept of the training sets, less the samples that the job leaves out of each."""
    sizes = [len(Index.load(path).characters) for path in job.train_sets]
    mask = np.ones(sum(sizes), dtype=np.bool_) if kept.kept is None else kept.kept.copy()
    for start, path in zip(np.cumsum([0, *sizes[:-1]]), job.left_out, strict=True):
        mask[start + np.load(path)] = False
    return kept.keep(mask)
