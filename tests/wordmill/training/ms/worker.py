"""A worker that does jobs one after the other, each as if it were fresh: msrun ... worker.py JOB [JOB...].

All go through the same graphs, which are compiled once. A job's `resume` is a folder of checkpoints here, of which the
newest is gone on from. Each process leaves its losses and its state in the job's folder.
"""

import dataclasses
import gc
import json
import sys
from pathlib import Path

if not __package__:  # msrun starts a file, not a module
    sys.path.insert(0, str(Path(__file__).resolve().parents[4]))

import mindspore as ms
import numpy as np
from mindspore.communication import get_rank, init

from tests.wordmill.training.ms.shallow import Shallow
from wordmill.models.checkpoint import Checkpoint
from wordmill.models.ms import backbones
from wordmill.models.ms.predict import Predictor, open_device
from wordmill.models.ms.weights import load_weights
from wordmill.store.children import die_with_parent
from wordmill.training.job import Job, read_job
from wordmill.training.loop import STOP, Loop
from wordmill.training.ms.train import Trainer
from wordmill.training.state import records
from wordmill.training.stream import MicroBatch
from wordmill.training.trainer import StepResult
from wordmill.training.worker import at_work

STOP_AT = "stop_at"  # a file with the step in which the run is asked to stop
SHALLOW = "shallow"  # a file that says that the backbone is of two layers


class Watched(Trainer):
    """A trainer that keeps the loss of each step, and has the run asked to stop where the job says it."""

    reader: Predictor | None = None

    def begin(self, job: Job) -> None:
        """Take up another job, of the same sections and sets."""
        self.context = dataclasses.replace(self.context, job=job)
        self.curve: list[float] = []
        asks = (job.folder / STOP_AT).exists() and self.rank == job.processes - 1
        self.stop_at = int((job.folder / STOP_AT).read_text()) if asks else 0

    def step(self, number: int, parts: list[MicroBatch], rate: float, asked: tuple[bool, bool]) -> ms.Tensor:
        if number == self.stop_at:
            (self.context.job.folder / STOP).touch()
        return super().step(number, parts, rate, asked)

    def result(self, handle: ms.Tensor) -> StepResult:
        result = super().result(handle)
        self.curve.append(result.loss)
        return result

    def predictor(self, checkpoint: Checkpoint) -> Predictor:
        """Return what turns images into logits: one for all jobs, with the weights of each."""
        if self.reader is None:
            self.reader = super().predictor(checkpoint)
        load_weights(self.reader.net, checkpoint.tensors, "checkpoint")
        return self.reader


def train(trainer: Watched, job: Job) -> None:
    """Do a job, and write down what this process has seen and ends with."""
    trainer.begin(job)
    Loop(trainer).run()
    own = {name: parameter.asnumpy() for name, parameter in trainer.parameters.common.items()}
    np.savez(job.folder / f"state.{trainer.rank}.npz", **own)
    (job.folder / f"curve.{trainer.rank}.json").write_text(json.dumps(trainer.curve))


def main(paths: list[Path]) -> None:
    """Join the other processes and do the jobs."""
    die_with_parent()
    gc.freeze()  # as the stage's worker does
    jobs = [read_job(path) for path in paths]
    if (jobs[0].folder / SHALLOW).exists():
        backbones.Compact = Shallow
    open_device("cpu")
    init()
    rank = get_rank()
    with at_work(jobs[0].folder, rank):
        trainer = Watched(jobs[0], rank)
        fresh = trainer.state()
        for job in jobs:
            trainer.restore(fresh)
            # Process 0 alone reads it, and has alone waited for it to be written.
            newest = records(job.resume)[0] if job.resume and rank == 0 else None
            train(trainer, dataclasses.replace(job, resume=newest))


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]])
