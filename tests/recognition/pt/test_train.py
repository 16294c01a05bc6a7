import dataclasses
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.nn.functional import ctc_loss

from components.recognition import checkpoint, frameworks
from components.recognition.charset import load_charset
from components.recognition.decoding import AttentionCodec, CtcCodec
from components.recognition.loader import Batch
from components.recognition.pt.predict import Predictor
from components.recognition.pt.train import Trainer, tensors_of
from components.recognition.pt.weights import dump
from components.recognition.targets import pack
from components.recognition.training import Job, Part, parts_of, training_stream, write_job
from tests.recognition.tiny import MODEL, TRAIN, WORDS, make_job, write_set

CPU = torch.device("cpu")
CODEC = CtcCodec(charset=load_charset("lower36"))
STOP = AttentionCodec.STOP


@contextmanager
def group(folder: Path) -> Iterator[None]:
    """A process group of this process only."""
    torch.set_num_threads(1)  # as a worker on a machine that is busy with others
    dist.init_process_group("gloo", init_method=f"file://{folder / 'group'}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[None]:
    with group(tmp_path):
        yield


def a_batch() -> Batch:
    images = np.random.default_rng(1).integers(0, 256, (16, 32, 100, 1), dtype=np.uint8)
    return Batch(images=images, labels=list(WORDS) * 2)


def part_of(batch: Batch) -> Part:
    return batch, pack(batch.labels, CODEC, 25, TRAIN.loss)


@pytest.mark.usefixtures("alone")
def test_loss_is_pytorchs_mean_by_label_length_over_what_fits(tmp_path: Path) -> None:
    trainer = Trainer(make_job(tmp_path), CPU, 0)
    batch = a_batch()
    losses, logits = trainer.losses(trainer.net, part_of(batch))
    encoded = [trainer.codec.encode(label) for label in batch.labels]
    lengths = torch.tensor([len(row) for row in encoded])
    joined = torch.tensor([number for row in encoded for number in row])
    probabilities = logits.double().log_softmax(2).permute(1, 0, 2)
    expected = ctc_loss(probabilities, joined, torch.full((16,), 25), lengths, reduction="mean")
    assert losses.sum().item() == pytest.approx(expected.item(), rel=1e-5)
    unfit = Batch(images=batch.images, labels=["x" * 25, *batch.labels[1:]])
    losses, _ = trainer.losses(trainer.net, part_of(unfit))
    assert losses[0] == 0
    assert losses.isfinite().all()


def test_batches_travel_to_a_device_out_of_pinned_memory_without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    pinned: list[torch.Tensor] = []
    sent: list[tuple[torch.Tensor, torch.device, bool]] = []

    def pin(tensor: torch.Tensor) -> torch.Tensor:
        pinned.append(tensor.clone())
        return pinned[-1]

    def to(tensor: torch.Tensor, device: torch.device, *, non_blocking: bool) -> torch.Tensor:
        sent.append((tensor, device, non_blocking))
        return tensor

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    monkeypatch.setattr(torch.Tensor, "to", to)
    part, device = part_of(a_batch()), torch.device("cuda", 3)
    found = tensors_of(part, device)
    batch, targets = part
    expected = (batch.images, targets.classes, targets.lengths, targets.weights, targets.forced)
    assert [tensor.numpy().tolist() for tensor in found] == [array.tolist() for array in expected]
    assert [tensor is source for (tensor, _, _), source in zip(sent, pinned, strict=True)] == [True] * 5
    assert {(place, soon) for _, place, soon in sent} == {(device, True)}
    pinned.clear()
    assert tensors_of(part, CPU)[0].data_ptr() == batch.images.ctypes.data  # no copy
    assert not pinned


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_batches_arrive_on_a_gpu_as_they_were() -> None:
    part = part_of(a_batch())
    for tensor, array in zip(tensors_of(part, torch.device("cuda")), (part[0].images, part[1].classes), strict=False):
        assert tensor.is_cuda
        assert (tensor.cpu().numpy() == array).all()


@pytest.mark.usefixtures("alone")
def test_first_step_moves_every_weight_as_adamw_does(tmp_path: Path) -> None:
    """AdamW's first step is rate * (g / (|g| + eps) + decay * w), for biases and normalisation too."""
    job = make_job(tmp_path, train=dataclasses.replace(TRAIN, clip_norm=0.0, weight_decay=0.1))
    trainer, batch = Trainer(job, CPU, 0), a_batch()
    before = {name: weight.detach().clone() for name, weight in trainer.net.named_parameters()}
    trainer.step([part_of(batch)], rate=0.01)
    for name, weight in trainer.net.named_parameters():
        assert weight.grad is not None
        update = weight.grad / (weight.grad.abs() + 1e-8) + 0.1 * before[name]
        assert torch.allclose(weight, before[name] - 0.01 * update, atol=1e-6), name


@pytest.mark.usefixtures("alone")
def test_gradients_are_clipped_to_the_norm(tmp_path: Path) -> None:
    trainer, batch = Trainer(make_job(tmp_path, train=dataclasses.replace(TRAIN, clip_norm=0.5)), CPU, 0), a_batch()
    trainer.step([part_of(batch)], rate=0.01)
    squares = [weight.grad.square().sum().item() for weight in trainer.net.parameters() if weight.grad is not None]
    assert sum(squares) ** 0.5 == pytest.approx(0.5, rel=1e-4)
    assert trainer.pending[0][1] > 0.5  # the norm before clipping is what is recorded


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("optimizer", ["adamw", "adam", "adadelta", "lion"])
def test_a_step_that_is_not_finite_in_any_part_changes_nothing_and_is_counted(optimizer: str, tmp_path: Path) -> None:
    train = dataclasses.replace(TRAIN, accumulation=2, optimizer=optimizer)
    trainer = Trainer(make_job(tmp_path, train=train), CPU, 0)
    good = parts_of(a_batch(), train, CODEC, 25, np.ones(16, np.float32))
    trainer.step(good, rate=0.01)
    before = {name: weight.detach().clone() for name, weight in trainer.net.named_parameters()}
    batch, targets = good[0]
    broken = dataclasses.replace(targets, weights=np.full(8, np.nan, np.float32))
    trainer.step([(batch, broken), good[1]], rate=0.01)
    assert all(torch.equal(weight, before[name]) for name, weight in trainer.net.named_parameters())
    trainer.step(good, rate=0.01)
    assert not torch.equal(trainer.net.head.weight, before["head.weight"])
    trainer.flush(3)
    assert (trainer.guard.total, trainer.guard.in_a_row) == (1, 0)


@pytest.mark.usefixtures("alone")
def test_the_parts_of_a_batch_make_the_whole_batchs_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = []
    for parts in (1, 4):
        train = dataclasses.replace(TRAIN, accumulation=parts)
        trainer = Trainer(make_job(tmp_path, train=train), CPU, 0)
        # Batch normalisation by running statistics: by its own ones each part would be normalised by itself.
        trainer.net.eval()
        monkeypatch.setattr(trainer.net, "train", lambda: None)
        trainer.step(parts_of(a_batch(), train, CODEC, 25, np.ones(16, np.float32)), rate=0.01)
        steps.append((trainer.pending[0], [weight.grad for weight in trainer.net.parameters()]))
    (whole, expected), (parted, found) = steps
    assert torch.allclose(parted, whole, rtol=1e-5)
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-5 * other.abs().max().item())


