import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.recognition.ms import COMPACT, DATA, TRAIN, ms  # isort: skip  # before anything imports MindSpore
from components.recognition import checkpoint, frameworks
from components.recognition.blocks import ShardWriter
from components.recognition.charset import load_charset
from components.recognition.decoding import CtcCodec
from components.recognition.loader import Batch, training_batches
from components.recognition.ms import train
from components.recognition.ms.model import Recogniser, build
from components.recognition.ms.optimisers import build as build_optimiser
from components.recognition.ms.precision import halve
from components.recognition.ms.predict import Predictor
from components.recognition.ms.step import Gradients, Objective, Update
from components.recognition.ms.train import Trainer, tensors_of
from components.recognition.ms.weights import dump, load
from components.recognition.recipe import Train
from components.recognition.shards import open_sets
from components.recognition.targets import pack
from components.recognition.training import Job, Part, parts_of, write_job
from tests.recognition.tiny import write_index
from tests.recognition.updates import updated

CODEC = CtcCodec(charset=load_charset("lower36"))
STEPS = 25


def draw(samples: int) -> tuple[np.ndarray, list[str]]:
    """Return pictures (N, 32, 100, 1) of bars whose height says which of three digits they are, and their labels."""
    rng = np.random.default_rng(samples)
    images = rng.integers(100, 150, (samples, 32, 100, 1), dtype=np.uint8)
    labels = []
    for image in images:
        digits = rng.integers(0, 3, rng.integers(1, 5))
        for place, digit in enumerate(digits):
            image[8 * digit + 2 : 8 * digit + 12, 24 * place + 4 : 24 * place + 20] = 250
        labels.append("".join(map(str, digits)))
    return images, labels


def write_set(path: Path, samples: int, extra: tuple[str, ...] = ()) -> Path:
    images, labels = draw(samples)
    with ShardWriter(path, (32, 100, 1), samples + len(extra)) as writer:
        for image, label in zip([*images, *images[: len(extra)]], [*labels, *extra], strict=True):
            writer.add(image, label)
    return write_index(path)


def some_parts(samples: int, parts: int = 1) -> list[Part]:
    images, labels = draw(samples)
    section = dataclasses.replace(TRAIN, accumulation=parts)
    return parts_of(Batch(images=images, labels=labels), section, CODEC, STEPS, np.ones(samples, np.float32))


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


def update_of(net: Recogniser, section: Train = TRAIN, *, scale: float = 1.0) -> Update:
    return Update(build_optimiser(net, section), section.clip_norm, scale, processes=1)


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "adadelta", "lion"])
def test_gradients_that_are_not_finite_change_nothing_and_the_next_ones_are_clipped(optimizer: str) -> None:
    net = build(COMPACT, DATA[1], 37)
    section = dataclasses.replace(TRAIN, optimizer=optimizer, clip_norm=0.5, weight_decay=0.0)
    update, rate = update_of(net, section), ms.Tensor(section.lr, ms.float32)
    before = [weight.asnumpy().copy() for weight in net.trainable_params()]
    size, rng = sum(weight.size for weight in before), np.random.default_rng(2)
    vector = rng.normal(size=size + 1).astype(np.float32)  # the loss is last
    broken = vector.copy()
    broken[7] = np.inf
    assert not np.isfinite(update(ms.Tensor(broken), rate).asnumpy()[1])
    assert all(np.array_equal(w.asnumpy(), b) for w, b in zip(net.trainable_params(), before, strict=True))

    loss, norm = update(ms.Tensor(vector), rate).asnumpy()
    assert loss == vector[-1]
    assert norm == pytest.approx(np.linalg.norm(vector[:-1]), rel=1e-5)
    clipped = np.split(vector[:-1] * (0.5 / norm), np.cumsum([weight.size for weight in before])[:-1])
    for weight, start, gradient in zip(net.trainable_params(), before, clipped, strict=True):
        expected = updated(start, [gradient.reshape(start.shape)], section, 0.0)
        moved, rounding = np.abs(expected - start).max(), 3 * np.spacing(np.abs(start).max())
        assert np.abs(weight.asnumpy() - expected).max() < 1e-4 * moved + rounding


