import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.wordmill.models.ms import ms  # isort: skip  # before anything imports MindSpore
from tests import rounding
from tests.wordmill.training.ms import shallow as ms_shallow
from tests.wordmill.training.pt import shallow as pt_shallow
from tests.wordmill.training.tiny import DATA, MODEL, NARROW, TRAIN, WORDS, make_job
from wordmill.models.ms import backbones as ms_backbones
from wordmill.models.ms import model as ms_model
from wordmill.models.ms import weights as ms_weights
from wordmill.models.pt import backbones as pt_backbones
from wordmill.models.pt import weights as pt_weights
from wordmill.recipe.sections import Model, Train
from wordmill.shards.loader import Batch
from wordmill.training.ms import optimisers as ms_optimisers
from wordmill.training.ms.step import Gradients, LossScale, Objective, Update
from wordmill.training.ms.train import tensors_of
from wordmill.training.pt.train import Trainer
from wordmill.training.stream import parts_of
from wordmill.training.targets import Draws

RARE = dataclasses.replace(MODEL, name="rare", max_length=5, decoder_hidden=16)
SAMPLES = len(WORDS)
TOLD = Draws(forced=np.ones(SAMPLES, np.float32), seeds=np.zeros(SAMPLES, np.int32))


def batch_of(seed: int, width: int = DATA.width) -> Batch:
    """Return pictures of noise, of which no two places are alike: where pooling finds equals, tastes differ."""
    images = np.random.default_rng(seed).integers(0, 256, (SAMPLES, 32, width, 1), dtype=np.uint8)
    return Batch(images=images, labels=list(WORDS))


@pytest.mark.arithmetic
@pytest.mark.parametrize(
    ("model", "loss", "flat", "guide"),
    [(MODEL, "ctc", 0.0, 0.0), (MODEL, "ctc", 0.25, 0.0), (MODEL, "ctc", 0.25, 0.5), (RARE, "cross_entropy", 0.0, 0.0)],
    ids=["crnn", "crnn-flat-start", "crnn-guided", "rare"],
)
def test_the_parts_of_a_batch_have_the_same_loss_and_the_same_mean_gradients(
    model: Model, loss: str, flat: float, guide: float, tmp_path: Path
) -> None:
    train = dataclasses.replace(TRAIN, accumulation=2, loss=loss, clip_norm=0.0, guide=guide)
    job = dataclasses.replace(make_job(tmp_path, train=train, data=NARROW), model=model)
    trainer = Trainer(job, torch.device("cpu"), 0)
    net = ms_model.build(model, NARROW, trainer.codec.classes)
    if guide:
        ms_model.add_guide(net, trainer.codec.classes, trainer.steps)
    ms_weights.load_weights(net, pt_weights.dump(trainer.net), "PyTorch's weights")
    drawn = Draws(forced=np.array([0, 1, 1, 0] * 2, np.float32), seeds=np.arange(SAMPLES, dtype=np.int32))
    labels = sorted(WORDS, key=len)  # the second part has more characters
    batch = dataclasses.replace(batch_of(0, NARROW.width), labels=labels)
    parts = parts_of(batch, train, trainer.codec, trainer.steps, drawn, flat)
    counts = [targets.counted for _, targets in parts]
    assert (counts[0] == counts[1]) == (loss == "ctc")
    exact = rounding.measure(
        trainer.net,
        lambda net: sum(trainer.losses(net, part)[0].sum() * part[1].counted for part in parts) / sum(counts),
    )
    told = trainer.result(trainer.step(1, parts, 0.0, (False, False)))

    objective = Objective(net, DATA.middle, flat > 0, guide)
    gradients = Gradients(objective, LossScale(1.0, dynamic=False)).set_train()
    mean, nothing = ms.Tensor([sum(counts) / 2], ms.float32), ms.Tensor([0, 0], ms.float32)
    vectors = [gradients(ms.Tensor([part[1].counted], ms.float32), mean, nothing, *tensors_of(part)) for part in parts]
    vector = (sum(vectors) / 2).asnumpy()[:-2]
    assert vector[-1] == pytest.approx(told.loss, abs=1e-4)
    expected, own = rounding.gradients(trainer.net), ms_weights.dump(net)
    names = [name for name in own if name in expected]  # in MindSpore's order
    found = np.split(vector[:-1], np.cumsum([own[name].size for name in names])[:-1])
    exact.assert_near(expected)
    exact.assert_near({name: row.reshape(own[name].shape) for name, row in zip(names, found, strict=True)})
    running = {name: tensor for name, tensor in pt_weights.dump(trainer.net).items() if name not in expected}
    assert all(np.allclose(own[name], tensor, rtol=1e-4, atol=1e-5) for name, tensor in running.items())


