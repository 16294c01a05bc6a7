import dataclasses
import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from components.train.launch import launch
from tests.wordmill.training.pt.together import CPU, Watched, losses, resumed, run, together, weights, written
from tests.wordmill.training.tiny import MODEL, NARROW, TRAIN, make_job
from wordmill.models import checkpoint
from wordmill.models.pt.weights import dump
from wordmill.recipe import frameworks
from wordmill.recipe.sections import Model, Train
from wordmill.training.job import Job
from wordmill.training.pt.train import Handle, Trainer
from wordmill.training.state import read_state, records
from wordmill.training.stream import MicroBatch

# A small rate: what is rounded another way grows from step to step.
CRNN = dataclasses.replace(TRAIN, sync_batch_norm=True, lr=1e-4, epochs=2)  # 10 steps
RARE = dataclasses.replace(CRNN, loss="cross_entropy", teacher_forcing=0.5, epochs=1)  # 5
MUON = dataclasses.replace(CRNN, optimizer="muon", epochs=1)  # whose products the processes share
PER_DEVICE = dataclasses.replace(CRNN, sync_batch_norm=False, epochs=1)
RARES_MODEL = dataclasses.replace(MODEL, name="rare", max_length=6, decoder_hidden=16)
SEQ2SEQ = dataclasses.replace(MODEL, name="seq2seq", decoder_hidden=16)


def job_in(folder: Path, train: Train, model: Model, processes: int) -> Job:
    folder.mkdir()
    return written(
        dataclasses.replace(make_job(folder, train=train, samples=80, processes=processes, data=NARROW), model=model)
    )


def assert_equal_weights(job: Job) -> None:
    for rank in range(1, job.processes):
        assert all(np.array_equal(weights(job, rank)[name], weight) for name, weight in weights(job).items())


def assert_same_training(job: Job, alone: Job) -> None:
    """Losses and weights are those of a run of one process."""
    start = dump(Trainer(alone, CPU, 0).net)
    assert losses(job) == pytest.approx(losses(alone), rel=1e-4)
    for name, weight in weights(alone).items():  # Adam moves by a rate even where a gradient is rounding alone
        assert np.abs(weights(job)[name] - weight).mean() < 0.1 * np.abs(weight - start[name]).mean(), name


def test_a_global_batch_gives_the_same_training_on_one_and_two_processes(tmp_path: Path) -> None:
    """Labels of different lengths, of whose characters cross entropy is the mean, fall to each process."""
    runs = []
    for processes in (1, 2):
        kinds = {"crnn": (CRNN, MODEL), "rare": (RARE, RARES_MODEL), "muon": (MUON, MODEL)}
        runs.append([job_in(tmp_path / f"{name}{processes}", *kind, processes) for name, kind in kinds.items()])
        together(processes, tmp_path, run, runs[-1])
    for alone, job in zip(*runs, strict=True):
        assert_same_training(job, alone)
        assert_equal_weights(job)
        assert losses(job, 1) == losses(job)
    assert [len(losses(job)) for job in runs[0]] == [10, 5, 5]


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_processes(tmp_path: Path) -> None:
    """From 2 processes to 1 and to 4, and all of it on 4."""
    alone, four = (job_in(tmp_path / f"whole{processes}", CRNN, MODEL, processes) for processes in (1, 4))
    for job in (alone, four):
        together(job.processes, tmp_path, run, [job])
    assert_same_training(four, alone)
    assert_equal_weights(four)
    jobs = [job_in(tmp_path / "two", CRNN, MODEL, 2)]
    together(2, tmp_path, run, jobs, 1)
    for processes, stop_at in ((1, 5), (4, 0)):
        jobs.append(resumed(jobs[-1], tmp_path / f"then{processes}", processes))
        together(processes, tmp_path, run, jobs[-1:], stop_at)
    parts = [losses(job) for job in jobs]
    assert [len(part) for part in parts] == [4, 4, 2]
    assert [*parts[0], *parts[1], *parts[2]] == pytest.approx(losses(alone), rel=1e-4)
    assert_equal_weights(jobs[-1])


