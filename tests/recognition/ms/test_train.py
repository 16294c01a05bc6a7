import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest

from components.recognition import checkpoint, frameworks
from components.recognition.blocks import ShardWriter
from components.recognition.charset import load_charset
from components.recognition.loader import training_batches
from components.recognition.ms import train
from components.recognition.ms.model import CRNN, build
from components.recognition.ms.predict import Predictor
from components.recognition.ms.step import AdamW, Objective, TrainStep
from components.recognition.ms.train import choose_precision, halve, tensors_of
from components.recognition.ms.weights import dump, load
from components.recognition.shards import ShardSet
from components.recognition.training import Job, pack, write_job
from tests.recognition.ms import COMPACT, DATA, TRAIN

CHARSET = load_charset("lower36")
FRAMES = 25


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


def write_shard(path: Path, samples: int, extra: tuple[str, ...] = ()) -> Path:
    images, labels = draw(samples)
    with ShardWriter(path, (32, 100, 1), samples + len(extra)) as writer:
        for image, label in zip([*images, *images[: len(extra)]], [*labels, *extra], strict=True):
            writer.add(image, label)
    return path


def some_batch(samples: int) -> tuple[ms.Tensor, ...]:
    images, labels = draw(samples)
    targets = pack(labels, CHARSET, FRAMES)
    return tuple(ms.Tensor.from_numpy(array) for array in (images, targets.classes, targets.lengths, targets.weights))


def make_step(net: CRNN, *, clip_norm: float = 0.0, scale: float = 1.0) -> TrainStep:
    step = TrainStep(Objective(net, FRAMES), AdamW(net, TRAIN.weight_decay), clip_norm, scale, processes=1)
    step.set_train()
    return step


class Gradients:
    """Gradients by canonical name, taken by MindSpore outside the step under test."""

    def __init__(self, net: CRNN) -> None:
        self.objective = Objective(net, FRAMES)
        self.objective.set_train()
        self.parameters = net.trainable_params()
        self.names = [name for name in dump(net) if ".running_" not in name]
        self.take = ms.value_and_grad(self.objective, None, ms.ParameterTuple(self.parameters), has_aux=True)

    def __call__(self, *batch: ms.Tensor) -> dict[str, np.ndarray]:
        taken = self.take(*batch)[1]
        return {name: gradient.asnumpy() for name, gradient in zip(self.names, taken, strict=True)}


def adamw(weight: np.ndarray, gradients: list[np.ndarray], rate: float, decay: float) -> np.ndarray:
    """Loshchilov and Hutter's algorithm 2 in float64, with rate times decay as PyTorch has it."""
    weight, m, v = weight.astype(np.float64), 0.0, 0.0
    for t, gradient in enumerate(gradients, start=1):
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient.astype(np.float64) ** 2
        weight = weight - rate * decay * weight
        weight = weight - rate * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    return weight


def test_adamw_is_the_published_update_even_for_gradients_as_small_as_epsilon() -> None:
    net = build(COMPACT, DATA[1], 37)
    update, rng = AdamW(net, 0.01), np.random.default_rng(5)
    before = [weight.asnumpy().copy() for weight in net.trainable_params()]
    scales = 10.0 ** -rng.integers(0, 9, len(before))
    series = [[(scale * rng.normal(size=w.shape)).astype(np.float32) for scale, w in zip(scales, before, strict=True)]
              for _ in range(3)]  # fmt: skip
    for gradients in series:
        update(tuple(map(ms.Tensor, gradients)), ms.Tensor(0.01, ms.float32))
    for number, weight in enumerate(net.trainable_params()):
        expected = adamw(before[number], [gradients[number] for gradients in series], 0.01, 0.01)
        moved = np.abs(expected - before[number]).max()
        assert np.abs(weight.asnumpy() - expected).max() < 1e-3 * moved