def undetermined(gradients: list[np.ndarray], train: Train) -> np.ndarray:
    """Return where Lion's sign is rounding's in one of the steps, from the gradients of each.

    In float32 1 - beta is off by up to 1 / (1 - beta) units, and the sums and products of a step by less than 8.
    """
    share = 2.0**-24 * (1 / (1 - train.beta1) + 1 / (1 - train.beta2) + 8 * len(gradients))
    mean, size, found = np.zeros(()), np.zeros(()), np.zeros((), bool)
    for gradient in map(np.float64, gradients):
        direction = train.beta1 * mean + (1 - train.beta1) * gradient
        found = found | (np.abs(direction) < share * (train.beta1 * size + (1 - train.beta1) * np.abs(gradient)))
        mean = train.beta2 * mean + (1 - train.beta2) * gradient
        size = train.beta2 * size + (1 - train.beta2) * np.abs(gradient)
    return found


def test_lions_sign_is_undetermined_where_what_it_is_of_cancels() -> None:
    train = dataclasses.replace(TRAIN, optimizer="lion", beta1=0.9, beta2=0.99)
    # After 1 the mean is 0.01 and counts 0.009: -0.09 takes it away.
    steps = [np.ones(4), np.array([-0.09, -0.09 - 1e-8, -0.0901, 0.0])]
    assert undetermined(steps, train).tolist() == [True, True, False, False]
    assert undetermined([np.array([0.0, 1e-30])], train).tolist() == [False, False]


@pytest.mark.parametrize(
    ("optimizer", "by_part"),
    [
        ("adamw", False),
        ("adam", False),
        ("adadelta", False),
        ("lion", False),
        ("muon", False),
        ("adamw", True),
        ("lion", True),
        ("muon", True),
    ],
)
def test_the_same_gradients_make_the_same_weights(
    optimizer: str, by_part: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MindSpore updates by PyTorch's gradients: those that are rounding alone would differ."""
    monkeypatch.setattr(ms_backbones, "Compact", ms_shallow.Shallow)
    monkeypatch.setattr(pt_backbones, "Compact", pt_shallow.Shallow)
    train = dataclasses.replace(
        TRAIN, optimizer=optimizer, lr=1.0 if optimizer == "adadelta" else 1e-2, clip_norm=0.0, warmup_epochs=0.25,
        weight_decay=0.1, decay_all=False, lr_factors={"backbone": 0.5, "head": 2.0} if by_part else {},
        freeze={"neck": 2} if by_part else {},
    )  # fmt: skip
    trainer = Trainer(make_job(tmp_path, train=train), torch.device("cpu"), 0)
    start = pt_weights.dump(trainer.net)
    net = ms_model.build(MODEL, DATA, trainer.codec.classes)
    ms_weights.load_weights(net, start, "PyTorch's weights")
    scale = LossScale(1.0, dynamic=False)
    optimiser = ms_optimisers.build_optimiser(net, train)
    update = Update(net, optimiser, scale, train.clip_norm, parts=1, processes=1, by_part=by_part)
    assert update.parts == (["backbone", "neck", "head"] if by_part else [])
    series: list[dict[str, np.ndarray]] = []
    for step, rate in enumerate([train.lr, *trainer.context.plan.rates[1:3].tolist()]):  # a constant one, the cosine's
        parts = parts_of(batch_of(step), train, trainer.codec, 25, TOLD)
        told = trainer.result(trainer.step(step + 1, parts, rate, (False, False)))
        rates = [0.5 * rate, 0.0 if step < 2 else rate, 2.0 * rate] if by_part else rate
        gradients = rounding.gradients(trainer.net)
        series.append(gradients)
        inorder = [gradients[name].ravel() for name in ms_weights.dump(net) if name in gradients]
        vector = np.concatenate([*inorder, [told.loss, 0, 0]]).astype(np.float32)
        result = update(ms.Tensor(vector), ms.Tensor(rates, ms.float32)).asnumpy()
        assert result == pytest.approx([told.loss, told.norm, 0, 0], rel=1e-5)
    left, right = pt_weights.dump(trainer.net), ms_weights.dump(net)
    open_signs = 0
    for name in gradients:
        held = np.ones(left[name].shape, bool)
        if optimizer == "lion":
            held = ~undetermined([gradients[name] for gradients in series], train)
            open_signs += np.count_nonzero(~held)
        moved, spacings = np.abs(left[name] - start[name]).max(), 6 * np.spacing(np.abs(left[name]).max())
        assert moved > spacings, name
        assert np.abs(left[name] - right[name])[held].max() <= 1e-3 * moved + spacings, name
    assert open_signs < 1e-3 * vector.size