@pytest.mark.slow
@pytest.mark.parametrize(("train", "model"), [(CRNN, MODEL), (RARE, RARES_MODEL)])
def test_torchrun_trains_the_same_on_1_2_and_4_processes(train: Train, model: Model, tmp_path: Path) -> None:
    scores, ends = [], []
    for processes in (1, 2, 4):
        job = job_in(tmp_path / f"{processes}", train, model, processes)
        command = launch("pytorch", "cpu", processes, job.folder / "job.json")
        variables = os.environ | frameworks.environment("pytorch", "cpu", processes)
        subprocess.run(command, env=variables, check=True, timeout=300)
        lines = [json.loads(line)["metrics"] for line in (job.folder / "metrics.jsonl").read_text().splitlines()]
        scores.append([value for metrics in lines for name, value in metrics.items() if name == "val/loss"])
        ends.append(checkpoint.load(job.folder / "last.safetensors").tensors)
    start = dump(Trainer(job_in(tmp_path / "start", train, model, 1), CPU, 0).net)
    for score, end in zip(scores[1:], ends[1:], strict=True):
        assert score == pytest.approx(scores[0], rel=1e-3)
        for name, tensor in ends[0].items():
            assert np.abs(end[name] - tensor).mean() < 0.1 * np.abs(tensor - start[name]).mean(), name


class Spoilt(Watched):
    """Whose second process has a batch that is not finite in step 3."""

    def step(self, number: int, parts: list[MicroBatch], rate: float, asked: tuple[bool, bool]) -> Handle:
        if (number, self.rank) == (3, 1):
            batch, targets = parts[0]
            targets = dataclasses.replace(targets, weights=np.full_like(targets.weights, np.nan))
            parts = [(batch, targets), *parts[1:]]
        handle = super().step(number, parts, rate, asked)
        np.save(self.job.folder / f"head.{number}.{self.rank}.npy", self.net.head.weight.detach().numpy())
        return handle


def test_processes_have_their_own_statistics_and_leave_out_the_same_steps(tmp_path: Path) -> None:
    own = job_in(tmp_path / "own", PER_DEVICE, MODEL, 2)
    together(2, tmp_path, run, [own], 0, Spoilt)
    assert_equal_weights(own)
    assert np.isnan(losses(own)).tolist() == [False, False, True, False, False]
    heads = [[np.load(own.folder / f"head.{step}.{rank}.npy") for step in (2, 3, 4)] for rank in (0, 1)]
    assert all(np.array_equal(one, other) for one, other in zip(*heads, strict=True))
    assert np.array_equal(heads[0][0], heads[0][1])
    assert not np.array_equal(heads[0][1], heads[0][2])
    state = read_state(records(own.folder / "checkpoints")[0])
    assert (state.progress.nonfinite, state.progress.nonfinite_in_a_row) == (1, 0)
    assert sorted(path.name for path in (own.folder / "nonfinite").iterdir()) == [
        "step-00000003.rank-0.npz",
        "step-00000003.rank-1.npz",
    ]
    # Either has statistics of its own, and the weights that are kept have their mean.
    last = checkpoint.load(own.folder / "last.safetensors").tensors
    for name in ("backbone.bn1.running_mean", "backbone.bn7.running_var"):
        rows = state.tensors[f"statistics/{name}"].astype(np.float64)
        assert not np.array_equal(rows[0], rows[1])
        assert np.array_equal(last[name], rows.mean(0).astype(np.float32))


def test_two_runs_of_two_processes_give_the_same_files(tmp_path: Path) -> None:
    kinds = {
        "crnn": (dataclasses.replace(PER_DEVICE, ema_decay=0.9), MODEL),
        "rare": (dataclasses.replace(RARE, optimizer="adadelta"), RARES_MODEL),
        "seq2seq": (dataclasses.replace(RARE, loss="cross_entropy_unmasked", accumulation=2), SEQ2SEQ),
    }
    folders = []
    for attempt in ("first", "second"):
        jobs = [job_in(tmp_path / f"{attempt}-{name}", *kind, 2) for name, kind in kinds.items()]
        together(2, tmp_path, run, jobs)
        folders.append([job.folder for job in jobs])
    for first, second in zip(*folders, strict=True):
        for name in ("best.safetensors", "last.safetensors"):
            assert (first / name).read_bytes() == (second / name).read_bytes()
