import dataclasses

import numpy as np
import pytest

from tests.wordmill.models.ms import COMPACT, DATA, TRAIN, ms  # isort: skip  # before anything imports MindSpore
from tests.wordmill.models.ms.bars import some_parts
from tests.wordmill.training.updates import updated
from wordmill.models.ms.model import Recogniser, build
from wordmill.models.ms.precision import halve
from wordmill.models.ms.weights import dump, load_weights
from wordmill.recipe.sections import Train
from wordmill.training.ms.optimisers import build_optimiser
from wordmill.training.ms.processes import Processes
from wordmill.training.ms.state import TrainingState
from wordmill.training.ms.step import Frozen, Gradients, LossScale, Objective, Update
from wordmill.training.ms.train import tensors_of

pytestmark = pytest.mark.usefixtures("_shallow")
ONES = ms.Tensor([1.0], ms.float32)


@pytest.fixture(scope="module")
def whole() -> tuple[dict[str, np.ndarray], float]:
    """The weights of a network, by which a picture decides on its reading, and its loss in whole precision."""
    (part,), net = some_parts(4), build(COMPACT, DATA[1], 37)
    weights = dump(net)
    weights["head.weight"] *= 50
    load_weights(net, weights, "lively")
    return weights, float(Objective(net, DATA[1].middle).set_train()(*tensors_of(part))[0].asnumpy())


def update_of(net: Recogniser, section: Train = TRAIN, scale: float = 1.0, parts: int = 1) -> Update:
    loss_scale = LossScale(scale, section.loss_scaling == "dynamic")
    return Update(net, build_optimiser(net, section), loss_scale, section.clip_norm, parts, processes=1)


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "adadelta", "lion", "muon"])
def test_gradients_that_are_not_finite_change_nothing_and_the_next_ones_are_clipped(optimizer: str) -> None:
    net = build(COMPACT, DATA[1], 37)
    section = dataclasses.replace(TRAIN, optimizer=optimizer, clip_norm=0.5, weight_decay=0.0)
    update, rate = update_of(net, section, parts=2), ms.Tensor(section.lr, ms.float32)
    state = TrainingState(net, update, None, Processes(1))
    start, before = state.read(), [weight.asnumpy().copy() for weight in net.trainable_params()]
    size, rng = sum(weight.size for weight in before), np.random.default_rng(2)
    vector = rng.normal(size=size + 3).astype(np.float32)  # the loss and what is asked for are last
    vector[-2:] = 0, 1
    broken = vector.copy()
    broken[7] = np.inf
    ms.ops.assign(net.backbone.bn1.moving_mean, net.backbone.bn1.moving_mean + 1)  # as the forward pass has done
    assert not np.isfinite(update(ms.Tensor(broken), rate).asnumpy()[1])
    assert_same(state.read(), start)

    loss, norm, save, stop = update(ms.Tensor(vector), rate).asnumpy()
    assert loss == vector[-3] / 2
    assert (save, stop > 0) == (0, True)
    assert norm == pytest.approx(np.linalg.norm(vector[:-3] / 2), rel=1e-5)
    clipped = np.split(vector[:-3] / 2 * (0.5 / norm), np.cumsum([weight.size for weight in before])[:-1])
    for weight, first, gradient in zip(net.trainable_params(), before, clipped, strict=True):
        expected = updated(first, [gradient.reshape(first.shape)], section, 0.0)
        moved, rounding = np.abs(expected - first).max(), 3 * np.spacing(np.abs(first).max())
        assert np.abs(weight.asnumpy() - expected).max() < 1e-4 * moved + rounding

    kept = state.read()
    assert all(kept[name].any() for name in kept if name.startswith("optimizer/"))
    update(ms.Tensor(vector[::-1].copy()), rate)
    after = state.read()
    assert not np.array_equal(after["model/head.weight"], kept["model/head.weight"])
    state.write(kept, 0)
    assert_same(state.read(), kept)
    update(ms.Tensor(vector[::-1].copy()), rate)
    assert_same(state.read(), after)


def test_running_statistics_of_a_frozen_part_are_put_back() -> None:
    net = build(COMPACT, DATA[1], 37)
    update = update_of(net)
    frozen, mean = Frozen(net, update, "backbone"), net.backbone.bn1.moving_mean
    state = TrainingState(net, update, None, Processes(1))
    ms.ops.assign(mean, mean + 3)  # as a checkpoint has it that training goes on from
    frozen.begin()
    start, result = state.read(), ms.Tensor([1.0, 2.0], ms.float32)
    for parameter in (*update.statistics, *update.kept):
        ms.ops.assign(parameter, parameter + 1)
    assert frozen(result).asnumpy().tolist() == [1, 2]
    assert_same(state.read(), start)
    assert all(
        np.array_equal(kept.asnumpy(), held.asnumpy()) for kept, held in zip(update.kept, frozen.held, strict=True)
    )


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert set(found) == set(expected)
    assert [name for name in expected if found[name].tobytes() != expected[name].tobytes()] == []


@pytest.mark.parametrize("amp", ["O1", "O2", "O3"])
def test_half_precision_gives_nearly_the_same_loss_and_is_scaled_down_where_it_overflows(
    amp: str, whole: tuple[dict[str, np.ndarray], float]
) -> None:
    (part,), (weights, loss) = some_parts(4), whole
    halved = build(COMPACT, DATA[1], 37)
    load_weights(halved, weights, "whole")
    halve(halved, amp)
    update = update_of(halved, dataclasses.replace(TRAIN, loss_scaling="dynamic"), scale=1024.0)
    gradients = Gradients(Objective(halved, DATA[1].middle), update.scale).set_train()
    inputs = (ONES, ONES, ms.Tensor([0, 0], ms.float32), *tensors_of(part))
    half, norm, *_ = update(gradients(*inputs), ms.Tensor(0.0, ms.float32)).asnumpy()
    assert half == pytest.approx(loss, rel=0.02)
    assert half != loss
    assert np.isfinite(norm)
    assert {str(weight.dtype) for weight in halved.get_parameters()} == {"Float32"}

    ms.ops.assign(update.scale.value, ms.Tensor(2.0**40, ms.float32))
    before = dump(halved)
    assert not np.isfinite(update(gradients(*inputs), ms.Tensor(0.1, ms.float32)).asnumpy()[1])
    assert float(update.scale.value.asnumpy()) == 2.0**39
    assert_same(dump(halved), before)


def test_a_dynamic_scale_is_doubled_after_a_thousand_finite_steps_in_a_row_and_never_below_one() -> None:
    scale = LossScale(4.0, dynamic=True)

    def after(finite: bool, steps: int) -> float:
        for _ in range(steps):
            value = scale(ms.Tensor(finite))
        return float(value.asnumpy())

    assert after(True, 999) == 4
    assert after(False, 1) == 2
    assert after(True, 999) == 2
    assert after(True, 1) == 4
    assert after(True, 999) == 4
    assert after(True, 1) == 8
    assert after(False, 3) == 1
    assert after(False, 2) == 1


def test_a_static_scale_stays() -> None:
    scale = LossScale(512.0, dynamic=False)
    assert float(scale(ms.Tensor(False)).asnumpy()) == 512