@pytest.mark.usefixtures("alone")
def test_the_average_is_what_is_scored_and_kept(tmp_path: Path) -> None:
    trainer = Trainer(make_job(tmp_path, train=dataclasses.replace(TRAIN, ema_decay=0.9)), CPU, 0)
    assert trainer.average is not None
    start = dump(trainer.net)
    trainer.step([part_of(a_batch())], rate=0.01)
    trainer.average(2000)  # decay 0.9 * (1 - exp(-1)) = 0.568908503
    trainer.validate(4)
    trained, last = dump(trainer.net), checkpoint.load(tmp_path / "last.safetensors")
    for name, tensor in last.tensors.items():
        expected = 0.568908503 * start[name] + 0.431091497 * trained[name]
        assert np.allclose(tensor, trained[name] if ".running_" in name else expected, atol=1e-6), name
    assert not np.allclose(last.tensors["head.weight"], trained["head.weight"], atol=1e-3)
    averaged = dump(trainer.scored)
    assert all(np.array_equal(averaged[name], tensor) for name, tensor in last.tensors.items())


@pytest.mark.usefixtures("alone")
def test_training_starts_from_the_weights_of_a_file_or_says_what_does_not_fit(tmp_path: Path) -> None:
    job, path = make_job(tmp_path, train=dataclasses.replace(TRAIN, start_from="other")), tmp_path / "start.safetensors"
    tensors = {name: tensor + 1 for name, tensor in dump(Trainer(job, CPU, 0).net).items()}
    state = checkpoint.Checkpoint(tensors=tensors, data=job.data, model=job.model, train=job.train, step=1)
    checkpoint.save(path, state)
    job = dataclasses.replace(job, start=path)
    started = dump(Trainer(job, CPU, 0).net)
    assert all(np.array_equal(started[name], tensor) for name, tensor in tensors.items())

    del tensors["head.bias"]
    checkpoint.save(path, dataclasses.replace(state, tensors=tensors))
    with pytest.raises(ValueError, match=rf"train.start_from other, file {path}: .* missing \['head.bias'\]"):
        Trainer(job, CPU, 0)


