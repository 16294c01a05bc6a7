import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.recognition.ms import ms  # isort: skip  # before anything imports MindSpore
from components.recognition.loader import Batch
from components.recognition.ms import model as ms_model
from components.recognition.ms import optimisers as ms_optimisers
from components.recognition.ms import weights as ms_weights
from components.recognition.ms.step import Gradients, LossScale, Objective, Update
from components.recognition.ms.train import tensors_of
from components.recognition.pt import weights as pt_weights
from components.recognition.pt.train import Trainer
from components.recognition.recipe import Model
from components.recognition.targets import Draws
from components.recognition.training import parts_of
from tests.recognition.tiny import DATA, MODEL, TRAIN, WORDS, make_job

RARE = dataclasses.replace(MODEL, name="rare", max_length=6, decoder_hidden=16)
TOLD = Draws(forced=np.ones(16, np.float32), seeds=np.zeros(16, np.int32))


def batch_of(seed: int) -> Batch:
    """Return pictures of noise, of which no two places are alike: where pooling finds equals, tastes differ."""
    images = np.random.default_rng(seed).integers(0, 256, (16, 32, 100, 1), dtype=np.uint8)
    return Batch(images=images, labels=list(WORDS) * 2)


def gradients_of(trainer: Trainer) -> dict[str, np.ndarray]:
    return {name: weight.grad.numpy() for name, weight in trainer.net.named_parameters()}


@pytest.mark.parametrize(("model", "loss"), [(MODEL, "ctc"), (RARE, "cross_entropy")], ids=["crnn", "rare"])
def test_the_parts_of_a_batch_have_the_same_loss_and_the_same_mean_gradients(
    model: Model, loss: str, tmp_path: Path
) -> None:
    train = dataclasses.replace(TRAIN, accumulation=2, loss=loss, clip_norm=0.0)
    trainer = Trainer(dataclasses.replace(make_job(tmp_path, train=train), model=model), torch.device("cpu"), 0)
    net = ms_model.build(model, DATA, trainer.codec.classes)
    ms_weights.load(net, pt_weights.dump(trainer.net), "PyTorch's weights")
    drawn = Draws(forced=np.array([0, 1, 1, 0] * 4, np.float32), seeds=np.arange(16, dtype=np.int32))
    # With this seed no activation is so near 0 that rounding decides whether ReLU lets its gradient pass.
    batch = dataclasses.replace(batch_of(0), labels=sorted(WORDS * 2, key=len))  # the second part has more characters
    parts = parts_of(batch, train, trainer.codec, trainer.steps, drawn)
    counts = [targets.counted for _, targets in parts]
    assert (counts[0] == counts[1]) == (loss == "ctc")
    look = trainer.look(trainer.step(1, parts, 0.0, (False, False)))

    gradients = Gradients(Objective(net, DATA.middle), LossScale(1.0, dynamic=False)).set_train()
    mean, nothing = ms.Tensor([sum(counts) / 2], ms.float32), ms.Tensor([0, 0], ms.float32)
    vectors = [gradients(ms.Tensor([part[1].counted], ms.float32), mean, nothing, *tensors_of(part)) for part in parts]
    vector = (sum(vectors) / 2).asnumpy()[:-2]
    assert vector[-1] == pytest.approx(look.loss, abs=1e-4)
    expected, own = gradients_of(trainer), ms_weights.dump(net)
    names = [name for name in own if name in expected]  # in MindSpore's order
    found = np.split(vector[:-1], np.cumsum([own[name].size for name in names])[:-1])
    for name, gradient in zip(names, found, strict=True):
        assert np.abs(expected[name].ravel() - gradient).max() <= 2e-4 * np.abs(expected[name]).max(), name
    running = {name: tensor for name, tensor in pt_weights.dump(trainer.net).items() if name not in expected}
    assert all(np.allclose(own[name], tensor, rtol=1e-4, atol=1e-5) for name, tensor in running.items())


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "adadelta", "lion"])
def test_the_same_gradients_make_the_same_weights(optimizer: str, tmp_path: Path) -> None:
    """MindSpore updates by PyTorch's gradients: those that are rounding alone would differ, and Lion goes by signs."""
    train = dataclasses.replace(
        TRAIN, optimizer=optimizer, lr=1.0 if optimizer == "adadelta" else 1e-2, clip_norm=0.0, warmup_epochs=0.25,
        weight_decay=0.1, decay_all=False,
    )  # fmt: skip
    trainer = Trainer(make_job(tmp_path, train=train), torch.device("cpu"), 0)
    start = pt_weights.dump(trainer.net)
    net = ms_model.build(MODEL, DATA, trainer.codec.classes)
    ms_weights.load(net, start, "PyTorch's weights")
    scale = LossScale(1.0, dynamic=False)
    update = Update(net, ms_optimisers.build(net, train), scale, train.clip_norm, parts=1, processes=1)
    for step, rate in enumerate([train.lr, *trainer.course.plan.rates[1:3].tolist()]):  # a constant one, the cosine's
        parts = parts_of(batch_of(step), train, trainer.codec, 25, TOLD)
        look = trainer.look(trainer.step(step + 1, parts, rate, (False, False)))
        gradients = gradients_of(trainer)
        inorder = [gradients[name].ravel() for name in ms_weights.dump(net) if name in gradients]
        vector = np.concatenate([*inorder, [look.loss, 0, 0]]).astype(np.float32)
        result = update(ms.Tensor(vector), ms.Tensor(rate, ms.float32)).asnumpy()
        assert result == pytest.approx([look.loss, look.norm, 0, 0], rel=1e-5)
    left, right = pt_weights.dump(trainer.net), ms_weights.dump(net)
    for name in gradients:
        moved, rounding = np.abs(left[name] - start[name]).max(), 6 * np.spacing(np.abs(left[name]).max())
        assert moved > rounding, name
        assert np.abs(left[name] - right[name]).max() <= 1e-3 * moved + rounding, name