@pytest.mark.parametrize("amp", ["O2", "O3"])
def test_half_precision_gives_nearly_the_same_loss_and_keeps_the_parameters(amp: str) -> None:
    (part,), net = some_parts(4), build(COMPACT, DATA[1], 37)
    whole = float(Objective(net, DATA[1].middle).set_train()(*tensors_of(part))[0].asnumpy())
    halved = build(COMPACT, DATA[1], 37)
    load(halved, dump(net), "whole")
    halve(halved, amp)
    gradients = Gradients(Objective(halved, DATA[1].middle), 1024.0).set_train()
    half, norm = update_of(halved, scale=1024.0)(gradients(*tensors_of(part)), ms.Tensor(0.0, ms.float32)).asnumpy()
    assert half == pytest.approx(whole, rel=0.02)
    assert half != whole
    assert np.isfinite(norm)
    assert {str(weight.dtype) for weight in halved.get_parameters()} == {"Float32"}


def environment(processes: int) -> dict[str, str]:
    return os.environ | frameworks.environment("mindspore", "cpu", processes)


def make_job(folder: Path, processes: int) -> Job:
    section = dataclasses.replace(TRAIN, global_batch=32)
    return Job(
        data=DATA[1], model=COMPACT, train=section, start=None, device="cpu", processes=processes, folder=folder,
        train_sets=(write_set(folder / "train.mdb", 32, extra=("0" * 20, "!")),),
        val_sets=(write_set(folder / "val.mdb", 70),),
    )  # fmt: skip


def test_two_processes_make_the_step_of_their_mean_gradient(tmp_path: Path) -> None:
    job = make_job(tmp_path, 2)
    write_job(tmp_path / "job.json", job)
    command = frameworks.launch("mindspore", "cpu", 2, tmp_path / "job.json")
    done = subprocess.run(command, env=environment(2), capture_output=True, check=False, timeout=300)
    logs = "".join(path.read_text() for path in sorted((tmp_path / "msrun").glob("*.log")))
    assert done.returncode == 0, logs[-2000:]

    outcome = json.loads((tmp_path / "outcome.json").read_text())
    assert {name: outcome[name] for name in ("framework", "processes", "steps", "images", "unfit_labels")} == {
        "framework": "mindspore", "processes": 2, "steps": 1, "images": 32, "unfit_labels": 2}  # fmt: skip
    last = checkpoint.load(tmp_path / "last.safetensors")
    with np.load(tmp_path / "reference.npz") as reference:
        assert reference["images"].shape == (64, 32, 100, 1)
        assert np.abs(reference["logits"] - Predictor(last, "cpu")(reference["images"])).max() < 1e-5

    ms.set_seed(job.train.seed)
    net = build(COMPACT, DATA[1], 37)
    start, gradients = dump(net), NamedGradients(net)
    shards = open_sets(job.train_sets).keep(np.arange(34) < 32)
    halves = []
    for rank in (0, 1):
        load(net, start, "start")
        (batch,) = training_batches(shards, batch=16, rank=rank, ranks=2, seed=job.train.seed, epoch=0)
        part = batch, pack(batch.labels, CODEC, STEPS, job.train.loss)
        halves.append((gradients(*tensors_of(part)), dump(net)))
    for name, weight in last.tensors.items():
        if ".running_" in name:
            assert np.allclose(weight, (halves[0][1][name] + halves[1][1][name]) / 2, atol=1e-5), name
            continue
        mean = (halves[0][0][name] + halves[1][0][name]) / 2
        expected = updated(start[name], [mean], job.train, job.train.weight_decay)
        clear = np.abs(mean) > 1e-2 * np.abs(mean).max()  # Adam's first step is the sign, which rounding decides at 0
        assert np.abs(weight - expected)[clear].max() < 1e-2 * job.train.lr, name


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No other processes, and no group of them: a sum over all is each one's own."""
    monkeypatch.setattr(train, "Total", ms.nn.Identity)


