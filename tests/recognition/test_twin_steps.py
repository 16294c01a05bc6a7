import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist

from tests.recognition.ms import ms  # isort: skip  # before anything imports MindSpore
from components.recognition.loader import Batch
from components.recognition.ms import model as ms_model
from components.recognition.ms import optimisers as ms_optimisers
from components.recognition.ms import weights as ms_weights
from components.recognition.ms.step import Gradients, Objective, Update
from components.recognition.ms.train import tensors_of
from components.recognition.pt import weights as pt_weights
from components.recognition.pt.train import Trainer
from components.recognition.recipe import Model
from components.recognition.training import parts_of
from tests.recognition.tiny import DATA, MODEL, TRAIN, WORDS, make_job

RARE = dataclasses.replace(MODEL, name="rare", max_length=6, decoder_hidden=16)
STEPS = 3


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[None]:
    """A process group of this process only."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'group'}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def batch_of(seed: int) -> Batch:
    """Return pictures of noise, of which no two places are alike: where pooling finds equals, tastes differ."""
    images = np.random.default_rng(seed).integers(0, 256, (16, 32, 100, 1), dtype=np.uint8)
    return Batch(images=images, labels=list(WORDS) * 2)


def gradients_of(trainer: Trainer) -> dict[str, np.ndarray]:
    return {name: weight.grad.numpy() for name, weight in trainer.net.named_parameters()}


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize(("model", "loss"), [(MODEL, "ctc"), (RARE, "cross_entropy")], ids=["crnn", "rare"])
def test_the_parts_of_a_batch_have_the_same_loss_and_the_same_mean_gradients(
    model: Model, loss: str, tmp_path: Path
) -> None:
    train = dataclasses.replace(TRAIN, accumulation=2, loss=loss, clip_norm=0.0)
    trainer = Trainer(dataclasses.replace(make_job(tmp_path, train=train), model=model), torch.device("cpu"), 0)
    net = ms_model.build(model, DATA, trainer.codec.classes)
    ms_weights.load(net, pt_weights.dump(trainer.net), "PyTorch's weights")
    forced = np.array([0, 1, 1, 0] * 4, dtype=np.float32)
    # With this seed no activation is so near 0 that rounding decides whether ReLU lets its gradient pass.
    parts = parts_of(batch_of(0), train, trainer.codec, trainer.steps, forced)
    trainer.step(parts, 0.0)

    gradients = Gradients(Objective(net, DATA.middle), 1.0).set_train()
    vector = (sum(gradients(*tensors_of(part)) for part in parts) / 2).asnumpy()
    assert vector[-1] == pytest.approx(trainer.pending[0][0].item(), abs=1e-4)
    expected, own = gradients_of(trainer), ms_weights.dump(net)
    names = [name for name in own if name in expected]  # in MindSpore's order
    found = np.split(vector[:-1], np.cumsum([own[name].size for name in names])[:-1])
    for name, gradient in zip(names, found, strict=True):
        assert np.abs(expected[name].ravel() - gradient).max() <= 2e-4 * np.abs(expected[name]).max(), name
    running = {name: tensor for name, tensor in pt_weights.dump(trainer.net).items() if name not in expected}
    assert all(np.allclose(own[name], tensor, rtol=1e-4, atol=1e-5) for name, tensor in running.items())


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("schedule", ["constant", "warmup_cosine"])
@pytest.mark.parametrize("optimizer", ["adamw", "adam", "adadelta", "lion"])
def test_the_same_gradients_make_the_same_weights(optimizer: str, schedule: str, tmp_path: Path) -> None:
    """MindSpore updates by PyTorch's gradients: those that are rounding alone would differ, and Lion goes by signs."""
    train = dataclasses.replace(
        TRAIN, optimizer=optimizer, schedule=schedule, lr=1.0 if optimizer == "adadelta" else 1e-2, clip_norm=0.0,
        warmup_epochs=0.25 if schedule == "warmup_cosine" else 0.0, weight_decay=0.1, decay_all=False,
    )  # fmt: skip
    trainer = Trainer(make_job(tmp_path, train=train), torch.device("cpu"), 0)
    start = pt_weights.dump(trainer.net)
    net = ms_model.build(MODEL, DATA, trainer.codec.classes)
    ms_weights.load(net, start, "PyTorch's weights")
    update = Update(ms_optimisers.build(net, train), train.clip_norm, 1.0, processes=1)
    for step, rate in enumerate(trainer.plan.rates[:STEPS].tolist()):
        trainer.step(parts_of(batch_of(step), train, trainer.codec, 25, np.ones(16, np.float32)), rate)
        loss, norm = trainer.pending[-1].tolist()
        gradients = gradients_of(trainer)
        inorder = [gradients[name].ravel() for name in ms_weights.dump(net) if name in gradients]
        vector = np.concatenate([*inorder, [loss]]).astype(np.float32)
        result = update(ms.Tensor(vector), ms.Tensor(rate, ms.float32)).asnumpy()
        assert result == pytest.approx([loss, norm], rel=1e-5)
    left, right = pt_weights.dump(trainer.net), ms_weights.dump(net)
    for name in gradients:
        moved, rounding = np.abs(left[name] - start[name]).max(), 6 * np.spacing(np.abs(left[name]).max())
        assert moved > rounding, name
        assert np.abs(left[name] - right[name]).max() <= 1e-3 * moved + rounding, name
