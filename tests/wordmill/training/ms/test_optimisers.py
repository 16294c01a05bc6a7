import dataclasses

import numpy as np
import pytest

from tests.wordmill.models.ms import COMPACT, DATA, TRAIN, ms  # isort: skip  # before anything imports MindSpore
from mindspore import nn

from tests.wordmill.training.updates import updated
from wordmill.models.ms.model import build as build_net
from wordmill.models.ms.weights import dump
from wordmill.training.ms.optimisers import Average, build_optimiser


def small_net() -> nn.Cell:
    # Among many weights some cancel their gradient in the L2 penalty, and its sign is then rounding's.
    ms.set_seed(3)
    return nn.SequentialCell(nn.Conv2d(1, 5, 3, has_bias=True), nn.BatchNorm2d(5), nn.Dense(5, 16))


@pytest.mark.parametrize("decay_all", [True, False])
@pytest.mark.parametrize("name", ["adamw", "adam", "adadelta", "lion", "muon"])
def test_updates_are_the_published_ones_even_for_gradients_as_small_as_epsilon(name: str, decay_all: bool) -> None:
    train = dataclasses.replace(
        TRAIN, optimizer=name, lr=0.01, beta1=0.8, beta2=0.95, weight_decay=0.3, decay_all=decay_all
    )
    net, rng = small_net(), np.random.default_rng(5)
    update = build_optimiser(net, train)
    before = [weight.asnumpy().copy() for weight in net.trainable_params()]
    scales = 10.0 ** -rng.integers(0, 9, len(before))
    series = [[(scale * rng.normal(size=w.shape)).astype(np.float32) for scale, w in zip(scales, before, strict=True)]
              for _ in range(3)]  # fmt: skip
    for gradients in series:
        update(tuple(map(ms.Tensor, gradients)), (ms.Tensor(train.lr, ms.float32),) * len(before))
    for number, weight in enumerate(net.trainable_params()):
        decay = 0.3 if decay_all or weight.ndim > 1 else 0.0
        expected = updated(before[number], [gradients[number] for gradients in series], train, decay)
        moved, rounding = np.abs(expected - before[number]).max(), 3 * np.spacing(np.abs(before[number]).max())
        assert np.abs(weight.asnumpy() - expected).max() < 1e-4 * moved + rounding


def test_the_average_follows_the_parameters_faster_at_first() -> None:
    net = build_net(COMPACT, DATA[1], 37)
    average, bias, start = Average(net, 0.9), net.head.bias, dump(net)
    ms.ops.assign(bias, bias + 1.0)
    norm = ms.Tensor(1.0, ms.float32)
    average(ms.Tensor(2000, ms.float32), norm)  # decay 0.9 * (1 - exp(-1)) = 0.568908503
    assert average.tensors()["head.bias"] - start["head.bias"] == pytest.approx(0.431091497, abs=1e-6)
    ms.ops.assign(bias, bias + 2.0)
    average(ms.Tensor(4000, ms.float32), norm)  # decay 0.9 * (1 - exp(-2)) = 0.778198245
    found = average.tensors()
    assert found["head.bias"] - start["head.bias"] == pytest.approx(1.000879913, abs=1e-6)
    average(ms.Tensor(4001, ms.float32), ms.Tensor(np.nan, ms.float32))  # of a step that was left out
    assert all(np.array_equal(tensor, found[name]) for name, tensor in average.tensors().items())
    assert set(found) == {name for name in start if ".running_" not in name}
    assert all(np.allclose(found[name], start[name], atol=1e-6) for name in found if name != "head.bias")
