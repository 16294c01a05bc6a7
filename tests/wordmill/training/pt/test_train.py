import dataclasses
import json
import math
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import ctc_loss

from components.train.launch import launch
from tests import rounding
from tests.waiting import LIMIT_S
from tests.wordmill.training.tiny import MODEL, NARROW, TRAIN, WORDS, make_job, write_set
from wordmill.models import checkpoint
from wordmill.models.pt.predict import Predictor
from wordmill.models.pt.weights import dump
from wordmill.recipe import frameworks
from wordmill.shards.loader import Batch
from wordmill.text.charset import load_charset
from wordmill.text.decoding import AttentionCodec, CtcCodec
from wordmill.training.job import Job, write_job
from wordmill.training.loop import Loop
from wordmill.training.pt.train import Trainer
from wordmill.training.stream import MicroBatch, parts_of
from wordmill.training.targets import Draws, encode_labels
from wordmill.training.validation import score

CPU = torch.device("cpu")
CODEC = CtcCodec(charset=load_charset("lower36"))
STOP = AttentionCodec.STOP
RARE = dataclasses.replace(MODEL, name="rare", max_length=6, decoder_hidden=16)


TOLD = Draws(forced=np.ones(16, np.float32), seeds=np.arange(16, dtype=np.int32))
NO = (False, False)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)  # as a worker on a machine that is busy with others


def a_batch() -> Batch:
    images = np.random.default_rng(1).integers(0, 256, (16, 32, 100, 1), dtype=np.uint8)
    return Batch(images=images, labels=list(WORDS) * 2)


def part_of(batch: Batch) -> MicroBatch:
    return batch, encode_labels(batch.labels, CODEC, 25, TRAIN.loss)


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


def test_first_step_moves_every_weight_as_adamw_does(tmp_path: Path) -> None:
    """AdamW's first step is rate * (g / (|g| + eps) + decay * w), for biases and normalisation too."""
    job = make_job(tmp_path, train=dataclasses.replace(TRAIN, clip_norm=0.0, weight_decay=0.1))
    trainer, batch = Trainer(job, CPU, 0), a_batch()
    before = {name: weight.detach().clone() for name, weight in trainer.net.named_parameters()}
    trainer.step(1, [part_of(batch)], 0.01, NO)
    for name, weight in trainer.net.named_parameters():
        assert weight.grad is not None
        update = weight.grad / (weight.grad.abs() + 1e-8) + 0.1 * before[name]
        assert torch.allclose(weight, before[name] - 0.01 * update, atol=1e-6), name


def test_gradients_are_clipped_to_the_norm(tmp_path: Path) -> None:
    trainer, batch = Trainer(make_job(tmp_path, train=dataclasses.replace(TRAIN, clip_norm=0.5)), CPU, 0), a_batch()
    result = trainer.result(trainer.step(1, [part_of(batch)], 0.01, NO))
    squares = [weight.grad.square().sum().item() for weight in trainer.net.parameters() if weight.grad is not None]
    assert sum(squares) ** 0.5 == pytest.approx(0.5, rel=1e-4)
    assert result.norm > 0.5  # the norm before clipping is what is recorded


def test_gradients_whose_norm_overflows_are_left_out_by_weights_statistics_and_scale_alike(tmp_path: Path) -> None:
    trainer = Trainer(make_job(tmp_path, train=dataclasses.replace(TRAIN, clip_norm=0.0, ema_decay=0.9)), CPU, 0)
    before = trainer.state()
    for weight in trainer.net.parameters():
        weight.register_hook(lambda gradient: torch.full_like(gradient, 1e25))  # finite, its square is not
    result = trainer.result(trainer.step(1, [part_of(a_batch())], 0.01, NO))
    assert math.isinf(result.norm)
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in trainer.net.parameters())
    after = trainer.state()
    changed = [name for name in before if not np.array_equal(before[name], after[name])]
    assert changed == []


def test_wishes_are_passed_on(tmp_path: Path) -> None:
    trainer, parts = Trainer(make_job(tmp_path), CPU, 0), [part_of(a_batch())]
    for asked in (NO, (True, False), (False, True)):
        result = trainer.result(trainer.step(1, parts, 0.01, asked))
        assert (result.save, result.stop) == asked


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "adadelta", "lion", "muon"])
def test_a_step_that_is_not_finite_in_any_part_changes_nothing(optimizer: str, tmp_path: Path) -> None:
    train = dataclasses.replace(TRAIN, accumulation=2, optimizer=optimizer, ema_decay=0.9)
    trainer = Trainer(make_job(tmp_path, train=train), CPU, 0)
    good = parts_of(a_batch(), train, CODEC, 25, TOLD)
    trainer.step(1, good, 0.01, NO)
    before = trainer.state()
    batch, targets = good[0]
    broken = dataclasses.replace(targets, weights=np.full(8, np.nan, np.float32))
    result = trainer.result(trainer.step(2, [(batch, broken), good[1]], 0.01, NO))
    assert not np.isfinite(result.norm)
    after = trainer.state()
    assert all(np.array_equal(after[name], tensor) for name, tensor in before.items())
    assert np.isfinite(trainer.result(trainer.step(3, good, 0.01, NO)).norm)
    assert not np.array_equal(trainer.state()["model/head.weight"], before["model/head.weight"])


