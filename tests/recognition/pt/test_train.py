import dataclasses
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.nn.functional import ctc_loss

from components.recognition import checkpoint, frameworks
from components.recognition.loader import Batch
from components.recognition.pt.predict import Predictor
from components.recognition.pt.train import Trainer, choose_precision
from components.recognition.training import Job, pack, write_job
from tests.recognition.tiny import TRAIN, WORDS, make_job, write_shard

CPU = torch.device("cpu")


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[None]:
    """A process group of this process only."""
    torch.set_num_threads(1)  # as a worker on a machine that is busy with others
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'group'}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def a_batch() -> Batch:
    images = np.random.default_rng(1).integers(0, 256, (16, 32, 100, 1), dtype=np.uint8)
    return Batch(images=images, labels=list(WORDS) * 2)


@pytest.mark.usefixtures("alone")
def test_loss_is_pytorchs_mean_by_label_length_over_what_fits(tmp_path: Path) -> None:
    trainer = Trainer(make_job(tmp_path), CPU, 0)
    batch = a_batch()
    losses, logits = trainer.losses(trainer.net, batch, pack(batch.labels, trainer.charset, 25))
    encoded = [trainer.charset.encode(label) for label in batch.labels]
    lengths = torch.tensor([len(row) for row in encoded])
    joined = torch.tensor([number for row in encoded for number in row])
    probabilities = logits.double().log_softmax(2).permute(1, 0, 2)
    expected = ctc_loss(probabilities, joined, torch.full((16,), 25), lengths, reduction="mean")
    assert losses.sum().item() == pytest.approx(expected.item(), rel=1e-5)
    unfit = Batch(images=batch.images, labels=["x" * 25, *batch.labels[1:]])
    losses, _ = trainer.losses(trainer.net, unfit, pack(unfit.labels, trainer.charset, 25))
    assert losses[0] == 0
    assert losses.isfinite().all()


@pytest.mark.usefixtures("alone")
def test_first_step_moves_every_weight_as_adamw_does(tmp_path: Path) -> None:
    """AdamW's first step is rate * (g / (|g| + eps) + decay * w), for biases and normalisation too."""
    job = make_job(tmp_path, train=dataclasses.replace(TRAIN, clip_norm=0.0, weight_decay=0.1))
    trainer, batch = Trainer(job, CPU, 0), a_batch()
    targets = pack(batch.labels, trainer.charset, 25)
    before = {name: weight.detach().clone() for name, weight in trainer.net.named_parameters()}
    trainer.step(batch, targets, rate=0.01)
    for name, weight in trainer.net.named_parameters():
        assert weight.grad is not None
        update = weight.grad / (weight.grad.abs() + 1e-8) + 0.1 * before[name]
        assert torch.allclose(weight, before[name] - 0.01 * update, atol=1e-6), name


@pytest.mark.usefixtures("alone")
def test_gradients_are_clipped_to_the_norm(tmp_path: Path) -> None:
    trainer, batch = Trainer(make_job(tmp_path, train=dataclasses.replace(TRAIN, clip_norm=0.5)), CPU, 0), a_batch()
    trainer.step(batch, pack(batch.labels, trainer.charset, 25), rate=0.01)
    squares = [weight.grad.square().sum().item() for weight in trainer.net.parameters() if weight.grad is not None]
    assert sum(squares) ** 0.5 == pytest.approx(0.5, rel=1e-4)
    assert trainer.pending[0][1] > 0.5  # the norm before clipping is what is recorded


@pytest.mark.usefixtures("alone")
def test_a_step_that_is_not_finite_changes_nothing_and_is_counted(tmp_path: Path) -> None:
    trainer, batch = Trainer(make_job(tmp_path), CPU, 0), a_batch()
    targets = pack(batch.labels, trainer.charset, 25)
    trainer.step(batch, targets, rate=0.01)
    before = {name: weight.detach().clone() for name, weight in trainer.net.named_parameters()}
    broken = dataclasses.replace(targets, weights=np.full(16, np.nan, np.float32))
    trainer.step(batch, broken, rate=0.01)
    assert all(torch.equal(weight, before[name]) for name, weight in trainer.net.named_parameters())
    trainer.step(batch, targets, rate=0.01)
    assert not torch.equal(trainer.net.head.weight, before["head.weight"])
    trainer.flush(3)
    assert (trainer.guard.total, trainer.guard.in_a_row) == (1, 0)