@pytest.mark.usefixtures("alone")
def test_a_decoder_is_forced_by_its_coins_in_training_and_never_when_scored(tmp_path: Path) -> None:
    train = dataclasses.replace(TRAIN, loss="cross_entropy")
    model = dataclasses.replace(MODEL, name="rare", max_length=6, decoder_hidden=16)
    trainer = Trainer(dataclasses.replace(make_job(tmp_path, train=train), model=model), CPU, 0)
    assert trainer.steps == 7
    batch = a_batch()
    coins = [np.full(16, forced, np.float32) for forced in (0.0, 1.0)]
    parts = [parts_of(batch, train, trainer.codec, 7, forced)[0] for forced in coins]
    trained = []
    for part in parts:
        losses, logits = trainer.losses(trainer.net.train(), part)
        trained.append(logits)
        likely = logits.double().log_softmax(2)
        expected = [
            -sum(likely[n, step, number].item() for step, number in enumerate([*trainer.codec.encode(label), STOP]))
            for n, label in enumerate(batch.labels)
        ]
        characters = sum(len(label) + 1 for label in batch.labels)
        assert losses.sum().item() == pytest.approx(sum(expected) / characters, rel=1e-5)
    assert not torch.allclose(trained[0], trained[1], atol=1e-4)
    scored = [trainer.losses(trainer.net.eval(), part)[1] for part in parts]
    assert torch.equal(scored[0], scored[1])


@pytest.mark.usefixtures("alone")
def test_the_loss_falls_and_the_records_agree(tmp_path: Path) -> None:
    words = ("a", "be")
    train = dataclasses.replace(TRAIN, lr=5e-3, warmup_epochs=0.1, amp="O2", validations_per_epoch=4)
    job = dataclasses.replace(
        make_job(tmp_path, train=train),
        train_sets=(write_set(tmp_path / "words", 960, words),),
        val_sets=(write_set(tmp_path / "val words", 20, words),),
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


def test_two_processes_add_up_the_gradients_of_all_their_parts(tmp_path: Path) -> None:
    train = dataclasses.replace(TRAIN, accumulation=2, clip_norm=0.0, optimizer="adadelta", lr=1.0)
    job = make_job(tmp_path, train=train, samples=16, processes=2)
    result = launch(job)
    assert result.returncode == 0, result.stderr
    last = checkpoint.load(tmp_path / "last.safetensors").tensors

    alone = dataclasses.replace(job, processes=1, train=dataclasses.replace(train, accumulation=4))
    with group(tmp_path):
        trainer = Trainer(alone, CPU, 0)
        before = dump(trainer.net)
        stream = training_stream(alone, trainer.plan, trainer.train_set, CODEC, 25, 0)
        trainer.step(next(stream), rate=1.0)
    for name, tensor in dump(trainer.net).items():
        if ".running_" not in name:
            assert np.allclose(last[name], tensor, atol=1e-3 * np.abs(tensor - before[name]).max()), name


def test_a_worker_that_fails_says_why(tmp_path: Path) -> None:
    job = dataclasses.replace(make_job(tmp_path, processes=2), val_sets=(tmp_path / "absent.npz",))
    assert launch(job).returncode != 0
    told = [path.read_text() for path in tmp_path.glob("failure.*.txt")]
    assert told
    assert "absent.npz: not a readable" in told[0]
