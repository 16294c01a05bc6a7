import dataclasses
import inspect
import sys

import numpy as np
import pytest
import torch
from torch import nn

from tests.wordmill.training.tiny import TRAIN
from tests.wordmill.training.updates import updated
from wordmill.recipe.schedule import one_cycle, piecewise, stepped
from wordmill.training.pt.optimisers import Average, build_optimiser


def small_net() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(1, 5, 3), nn.BatchNorm2d(5), nn.LSTM(5, 4))


@pytest.mark.parametrize("decay_all", [True, False])
@pytest.mark.parametrize("name", ["adamw", "adam", "adadelta", "lion", "muon"])
def test_updates_are_the_published_ones_even_for_gradients_as_small_as_epsilon(name: str, decay_all: bool) -> None:
    train = dataclasses.replace(
        TRAIN, optimizer=name, lr=0.01, beta1=0.8, beta2=0.95, weight_decay=0.3, decay_all=decay_all
    )
    net, rng = small_net(), np.random.default_rng(5)
    optimizer = build_optimiser(net, train)
    before = [weight.detach().numpy().copy() for weight in net.parameters()]
    scales = 10.0 ** -rng.integers(0, 9, len(before))
    series = [[(scale * rng.normal(size=w.shape)).astype(np.float32) for scale, w in zip(scales, before, strict=True)]
              for _ in range(3)]  # fmt: skip
    for gradients in series:
        for weight, gradient in zip(net.parameters(), gradients, strict=True):
            weight.grad = torch.from_numpy(gradient.copy())
        optimizer.step()
    for number, weight in enumerate(net.parameters()):  # weights and biases of a convolution, a norm, an LSTM
        decay = 0.3 if decay_all or weight.ndim > 1 else 0.0
        expected = updated(before[number], [gradients[number] for gradients in series], train, decay)
        moved, rounding = np.abs(expected - before[number]).max(), 3 * np.spacing(np.abs(before[number]).max())
        assert np.abs(weight.detach().numpy() - expected).max() < 1e-4 * moved + rounding


def rates_of(scheduler: torch.optim.lr_scheduler.LRScheduler, optimizer: torch.optim.Optimizer) -> list[float]:
    rates = []
    for _ in range(20):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if len(rates) < 20:
            scheduler.step()
    return rates


def test_schedules_are_those_of_pytorch() -> None:
    schedulers = torch.optim.lr_scheduler
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.5)
    assert stepped(0.5, 20, 0, 6, 0.3) == pytest.approx(rates_of(schedulers.StepLR(optimizer, 6, 0.3), optimizer))
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.5)
    multi = rates_of(schedulers.MultiStepLR(optimizer, [4, 11], 0.1), optimizer)
    assert piecewise(0.5, 20, 0, (4, 11), (0.05, 0.005)) == pytest.approx(multi)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.5)
    cycle = schedulers.OneCycleLR(optimizer, 0.5, 20, pct_start=0.3, cycle_momentum=False, final_div_factor=100)
    assert one_cycle(0.5, 20, 6, 0.5 / 25 / 100) == pytest.approx(rates_of(cycle, optimizer), rel=1e-6)


@pytest.mark.parametrize("name", ["adamw", "adam", "adadelta", "lion", "muon"])
def test_no_step_waits_for_the_import_of_a_compiler(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    net = small_net()
    monkeypatch.setitem(sys.modules, "torch._dynamo", None)  # importing it is an error
    for method in (torch.optim.Optimizer.add_param_group, torch.optim.Optimizer.zero_grad):
        monkeypatch.delattr(inspect.unwrap(method), "__dynamo_disable", raising=False)  # left by an import before
    optimizer = build_optimiser(net, dataclasses.replace(TRAIN, optimizer=name))
    optimizer.zero_grad(set_to_none=True)
    for weight in net.parameters():
        weight.grad = torch.ones_like(weight)
    optimizer.step()


def test_lion_goes_one_rate_against_the_sign() -> None:
    weight = nn.Parameter(torch.tensor([1.0, 1.0, 1.0]))
    net = nn.ParameterList([weight])
    train = dataclasses.replace(TRAIN, optimizer="lion", lr=0.1, beta1=0.9, beta2=0.99, weight_decay=0.0)
    optimizer = build_optimiser(net, train)
    weight.grad = torch.tensor([5.0, -1e-6, 0.0])
    optimizer.step()
    assert torch.allclose(weight, torch.tensor([0.9, 1.1, 1.0]))
    # The mean of gradients is 0.01 * (5, -1e-6, 0) now: 0.9 * 0.05 outweighs 0.1 * 0.4, and not 0.1 * 0.5.
    weight.grad = torch.tensor([-0.4, 0.0, 1.0])
    optimizer.step()
    assert torch.allclose(weight, torch.tensor([0.8, 1.2, 0.9]))
    weight.grad = torch.tensor([-0.5, 0.0, 0.0])
    optimizer.step()
    assert torch.allclose(weight, torch.tensor([0.9, 1.3, 0.8]))


def test_the_average_follows_the_parameters_faster_at_first() -> None:
    weight = nn.Parameter(torch.tensor([0.0, 4.0]))
    average = Average(nn.ParameterDict({"w": weight}), 0.9)
    with torch.no_grad():
        weight += 1.0
    average(2000, torch.tensor(True))  # decay 0.9 * (1 - exp(-1)) = 0.568908503
    assert average.tensors["w"].tolist() == pytest.approx([0.431091497, 4.431091497])
    with torch.no_grad():
        weight += 2.0
    average(4000, torch.tensor(True))  # decay 0.9 * (1 - exp(-2)) = 0.778198245
    assert average.tensors["w"].tolist() == pytest.approx([1.000879913, 5.000879913], rel=1e-6)
    before = average.tensors["w"].clone()
    average(6000, torch.tensor(False))  # a step that is left out
    assert torch.equal(average.tensors["w"], before)


def test_states_are_zeros_before_the_first_step() -> None:
    """As many as the updates need, so that a checkpoint of before the first step has them too."""
    kinds = {"adamw": {"exp_avg", "exp_avg_sq", "step"}, "adam": {"exp_avg", "exp_avg_sq", "step"},
             "adadelta": {"squares", "moves"}, "lion": {"first"}}  # fmt: skip
    for name, expected in kinds.items():
        net = small_net()
        optimizer = build_optimiser(net, dataclasses.replace(TRAIN, optimizer=name))
        for weight in net.parameters():
            assert set(optimizer.state[weight]) == expected
            assert not any(tensor.any() for tensor in optimizer.state[weight].values())
            weight.grad = torch.ones_like(weight)
        optimizer.step()
        for weight in net.parameters():
            assert set(optimizer.state[weight]) == expected
            assert all(tensor.any() for tensor in optimizer.state[weight].values())