def test_the_parts_of_a_batch_make_the_whole_batchs_step(tmp_path: Path) -> None:
    """By characters, of which the parts have different numbers; with running statistics, else each has its own."""
    steps = []
    for parts in (1, 4):
        train = dataclasses.replace(TRAIN, accumulation=parts, loss="cross_entropy", clip_norm=0.0)
        job = dataclasses.replace(make_job(tmp_path, train=train, data=NARROW), model=RARE)
        trainer = Trainer(job, CPU, 0)
        for norm in trainer.net.modules():
            norm.train(not isinstance(norm, torch.nn.BatchNorm2d))
        labels = sorted(a_batch().labels, key=len)
        batch = Batch(images=a_batch().images[:, :, : NARROW.width], labels=labels)
        split = parts_of(batch, train, trainer.codec, 7, TOLD)
        if parts == 1:
            exact = rounding.measure(trainer.net, lambda net: trainer.losses(net, split[0])[0].sum())  # noqa: B023
        result = trainer.result(trainer.step(1, split, 0.0, NO))
        steps.append(result)
        exact.assert_near(rounding.gradients(trainer.net))
    whole, parted = steps
    assert (parted.loss, parted.norm) == pytest.approx((whole.loss, whole.norm), rel=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="what waits for a device shows on a GPU alone")
@pytest.mark.parametrize("flat", [0.0, 0.5], ids=["ctc", "flat-start"])
def test_no_part_of_a_step_waits_for_the_gpu(flat: float, tmp_path: Path) -> None:
    job = dataclasses.replace(make_job(tmp_path), device="cuda")
    trainer = Trainer(job, torch.device("cuda", 0), 0)
    parts = parts_of(a_batch(), job.train, CODEC, 25, TOLD, flat)
    trainer.result(trainer.step(1, parts, 0.0, NO))  # the first one builds what the others use
    torch.cuda.set_sync_debug_mode("error")
    try:
        handle = trainer.step(2, parts, 0.0, NO)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert np.isfinite(trainer.result(handle).loss)


def test_the_average_is_what_is_scored_and_kept(tmp_path: Path) -> None:
    trainer = Trainer(make_job(tmp_path, train=dataclasses.replace(TRAIN, ema_decay=0.9)), CPU, 0)
    start = dump(trainer.net)
    trainer.step(2000, [part_of(a_batch())], 0.01, NO)  # decay 0.9 * (1 - exp(-1)) = 0.568908503
    trained, kept, state = dump(trainer.net), trainer.weights(), trainer.state()
    for name, tensor in kept.items():
        expected = 0.568908503 * start[name] + 0.431091497 * trained[name]
        assert np.allclose(tensor, trained[name] if ".running_" in name else expected, atol=1e-6), name
    assert not np.allclose(kept["head.weight"], trained["head.weight"], atol=1e-3)
    beats: list[int] = []
    found = score(trainer, kept, lambda: beats.append(1))
    assert (found.total, found.samples, len(beats)) == (20, 20, 1)
    averaged = dump(trainer.scored)
    assert all(np.array_equal(averaged[name], tensor) for name, tensor in kept.items())
    assert all(np.array_equal(trainer.state()[name], tensor) for name, tensor in state.items())
    other = score(trainer, {name: 2 * tensor for name, tensor in kept.items()}, lambda: None)
    assert other.loss_sum != pytest.approx(found.loss_sum, rel=1e-3)


def test_training_starts_from_the_weights_of_a_file_or_says_what_does_not_fit(tmp_path: Path) -> None:
    job, path = make_job(tmp_path, train=dataclasses.replace(TRAIN, start_from="other")), tmp_path / "start.safetensors"
    tensors = {name: tensor + 1 for name, tensor in dump(Trainer(job, CPU, 0).net).items()}
    state = checkpoint.Checkpoint(tensors=tensors, data=job.data, model=job.model, train=job.train, step=1)
    checkpoint.save(path, state)
    job = dataclasses.replace(job, start=path)
    started = dump(Trainer(job, CPU, 0).net)
    assert all(np.array_equal(started[name], tensor) for name, tensor in tensors.items())
    union = dataclasses.replace(job.train, start_charset="union")
    other = dataclasses.replace(job, data=dataclasses.replace(job.data, space=True), train=union)
    grown = dump(Trainer(other, CPU, 0).net)
    assert np.array_equal(grown["head.bias"][:37], tensors["head.bias"])
    assert grown["head.bias"][37] == pytest.approx(tensors["head.bias"][1:].mean())

    del tensors["head.bias"]
    checkpoint.save(path, dataclasses.replace(state, tensors=tensors))
    with pytest.raises(ValueError, match=rf"train.start_from other, file {path}: .* missing \['head.bias'\]"):
        Trainer(job, CPU, 0)


