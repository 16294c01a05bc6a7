import dataclasses
import math

import pytest
import torch

from tests.wordmill.training.tiny import TRAIN
from wordmill.training.pt.scaler import Scaler

CPU = torch.device("cpu")


def scales(scaler: Scaler, gradients: list[float]) -> list[float]:
    """Return the scale after a step by each gradient of one weight, which a step that is not finite leaves."""
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer, found = torch.optim.SGD([weight], lr=1.0), []
    for gradient in gradients:
        before = weight.item()
        optimizer.zero_grad()
        torch.autograd.backward(scaler.scale(weight * gradient))
        scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.renew()
        assert weight.item() == (before - gradient if math.isfinite(gradient) else before)
        found.append(scaler.get_scale())
    return found


def scaler_of(scaling: str, start: float, dtype: torch.dtype = torch.float16) -> Scaler:
    return Scaler(dataclasses.replace(TRAIN, loss_scaling=scaling, loss_scale=start), dtype, CPU)


def test_a_static_loss_scale_stays() -> None:
    assert scales(scaler_of("static", 128.0), [1.0, math.inf, math.nan, 1.0]) == [128.0] * 4
    assert scales(scaler_of("static", 128.0), [0.5] * 1100) == [128.0] * 1100


def test_a_dynamic_loss_scale_is_halved_down_to_1_and_doubled_after_1000_finite_steps_in_a_row() -> None:
    assert scales(scaler_of("dynamic", 4.0), [1.0, math.inf, math.inf, math.nan, 1.0]) == [4.0, 2.0, 1.0, 1.0, 1.0]
    found = scales(scaler_of("dynamic", 4.0), [0.5] * 600 + [math.inf] + [0.5] * 1001)
    assert found == [4.0] * 600 + [2.0] * 1000 + [4.0] * 2


@pytest.mark.parametrize("scaling", ["static", "dynamic"])
def test_without_float16_there_is_no_loss_scale(scaling: str) -> None:
    scaler = scaler_of(scaling, 512.0, torch.bfloat16)
    assert scaler.scale(torch.ones(1)).item() == 1.0
    assert scales(scaler, [1.0, math.inf, *[0.5] * 1001]) == [1.0] * 1003


def test_a_loss_scale_goes_on_where_it_was() -> None:
    one, other = scaler_of("dynamic", 8.0), scaler_of("dynamic", 1024.0)
    scales(one, [math.inf] + [0.5] * 998)
    assert {name: value.item() for name, value in one.tensors().items()} == {"scale": 4.0, "finite_steps": 998.0}
    other.take(one.tensors())
    assert scales(other, [0.5] * 3) == [4.0, 8.0, 8.0]
    fresh = scaler_of("dynamic", 1024.0)
    assert {name: value.item() for name, value in fresh.tensors().items()} == {"scale": 1024.0, "finite_steps": 0.0}
