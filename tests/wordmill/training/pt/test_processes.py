from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn

from tests.wordmill.training.pt.together import CPU, together
from tests.wordmill.training.tiny import TRAIN, make_job
from wordmill.training.pt import processes
from wordmill.training.pt.processes import CpuSyncBatchNorm, divide, gather, join, share, spread, synchronise


def small_net() -> nn.Module:
    torch.manual_seed(1)
    net = nn.Sequential(nn.Conv2d(2, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Sequential(nn.ReLU(), nn.BatchNorm2d(4)))
    for norm in (net[1], net[2][1]):
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    return net


@pytest.mark.parametrize(
    ("costs", "processes", "owners"),
    [([5, 9, 4, 1], 2, [1, 0, 1, 0]), ([3, 3, 3], 4, [0, 1, 2]), ([7, 2], 1, [0, 0]), ([], 2, [])],
)
def test_work_is_spread_by_its_cost(costs: list[float], processes: int, owners: list[int]) -> None:
    assert spread(costs, processes) == owners


def test_one_process_does_all_work_itself() -> None:
    found = divide(lambda tensor: tensor + 1, [torch.zeros(2), torch.ones(1, 2)], [1, 2])
    assert [tensor.tolist() for tensor in found] == [[1, 1], [[2, 2]]]


def halved(rank: int, seen: Path) -> None:
    """Halve three tensors together; note how many fell to this process, and what came out."""
    inputs, done = [torch.full((2, 3), 4.0), torch.arange(4.0), torch.full((1, 1), 6.0)], []

    def half(tensor: torch.Tensor) -> torch.Tensor:
        done.append(tensor.numel())
        return tensor / 2

    found = divide(half, inputs, [10, 6, 5])
    (seen / f"{rank}.txt").write_text(repr((done, [tensor.tolist() for tensor in found])))


def test_processes_do_a_part_of_the_work_each_and_have_all_of_it(tmp_path: Path) -> None:
    together(2, tmp_path, halved, tmp_path)
    results = [[[2.0] * 3] * 2, [0.0, 0.5, 1.0, 1.5], [[3.0]]]
    assert (tmp_path / "0.txt").read_text() == repr(([6], results))
    assert (tmp_path / "1.txt").read_text() == repr(([4, 1], results))


def passed(net: nn.Module, images: torch.Tensor, factors: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return outputs, gradients and running statistics after a pass each way in training mode."""
    inputs = images.clone().requires_grad_()
    outputs = net(inputs)
    (outputs * factors).sum().backward()
    weights = {f"grad {name}": weight.grad for name, weight in net.named_parameters()}
    running = {name: buffer for name, buffer in net.named_buffers() if "running" in name}
    return {"outputs": outputs.detach(), "inputs": inputs.grad, **weights, **running}  # type: ignore[dict-item]


def normalise_together(rank: int) -> None:
    """Three processes' thirds of a batch give what one process makes of the whole, far from 0 as it lies."""
    torch.manual_seed(5)
    images, factors = 100 + torch.randn(6, 2, 8, 9), torch.randn(6, 4, 6, 7)
    whole = passed(small_net().double(), images.double(), factors.double())
    net = small_net()
    names = list(net.state_dict())
    synchronise(net, CPU)
    assert isinstance(net[1], CpuSyncBatchNorm)
    assert isinstance(net[2][1], CpuSyncBatchNorm)
    assert list(net.state_dict()) == names
    rows = slice(2 * rank, 2 * rank + 2)
    found = passed(net, images[rows], factors[rows])
    for name, tensor in found.items():
        expected = whole[name]
        if name in ("outputs", "inputs"):
            expected = expected[rows]
        elif name.startswith("grad"):
            dist.all_reduce(tensor)
        assert torch.allclose(tensor.double(), expected, rtol=2e-3, atol=2e-4 * expected.abs().max().item()), name
    plain = small_net()
    plain.load_state_dict(net.state_dict())
    assert torch.equal(net.eval()(images), plain.eval()(images))


def tell_each_other(rank: int) -> None:
    rows = gather(np.array([rank, 10 * rank], np.float32), 3, CPU)
    assert rows.tolist() == [[0, 0], [1, 10], [2, 20]]
    tensors = {"b": np.full((2, 3), rank + 1, np.float32), "a": np.array(rank + 5, np.float32)}
    if rank == 0:
        tensors = dict(reversed(tensors.items()))
    shared = share(tensors, 3, CPU)
    assert {name: (tensor.shape, tensor.ravel().tolist()) for name, tensor in shared.items()} == {
        "a": ((), [5.0]),
        "b": ((2, 3), [1.0] * 6),
    }
    normalise_together(rank)


def test_three_processes_tell_each_other_and_normalise_as_one(tmp_path: Path) -> None:
    together(3, tmp_path, tell_each_other)


def test_processes_wait_longer_for_each_other_than_for_a_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, Any]] = []
    monkeypatch.setattr(processes.dist, "init_process_group", lambda name, timeout: calls.append((name, timeout)))
    join(make_job(tmp_path, train=TRAIN))
    assert not calls
    join(make_job(tmp_path, train=TRAIN, processes=2))
    assert calls == [("gloo", timedelta(minutes=75))]