def test_a_decoder_is_forced_by_its_coins_in_training_and_never_when_scored(tmp_path: Path) -> None:
    train = dataclasses.replace(TRAIN, loss="cross_entropy")
    trainer = Trainer(dataclasses.replace(make_job(tmp_path, train=train), model=RARE), CPU, 0)
    assert trainer.steps == 7
    batch = a_batch()
    coins = [dataclasses.replace(TOLD, forced=np.full(16, forced, np.float32)) for forced in (0.0, 1.0)]
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


def test_the_loss_falls_and_the_records_agree(tmp_path: Path) -> None:
    words = ("a", "be")
    train = dataclasses.replace(TRAIN, lr=5e-3, warmup_epochs=0.1, amp="O2", validations_per_epoch=4)
    job = dataclasses.replace(
        make_job(tmp_path, train=train, data=NARROW),
        train_sets=(write_set(tmp_path / "words", 960, words, NARROW.width),),
        val_sets=(write_set(tmp_path / "val words", 20, words, NARROW.width),),
    )
    write_job(tmp_path / "job.json", job)
    trainer = Trainer(job, CPU, 0)
    assert Loop(trainer).run()
    outcome = json.loads((tmp_path / "outcome.json").read_text())
    assert (outcome["steps"], outcome["images"], outcome["parameters"]) == (60, 960, 1_285_093)
    assert outcome["versions"]["torch"] == torch.__version__
    lines = [json.loads(line)["metrics"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    losses = [metrics["val/loss"] for metrics in lines if "val/loss" in metrics]
    assert len(losses) == 4
    assert losses[-1] < 1.2  # a recogniser that has learnt nothing has log(37), 3.6
    assert outcome["val_accuracy"] == max(metrics.get("val/accuracy", 0) for metrics in lines)
    with np.load(tmp_path / "reference.npz", allow_pickle=False) as reference:
        images, logits = reference["images"], reference["logits"]
    assert images.shape == (20, 32, 32, 1)
    best = checkpoint.load(tmp_path / "best.safetensors")
    assert np.abs(Predictor(best, "cpu")(images) - logits).max() < 1e-5


def train_by(job: Job) -> subprocess.CompletedProcess[str]:
    write_job(job.folder / "job.json", job)
    command = launch("pytorch", "cpu", job.processes, job.folder / "job.json")
    variables = os.environ | frameworks.environment("pytorch", "cpu", job.processes)
    return subprocess.run(command, env=variables, capture_output=True, text=True, check=False, timeout=LIMIT_S)


def test_torchrun_trains_one_model_on_two_processes(tmp_path: Path) -> None:
    train = dataclasses.replace(TRAIN, validations_per_epoch=2, profile=1)
    result = train_by(make_job(tmp_path, train=train, processes=2))
    assert result.returncode == 0, result.stderr
    outcome = json.loads((tmp_path / "outcome.json").read_text())
    assert (outcome["processes"], outcome["steps"], outcome["images"]) == (2, 4, 64)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    scored = [line for line in lines if "val/accuracy" in line["metrics"]]
    assert [line["step"] for line in scored] == [2, 4]
    assert all(line["metrics"]["val/accuracy"] * 20 % 1 < 1e-9 for line in scored)
    assert len(list((tmp_path / "trace").glob("process-0.*.pt.trace.json"))) == 1


def test_a_worker_that_fails_says_why(tmp_path: Path) -> None:
    job = dataclasses.replace(make_job(tmp_path, processes=2), val_sets=(tmp_path / "absent.npz",))
    assert train_by(job).returncode != 0
    told = [path.read_text() for path in tmp_path.glob("failure.*.txt")]
    assert told
    assert "absent.npz: not a readable" in told[0]


def test_a_guide_is_gone_on_with_and_left_out_of_everything_else(tmp_path: Path) -> None:
    trainer = Trainer(make_job(tmp_path, train=dataclasses.replace(TRAIN, guide=1.0, ema_decay=0.9)), CPU, 0)
    trainer.result(trainer.step(1, [part_of(a_batch())], 1e-3, NO))
    state, weights = trainer.state(), trainer.weights()
    kept = {name.split("/")[0] for name in state if "guide." in name}
    assert kept == {"model", "optimizer", "average"}
    assert not [name for name in weights if "guide" in name]
    assert set(weights) == set(dump(trainer.scored))
    assert trainer.facts()["parameters"] == 1_285_093
    assert np.isfinite(trainer.scorer(weights)(part_of(a_batch()))[0])