@pytest.mark.usefixtures("alone")
def test_the_loss_falls_and_the_records_agree(tmp_path: Path) -> None:
    words = ("a", "be")
    train = dataclasses.replace(TRAIN, lr=5e-3, warmup_epochs=0.1, amp="O2", validations_per_epoch=4)
    job = dataclasses.replace(
        make_job(tmp_path, train=train),
        train_shards=(write_shard(tmp_path / "words", 960, words),),
        val_shards=(write_shard(tmp_path / "val words", 20, words),),
    )
    Trainer(job, CPU, 0).run()
    outcome = json.loads((tmp_path / "outcome.json").read_text())
    assert (outcome["steps"], outcome["images"]) == (60, 960)
    lines = [json.loads(line)["metrics"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    losses = [metrics["val/loss"] for metrics in lines if "val/loss" in metrics]
    assert len(losses) == 4
    assert losses[-1] < 1.2  # a recogniser that has learnt nothing has log(37), 3.6
    assert outcome["val_accuracy"] == max(metrics.get("val/accuracy", 0) for metrics in lines)
    with np.load(tmp_path / "reference.npz", allow_pickle=False) as reference:
        images, logits = reference["images"], reference["logits"]
    assert images.shape == (20, 32, 100, 1)
    best = checkpoint.load(tmp_path / "best.safetensors")
    assert np.abs(Predictor(best, "cpu")(images) - logits).max() < 1e-5


@pytest.mark.parametrize(
    ("amp", "units", "expected"),
    [
        ("O0", {"amx_bf16": True}, (torch.float32, "float32")),
        (
            "O2",
            {"amx_bf16": True, "avx512_bf16": True},
            (torch.bfloat16, "bfloat16 autocast by amx_bf16, channels_last"),
        ),
        ("O3", {"avx512_bf16": True}, (torch.bfloat16, "bfloat16 autocast by avx512_bf16, channels_last")),
        ("O3", {"avx512_bf16": False}, (torch.float32, "float32: this processor has no bfloat16 unit")),
    ],
)
def test_precision_is_what_the_processor_computes_fast(
    amp: str, units: dict[str, bool], expected: tuple[torch.dtype, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: units)
    assert choose_precision(amp, "cpu") == expected


def launch(job: Job) -> subprocess.CompletedProcess[str]:
    write_job(job.folder / "job.json", job)
    command = frameworks.launch("pytorch", "cpu", job.processes, job.folder / "job.json")
    variables = os.environ | frameworks.environment("pytorch", "cpu", job.processes)
    return subprocess.run(command, env=variables, capture_output=True, text=True, check=False, timeout=120)


def test_two_processes_train_one_model_and_twice_the_same(tmp_path: Path) -> None:
    train = dataclasses.replace(TRAIN, validations_per_epoch=2)
    folders = [tmp_path / name for name in ("first", "second")]
    for folder in folders:
        folder.mkdir()
        result = launch(make_job(folder, train=train, processes=2))
        assert result.returncode == 0, result.stderr
    for name in ("best.safetensors", "last.safetensors"):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()
    outcome = json.loads((folders[0] / "outcome.json").read_text())
    assert (outcome["processes"], outcome["steps"], outcome["images"]) == (2, 4, 64)
    lines = [json.loads(line) for line in (folders[0] / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "val/accuracy" in line["metrics"]] == [2, 4]
    assert all(line["metrics"]["val/accuracy"] * 20 % 1 < 1e-9 for line in lines if "val/accuracy" in line["metrics"])


def test_a_worker_that_fails_says_why(tmp_path: Path) -> None:
    job = dataclasses.replace(make_job(tmp_path, processes=2), val_shards=(tmp_path / "absent.shard",))
    assert launch(job).returncode != 0
    told = [path.read_text() for path in tmp_path.glob("failure.*.txt")]
    assert told
    assert "absent.shard: not a readable" in told[0]
