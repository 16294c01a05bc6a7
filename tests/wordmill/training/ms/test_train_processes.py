import dataclasses
import json
import os
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.wordmill.models.ms import COMPACT, DATA, cell_by_cell, ms  # isort: skip  # before anything imports MindSpore
from components.train.attempts import RESTARTS
from components.train.launch import launch
from tests.wordmill.models.ms.bars import CODEC, STEPS, make_job
from tests.wordmill.training import tiny
from tests.wordmill.training.ms import sync_worker, worker
from tests.wordmill.training.ms.shallow import Shallow
from tests.wordmill.training.updates import updated
from wordmill.models import checkpoint
from wordmill.models.checkpoint import Tensors
from wordmill.models.ms import backbones
from wordmill.models.ms.model import Recogniser, build
from wordmill.models.ms.predict import Predictor
from wordmill.models.ms.weights import dump, load_weights
from wordmill.recipe import frameworks
from wordmill.recipe.sections import Data, Model, Train
from wordmill.shards.loader import training_batches
from wordmill.shards.sets import open_sets
from wordmill.training.job import Job, write_job
from wordmill.training.ms.step import Objective
from wordmill.training.ms.train import tensors_of
from wordmill.training.records import read_pulse
from wordmill.training.state import read_state, records
from wordmill.training.targets import encode_labels

RARE = dataclasses.replace(tiny.MODEL, name="rare", max_length=6, decoder_hidden=16)
# Half of the labels fit: of 144 samples as many are learnt from as elsewhere.
BRIEF, BRIEF_SAMPLES = dataclasses.replace(RARE, max_length=3), 144
SEQ2SEQ = dataclasses.replace(tiny.MODEL, name="seq2seq", decoder_hidden=16)
# At ten times this rate rounding grows from 1e-7 of the loss to 2e-4 of it within the 8 steps.
LONG = dataclasses.replace(tiny.TRAIN, framework="mindspore", global_batch=16, epochs=2, optimizer="adadelta", lr=0.01,
                           clip_norm=0.0, sync_batch_norm=True, ema_decay=0.9, validations_per_epoch=1)  # fmt: skip
STAGES = ("-m", "wordmill.training.worker", "ms")  # the worker that the stage starts
CRASHED = f"Error code: -{signal.SIGSEGV.value}"  # what msrun says of a worker
OF_DECODERS = dataclasses.replace(LONG, loss="cross_entropy", teacher_forcing=0.5)


def do(processes: int, *jobs: Job, script: tuple[str, ...] = (worker.__file__,)) -> None:
    """Do jobs in so many processes, by default one after the other in the same ones."""
    paths = [job.folder / "job.json" for job in jobs]
    for path, job in zip(paths, jobs, strict=True):
        write_job(path, job)
    msrun(processes, *script, *paths)


def msrun(processes: int, *words: str | Path) -> None:
    """Start a script or a module with files, beside the first of which are its logs; AssertionError where it fails.

    Workers that are lost before their first step are started again, as the stage does: the thread with which MindSpore
    receives from its scheduler at times ends in a segmentation fault as it begins.
    """
    paths = [word for word in words if isinstance(word, Path)]
    folder, environment = paths[0].parent, os.environ | frameworks.environment("mindspore", "cpu", processes)
    for _ in range(1 + RESTARTS):
        command = launch("mindspore", "cpu", processes, paths[0])
        command[-4:] = map(str, words)  # instead of the module, its twin and the job
        done = subprocess.run(command, env=environment, capture_output=True, check=False, text=True, timeout=600)
        if CRASHED not in done.stderr or any(read_pulse(folder, rank) for rank in range(processes)):
            break
    logs = "".join(path.read_text() for path in sorted((folder / "msrun").glob("*.log")))
    assert done.returncode == 0, f"{done.stderr[-2000:]}\n{logs[-2000:]}"


def job_in(
    folder: Path, train: Train, model: Model, processes: int, *, stop_at: int = 0, samples: int = 72,
    data: Data = tiny.DATA,
) -> Job:  # fmt: skip
    folder.mkdir()
    if stop_at:
        (folder / worker.STOP_AT).write_text(str(stop_at))
    job = tiny.make_job(folder, train=train, samples=samples, processes=processes, data=data)  # 4 steps an epoch
    return dataclasses.replace(job, model=model)


