"""What goes to a device and comes back without waiting for it, and what it can tell of itself."""

import importlib
import resource
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch


def send(device: torch.device, *arrays: npt.NDArray[Any]) -> list[torch.Tensor]:
    """Return arrays on the device.

    A copy from pinned memory goes on while the processor prepares what follows; any other one waits for the device.
    """
    tensors = [torch.from_numpy(array) for array in arrays]
    if device.type == "cpu":
        return tensors
    return [tensor.pin_memory().to(device, non_blocking=True) for tensor in tensors]


def fetch(values: torch.Tensor) -> Callable[[], list[float]]:
    """Begin to copy values (n,) from the device; return what waits for them, and for nothing that is begun later."""
    if values.device.type == "cpu":
        return values.tolist
    copied = torch.empty_like(values, device="cpu", pin_memory=True).copy_(values, non_blocking=True)
    done = torch.get_device_module(values.device).Event()
    done.record()

    def wait() -> list[float]:
        done.synchronize()
        found: list[float] = copied.tolist()
        return found

    return wait


def memory_bytes(device: torch.device) -> int:
    """Return the most memory that this process has used: of its device, on a processor its own."""
    if device.type == "cpu":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB
    return int(torch.get_device_module(device).max_memory_allocated(device))


def trace(device: torch.device, folder: Path, name: str) -> AbstractContextManager[None]:
    """Trace what is done within into <name>.*.pt.trace.json, for Perfetto and TensorBoard; on an npu for MindStudio."""
    kind = device.type
    profiler = importlib.import_module("torch_npu").profiler if kind == "npu" else torch.profiler
    activities = ["CPU"] if kind == "cpu" else ["CPU", kind.upper()]
    tracing: AbstractContextManager[None] = profiler.profile(
        activities=[getattr(profiler.ProfilerActivity, activity) for activity in activities],
        on_trace_ready=profiler.tensorboard_trace_handler(str(folder), name),
    )
    return tracing