@pytest.mark.usefixtures("alone")
def test_the_parts_of_a_batch_make_the_whole_batchs_step(tmp_path: Path) -> None:
    trainer = Trainer(make_job(tmp_path, 1), 0)
    # Batch normalisation by running statistics: by its own ones each part would be normalised by itself.
    trainer.gradients.set_train(False)
    seen: list[ms.Tensor] = []
    trainer.update = lambda vector, rate: seen.append(vector) or vector[-1:]  # type: ignore[func-returns-value]
    for parts in (1, 4):
        trainer.step(some_parts(8, parts), rate=0.0)
    whole, parted = (vector.asnumpy() for vector in seen)
    assert parted[-1] == pytest.approx(whole[-1], rel=1e-5)
    assert np.allclose(parted, whole, rtol=1e-3, atol=1e-5 * np.abs(whole[:-1]).max())


@pytest.mark.usefixtures("alone")
def test_the_average_is_what_is_scored_and_kept(tmp_path: Path) -> None:
    job = make_job(tmp_path, 1)
    trainer = Trainer(dataclasses.replace(job, train=dataclasses.replace(job.train, ema_decay=0.9)), 0)
    assert trainer.average is not None
    start = dump(trainer.net)
    trainer.step(some_parts(8), rate=0.01)
    trainer.average(ms.Tensor(2000, ms.float32))  # decay 0.9 * (1 - exp(-1)) = 0.568908503
    trainer.validate(1)
    trained, last = dump(trainer.net), checkpoint.load(tmp_path / "last.safetensors")
    for name, tensor in last.tensors.items():
        expected = 0.568908503 * start[name] + 0.431091497 * trained[name]
        assert np.allclose(tensor, trained[name] if ".running_" in name else expected, atol=1e-6), name
    assert not np.allclose(last.tensors["head.weight"], trained["head.weight"], atol=1e-3)
    averaged = dump(trainer.scored.net)
    assert all(np.array_equal(averaged[name], tensor) for name, tensor in last.tensors.items())


@pytest.mark.usefixtures("alone")
def test_training_starts_from_the_weights_of_a_file_or_says_what_does_not_fit(tmp_path: Path) -> None:
    job, path = make_job(tmp_path, 1), tmp_path / "start.safetensors"
    section = dataclasses.replace(job.train, start_from="other")
    tensors = {name: tensor + 1 for name, tensor in dump(build(COMPACT, DATA[1], 37)).items()}
    state = checkpoint.Checkpoint(tensors=tensors, data=job.data, model=job.model, train=job.train, step=1)
    checkpoint.save(path, state)
    job = dataclasses.replace(job, start=path, train=section)
    started = dump(Trainer(job, 0).net)
    assert all(np.array_equal(started[name], tensor) for name, tensor in tensors.items())

    del tensors["head.bias"]
    checkpoint.save(path, dataclasses.replace(state, tensors=tensors))
    with pytest.raises(ValueError, match=rf"train.start_from other, file {path}: .* missing \['head.bias'\]"):
        Trainer(job, 0)


@pytest.mark.usefixtures("alone")
def test_a_decoder_is_trained_scored_and_kept(tmp_path: Path) -> None:
    job = make_job(tmp_path, 1)
    model = dataclasses.replace(COMPACT, name="rare", max_length=4, decoder_hidden=16)
    section = dataclasses.replace(job.train, loss="cross_entropy", teacher_forcing=0.5)
    Trainer(dataclasses.replace(job, model=model, train=section), 0).run()
    last = checkpoint.load(tmp_path / "last.safetensors")
    with np.load(tmp_path / "reference.npz") as reference:
        assert reference["logits"].shape == (64, 5, 38)
        assert np.abs(reference["logits"] - Predictor(last, "cpu")(reference["images"])).max() < 1e-5
    lines = [json.loads(line)["metrics"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["val/loss"] == pytest.approx(np.log(38), rel=0.2)  # nothing is learnt in one step


def test_a_failing_worker_says_why(tmp_path: Path) -> None:
    write_job(tmp_path / "job.json", dataclasses.replace(make_job(tmp_path, 1), device="npu"))
    command = [sys.executable, train.__file__, str(tmp_path / "job.json")]
    told = environment(1) | {"DEVICE_ID": "0"}
    assert subprocess.run(command, env=told, capture_output=True, check=False, cwd=tmp_path, timeout=120).returncode
    failure = (tmp_path / "failure.0.txt").read_text()
    assert failure.startswith("RuntimeError in process 0: device 'npu': MindSpore")
    assert not (tmp_path / "outcome.json").exists()
