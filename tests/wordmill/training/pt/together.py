"""Runs of processes that train together, started from one process that has imported everything already."""

import dataclasses
import json
import multiprocessing
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from wordmill.training.job import Job, write_job
from wordmill.training.loop import STOP, Loop
from wordmill.training.pt.train import Handle, Trainer
from wordmill.training.state import records
from wordmill.training.stream import MicroBatch
from wordmill.training.trainer import StepResult

CPU = torch.device("cpu")


class Watched(Trainer):
    """A trainer that keeps the loss of each step, and has the run asked to stop while it does step `stop_at`."""

    def __init__(self, job: Job, rank: int, stop_at: int = 0) -> None:
        super().__init__(job, CPU, rank)
        self.stop_at = stop_at
        self.curve: list[float] = []

    def step(self, number: int, parts: list[MicroBatch], rate: float, asked: tuple[bool, bool]) -> Handle:
        handle = super().step(number, parts, rate, asked)
        if number == self.stop_at and self.rank == self.processes - 1:
            (self.job.folder / STOP).touch()  # all have begun this step
        return handle

    def result(self, handle: Handle) -> StepResult:
        result = super().result(handle)
        self.curve.append(result.loss)
        return result


def run(rank: int, jobs: list[Job], stop_at: int = 0, kind: type[Watched] = Watched) -> None:
    """Do jobs one after the other, as a worker does; each process leaves its losses and weights in the job's folder."""
    for job in jobs:
        trainer = kind(job, rank, stop_at)
        Loop(trainer).run()
        weights = {name: weight.detach().numpy() for name, weight in trainer.net.named_parameters()}
        np.savez(job.folder / f"weights.{rank}.npz", **weights)
        (job.folder / f"curve.{rank}.json").write_text(json.dumps(trainer.curve))


def together(processes: int, folder: Path, work: Callable[..., None], *arguments: Any) -> None:
    """Call work(rank, *arguments) in so many processes of one group; AssertionError unless all succeed."""
    context = multiprocessing.get_context("forkserver")
    # The last is what DistributedDataParallel imports when it is made.
    context.set_forkserver_preload(["wordmill.training.pt.train", "torch._dynamo"])
    meeting = folder / f"group-{len(list(folder.glob('group-*')))}"
    meeting.with_suffix(".used").touch()
    members = [context.Process(target=_member, args=(rank, processes, meeting, work, arguments))
               for rank in range(processes)]  # fmt: skip
    for member in members:
        member.start()
    for member in members:
        member.join(300)
    codes = [member.exitcode for member in members]
    for member in members:
        member.kill()
    assert codes == [0] * processes


def _member(rank: int, processes: int, meeting: Path, work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    if processes > 1:
        dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=processes)
    work(rank, *arguments)
    if processes > 1:
        dist.destroy_process_group()


def written(job: Job) -> Job:
    """Return a job, after its file is written."""
    write_job(job.folder / "job.json", job)
    return job


def resumed(job: Job, folder: Path, processes: int) -> Job:
    """Return a job that goes on in a folder of its own from where another was stopped."""
    shutil.copytree(job.folder / "checkpoints", folder / "checkpoints")
    record = records(folder / "checkpoints")[0]
    return written(dataclasses.replace(job, folder=folder, processes=processes, resume=record))


def losses(job: Job, rank: int = 0) -> list[float]:
    """Return the loss of each step of a run, in the order of the steps."""
    found: list[float] = json.loads((job.folder / f"curve.{rank}.json").read_text())
    return found


def weights(job: Job, rank: int = 0) -> dict[str, Any]:
    """Return the weights that a process ended with."""
    with np.load(job.folder / f"weights.{rank}.npz", allow_pickle=False) as file:
        return dict(file)