def brief_job(folder: Path, processes: int, *, stop_at: int = 0) -> Job:
    """Return a job of a decoder of few steps behind two layers, on narrow pictures."""
    job = job_in(folder, OF_DECODERS, BRIEF, processes, stop_at=stop_at, samples=BRIEF_SAMPLES, data=tiny.NARROW)
    (folder / worker.SHALLOW).touch()
    return job


def losses(job: Job, rank: int = 0) -> list[float]:
    """Return the loss of each step of a run, in the order of the steps."""
    found: list[float] = json.loads((job.folder / f"curve.{rank}.json").read_text())
    return found


def state(job: Job, rank: int = 0) -> Tensors:
    """Return the parameters that a process ended with, the optimiser's among them."""
    with np.load(job.folder / f"state.{rank}.npz", allow_pickle=False) as file:
        return dict(file)


def assert_same(one: Tensors, other: Tensors) -> None:
    assert set(one) == set(other)
    assert [name for name in one if one[name].tobytes() != other[name].tobytes()] == []


def assert_alike_on_all(job: Job) -> None:
    for rank in range(1, job.processes):
        assert losses(job, rank) == losses(job)
        assert_same(state(job, rank), state(job))


def test_two_processes_stop_go_on_and_are_gone_on_from_as_if_nothing_had_happened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backbones, "Compact", Shallow)
    whole, parted, rest = (brief_job(tmp_path / name, 2, stop_at=2 * (name == "parted"))
                           for name in ("whole", "parted", "rest"))  # fmt: skip
    rest = dataclasses.replace(rest, resume=parted.folder / "checkpoints")
    do(2, whole, parted, rest)
    for job in (whole, parted, rest):
        assert_alike_on_all(job)
    assert not (parted.folder / "outcome.json").exists()
    done = len(losses(parted))
    assert 3 <= done <= 5  # asked for in step 2, which is seen two steps later
    assert losses(parted) + losses(rest) == losses(whole)
    for name in ("last", "best"):
        path = f"{name}.safetensors"
        assert (rest.folder / path).read_bytes() == (whole.folder / path).read_bytes()
    kept = [read_state(records(job.folder / "checkpoints")[0]).tensors for job in (rest, whole)]
    assert_same(*kept)
    assert len(kept[0]["statistics/backbone.bn1.running_mean"]) == 2

    alone = brief_job(tmp_path / "alone", 1)
    trainer = worker.Watched(alone, 0)
    with np.load(rest.folder / "reference.npz") as reference:
        last = checkpoint.load(rest.folder / "best.safetensors")
        assert np.abs(reference["logits"] - trainer.predictor(last)(reference["images"])).max() < 1e-5

    # One process goes on from where two were stopped, and ends, but for rounding, as if it had done it all.
    fresh = trainer.state()
    ends = []
    for job in (alone, brief_job(tmp_path / "fewer", 1)):
        write_job(job.folder / "job.json", job)
        trainer.restore(fresh)
        worker.train(trainer, job if job is alone else dataclasses.replace(job, resume=records(rest.resume)[0]))
        ends.append(checkpoint.load(job.folder / "last.safetensors").tensors)
    assert losses(alone) == pytest.approx(losses(whole), rel=1e-4)
    assert losses(job) == pytest.approx(losses(whole)[done:], rel=1e-4)
    for end in ends:
        for name, tensor in checkpoint.load(whole.folder / "last.safetensors").tensors.items():
            assert np.abs(end[name] - tensor).max() <= 1e-3 * max(np.abs(tensor).max(), 0.1), name


@pytest.mark.slow
def test_synchronised_batch_normalisation_has_the_gradients_of_one_process(tmp_path: Path) -> None:
    msrun(2, sync_worker.__file__, tmp_path / "differences.json")
    differences = json.loads((tmp_path / "differences.json").read_text())
    assert differences["gradients"] < 1e-5
    assert differences["statistics"] < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize(("model", "loss"), [(tiny.MODEL, "ctc"), (RARE, "cross_entropy")], ids=["crnn", "rare"])
def test_four_processes_learn_what_one_learns(model: Model, loss: str, tmp_path: Path) -> None:
    train = dataclasses.replace(LONG, loss=loss, teacher_forcing=0.5 if model is RARE else 1.0)
    jobs = [job_in(tmp_path / str(processes), train, model, processes) for processes in (1, 2, 4)]
    for job in jobs:
        do(job.processes, job)
        assert_alike_on_all(job)
        assert losses(job) == pytest.approx(losses(jobs[0]), rel=1e-5)
    first, *others = (checkpoint.load(job.folder / "last.safetensors").tensors for job in jobs)
    for other in others:
        for name, tensor in first.items():
            assert np.abs(other[name] - tensor).max() <= 1e-4 * max(np.abs(tensor).max(), 0.1), name


