"""What the processes of a training tell each other, beside the gradients that DistributedDataParallel adds up."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import nn

from wordmill.models.checkpoint import Tensors
from wordmill.training.job import Job

BACKENDS = {"cpu": "gloo", "cuda": "nccl", "npu": "hccl"}
VALIDATION = timedelta(hours=1)  # more than processes drift apart while they validate or rank 0 writes


def join(job: Job) -> None:
    """Meet the other processes of a job, if there are any.

    A dead one ends the others at once: its connections break, and the launcher kills them. One that hangs is the
    stage's to find, by its pulse; how long a process waits for another in vain is only the last resort.
    """
    if job.processes > 1:
        limit = timedelta(minutes=job.train.step_timeout_minutes) + VALIDATION
        dist.init_process_group(BACKENDS[job.device], timeout=limit)


def gather(vector: npt.NDArray[np.float32], processes: int, device: torch.device) -> npt.NDArray[np.float32]:
    """Return every process's vector (n,) float32 in every process, as (processes, n)."""
    if processes == 1:
        return vector[np.newaxis]
    own = torch.from_numpy(vector).to(device)
    rows = [torch.empty_like(own) for _ in range(processes)]
    dist.all_gather(rows, own)
    return np.stack([row.cpu().numpy() for row in rows])


def share(tensors: Tensors, processes: int, device: torch.device) -> Tensors:
    """Return the tensors of process 0 in every process; names and shapes are the same in all."""
    if processes == 1:
        return tensors
    names = sorted(tensors)
    joined = torch.from_numpy(np.concatenate([tensors[name].ravel() for name in names])).to(device)
    dist.broadcast(joined, 0)
    ends = np.cumsum([tensors[name].size for name in names])[:-1]
    return {name: values.reshape(tensors[name].shape)
            for name, values in zip(names, np.split(joined.cpu().numpy(), ends), strict=True)}  # fmt: skip


def divide(
    work: Callable[[torch.Tensor], torch.Tensor], inputs: list[torch.Tensor], costs: Sequence[float]
) -> list[torch.Tensor]:
    """Return `work` of each tensor, which keeps its shape; of processes with the same tensors each does a part."""
    if not dist.is_initialized():
        return [work(tensor) for tensor in inputs]
    owners, rank = spread(costs, dist.get_world_size()), dist.get_rank()
    sizes = [[tensor.numel() for tensor, owner in zip(inputs, owners, strict=True) if owner == process]
             for process in range(dist.get_world_size())]  # fmt: skip
    own = [work(tensor).flatten() for tensor, owner in zip(inputs, owners, strict=True) if owner == rank]
    longest = max(map(sum, sizes))
    sent = torch.cat([*own, inputs[0].new_zeros(longest - sum(sizes[rank]))])
    parts = [torch.empty_like(sent) for _ in sizes]
    dist.all_gather(parts, sent)
    pieces = [iter(torch.split_with_sizes(part[: sum(of)], of)) for part, of in zip(parts, sizes, strict=True)]
    return [next(pieces[owner]).view_as(tensor) for tensor, owner in zip(inputs, owners, strict=True)]


def spread(costs: Sequence[float], processes: int) -> list[int]:
    """Return which process does each piece of work: the dearest first, by whoever has least to do."""
    owners, loads = [0] * len(costs), [0.0] * processes
    for number in sorted(range(len(costs)), key=lambda number: -costs[number]):
        owners[number] = loads.index(min(loads))
        loads[owners[number]] += costs[number]
    return owners


def synchronise(net: nn.Module, device: torch.device) -> None:
    """Have batch normalisation go by the pictures of all processes, its weights under the same names."""
    if device.type != "cpu":
        nn.SyncBatchNorm.convert_sync_batchnorm(net)  # type: ignore[no-untyped-call]
        return
    for part in list(net.modules()):
        for name, norm in list(part.named_children()):
            if isinstance(norm, nn.BatchNorm2d):
                setattr(part, name, CpuSyncBatchNorm(norm))


class CpuSyncBatchNorm(nn.BatchNorm2d):
    """Batch normalisation by the statistics of all processes' pictures, equally many each; PyTorch has none for CPUs.

    It normalises by the biased variance and keeps the unbiased one, as BatchNorm2d does.
    """

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__(norm.num_features, norm.eps)
        self.weight, self.bias = norm.weight, norm.bias
        self.running_mean, self.running_var = norm.running_mean, norm.running_var

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return features (N, C, H, W) of the same type, normalised in float32."""
        if not self.training:
            return super().forward(x)
        features = x.float()
        mean = _mean(features.mean((0, 2, 3), keepdim=True))
        centred = features - mean
        variance = _mean(centred.square().mean((0, 2, 3), keepdim=True))
        count = x.numel() // x.shape[1] * dist.get_world_size()
        self.keep(mean.detach().flatten(), variance.detach().flatten() * (count / (count - 1)))
        scale = torch.rsqrt(variance + self.eps) * self.weight.reshape(1, -1, 1, 1)
        return (centred * scale + self.bias.reshape(1, -1, 1, 1)).to(x.dtype)

    def keep(self, mean: torch.Tensor, variance: torch.Tensor) -> None:
        """Take a batch's mean and variance (C,) into the running ones."""
        momentum = self.momentum or 0.0
        for running, found in ((self.running_mean, mean), (self.running_var, variance)):
            if running is not None:
                running.lerp_(found, momentum)


class _Sum(torch.autograd.Function):
    """The sum of all processes' tensors; each process's gradient reaches all of them."""

    @staticmethod
    def forward(_: Any, x: torch.Tensor) -> torch.Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(_: Any, *gradients: torch.Tensor) -> torch.Tensor:
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        return total


def _mean(x: torch.Tensor) -> torch.Tensor:
    total: torch.Tensor = _Sum.apply(x)  # type: ignore[no-untyped-call]
    return total / dist.get_world_size()