def test_a_step_without_finite_gradients_changes_nothing_and_the_next_one_is_clipped() -> None:
    net = build(COMPACT, DATA[1], 37)
    images, classes, lengths, weights = some_batch(4)
    before, rate = dump(net), ms.Tensor(0.1, ms.float32)
    step = make_step(net, clip_norm=0.5)
    _, norm = step(images, classes, lengths, weights * float("nan"), rate).asnumpy()
    after = dump(net)
    assert not np.isfinite(norm)
    assert all(np.array_equal(after[name], before[name]) for name in before if ".running_" not in name)
    assert float(step.adamw.power1.asnumpy()) == 1.0

    loss, norm = step(images, classes, lengths, weights, rate).asnumpy()
    assert np.isfinite(loss)
    assert norm > 0.5
    clipped = [moment.asnumpy().astype(np.float64) / 0.1 for moment in step.adamw.first]  # the first is 0.1 g
    assert np.sqrt(sum((gradient**2).sum() for gradient in clipped)) == pytest.approx(0.5, rel=1e-4)
    assert not np.array_equal(dump(net)["head.weight"], before["head.weight"])


@pytest.mark.parametrize("amp", ["O2", "O3"])
def test_half_precision_gives_nearly_the_same_loss_and_keeps_the_parameters(amp: str) -> None:
    batch, net = some_batch(4), build(COMPACT, DATA[1], 37)
    objective = Objective(net, FRAMES)
    objective.set_train()
    whole = float(objective(*batch)[0].asnumpy())
    halved = build(COMPACT, DATA[1], 37)
    load(halved, dump(net), "whole")
    halve(halved, amp)
    half, norm = make_step(halved, scale=1024.0)(*batch, ms.Tensor(0.0, ms.float32)).asnumpy()
    assert half == pytest.approx(whole, rel=0.02)
    assert half != whole
    assert np.isfinite(norm)
    assert {str(weight.dtype) for weight in halved.get_parameters()} == {"Float32"}


def test_precision_is_told_as_it_is() -> None:
    assert choose_precision("O0", "npu") == (False, "float32")
    assert choose_precision("O3", "cpu")[0] is False
    assert choose_precision("O3", "cpu")[1].startswith("float32: MindSpore")
    assert choose_precision("O2", "npu") == (
        True, "float16 backbone, batch normalisation in float32, loss scale 1024")  # fmt: skip


def environment(processes: int) -> dict[str, str]:
    return os.environ | frameworks.environment("mindspore", "cpu", processes)


def make_job(folder: Path, processes: int) -> Job:
    section = dataclasses.replace(TRAIN, global_batch=32)
    return Job(
        data=DATA[1], model=COMPACT, train=section, device="cpu", processes=processes, folder=folder,
        train_shards=(write_shard(folder / "train.mdb", 32, extra=("0" * 20, "!")),),
        val_shards=(write_shard(folder / "val.mdb", 70),),
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
    start, gradients = dump(net), Gradients(net)
    shards = ShardSet.open(job.train_shards).keep(lambda label: label != "!" and len(label) < 20)
    halves = []
    for rank in (0, 1):
        load(net, start, "start")
        (batch,) = training_batches(shards, batch=16, rank=rank, ranks=2, seed=job.train.seed, epoch=0)
        halves.append((gradients(*tensors_of(batch, pack(batch.labels, CHARSET, FRAMES))), dump(net)))
    for name, weight in last.tensors.items():
        if ".running_" in name:
            assert np.allclose(weight, (halves[0][1][name] + halves[1][1][name]) / 2, atol=1e-5), name
            continue
        mean = (halves[0][0][name] + halves[1][0][name]) / 2
        expected = adamw(start[name], [mean], job.train.lr, job.train.weight_decay)
        clear = np.abs(mean) > 1e-2 * np.abs(mean).max()  # Adam's first step is the sign, which rounding decides at 0
        assert np.abs(weight - expected)[clear].max() < 1e-2 * job.train.lr, name


def test_a_failing_worker_says_why(tmp_path: Path) -> None:
    write_job(tmp_path / "job.json", dataclasses.replace(make_job(tmp_path, 1), device="npu"))
    command = [sys.executable, train.__file__, str(tmp_path / "job.json")]
    told = environment(1) | {"DEVICE_ID": "0"}
    assert subprocess.run(command, env=told, capture_output=True, check=False, cwd=tmp_path, timeout=120).returncode
    failure = (tmp_path / "failure.0.txt").read_text()
    assert failure.startswith("RuntimeError in process 0: device 'npu': MindSpore")
    assert not (tmp_path / "outcome.json").exists()