@pytest.mark.slow
@pytest.mark.parametrize("model", [tiny.MODEL, RARE, SEQ2SEQ], ids=["crnn", "rare", "seq2seq"])
def test_two_runs_have_the_same_bytes_and_a_fresh_process_goes_on_to_them_too(model: Model, tmp_path: Path) -> None:
    """With the published per-device batch normalisation, two parts and the worker that the stage starts."""
    train = dataclasses.replace(LONG, sync_batch_norm=False, accumulation=2, optimizer="adam", lr=1e-3)
    if model is not tiny.MODEL:
        train = dataclasses.replace(train, loss="cross_entropy", teacher_forcing=0.5)
    one, other = (job_in(tmp_path / name, train, model, 2) for name in ("one", "other"))
    stopped = job_in(tmp_path / "stopped", train, model, 2, stop_at=3)
    rest = job_in(tmp_path / "rest", train, model, 2)
    do(2, one, script=STAGES)
    do(2, other, script=STAGES)
    do(2, stopped)
    do(2, dataclasses.replace(rest, resume=records(stopped.folder / "checkpoints")[0]), script=STAGES)
    for job in (other, rest):
        for name in ("last", "best"):
            path = f"{name}.safetensors"
            assert (job.folder / path).read_bytes() == (one.folder / path).read_bytes()
    statistics = read_state(records(one.folder / "checkpoints")[0]).tensors["statistics/backbone.bn1.running_mean"]
    assert not np.array_equal(*statistics)


class NamedGradients:
    """Gradients by canonical name, taken by MindSpore outside the step under test."""

    def __init__(self, net: Recogniser) -> None:
        self.objective = Objective(net, DATA[1].middle)
        self.objective.set_train()
        self.parameters = net.trainable_params()
        self.names = [name for name in dump(net) if ".running_" not in name]
        self.take = ms.value_and_grad(self.objective, None, ms.ParameterTuple(self.parameters), has_aux=True)

    def __call__(self, *batch: ms.Tensor) -> dict[str, np.ndarray]:
        taken = self.take(*batch)[1]
        return {name: gradient.asnumpy() for name, gradient in zip(self.names, taken, strict=True)}


def test_two_processes_make_the_step_of_their_mean_gradient(tmp_path: Path) -> None:
    job = make_job(tmp_path, 2)
    do(2, job, script=STAGES)
    outcome = json.loads((tmp_path / "outcome.json").read_text())
    assert {name: outcome[name] for name in ("framework", "processes", "steps", "images", "unfit_labels")} == {
        "framework": "mindspore", "processes": 2, "steps": 1, "images": 32, "unfit_labels": 2}  # fmt: skip
    last = checkpoint.load(tmp_path / "last.safetensors")
    predictor = Predictor(last, "cpu")
    with np.load(tmp_path / "reference.npz") as reference, cell_by_cell():  # what graphs of training are held to
        assert reference["images"].shape == (64, 32, 100, 1)
        assert np.abs(reference["logits"] - predictor(reference["images"])).max() < 1e-5

    ms.set_seed(job.train.seed)
    net = build(COMPACT, DATA[1], 37)
    start, gradients = dump(net), NamedGradients(net)
    shards = open_sets(job.train_sets).keep(np.arange(34) < 32)
    halves = []
    for rank in (0, 1):
        load_weights(net, start, "start")
        (batch,) = training_batches(shards, batch=16, rank=rank, ranks=2, seed=job.train.seed, epoch=0)
        part = batch, encode_labels(batch.labels, CODEC, STEPS, job.train.loss)
        with cell_by_cell():
            halves.append((gradients(*tensors_of(part)), dump(net)))
    for name, weight in last.tensors.items():
        if ".running_" in name:
            assert np.allclose(weight, (halves[0][1][name] + halves[1][1][name]) / 2, atol=1e-5), name
            continue
        mean = (halves[0][0][name] + halves[1][0][name]) / 2
        expected = updated(start[name], [mean], job.train, job.train.weight_decay)
        clear = np.abs(mean) > 1e-2 * np.abs(mean).max()  # Adam's first step is the sign, which rounding decides at 0
        assert np.abs(weight - expected)[clear].max() < 1e-2 * job.train.lr, name
