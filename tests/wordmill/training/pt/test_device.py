import json
from pathlib import Path

import numpy as np
import pytest
import torch

from wordmill.training.pt.device import fetch, memory_bytes, send, trace

CPU = torch.device("cpu")


def test_arrays_travel_to_a_device_out_of_pinned_memory_without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    pinned: list[torch.Tensor] = []
    sent: list[tuple[torch.Tensor, torch.device, bool]] = []

    def pin(tensor: torch.Tensor) -> torch.Tensor:
        pinned.append(tensor.clone())
        return pinned[-1]

    def to(tensor: torch.Tensor, device: torch.device, *, non_blocking: bool) -> torch.Tensor:
        sent.append((tensor, device, non_blocking))
        return tensor

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    monkeypatch.setattr(torch.Tensor, "to", to)
    device, arrays = torch.device("cuda", 3), (np.arange(3, dtype=np.int32), np.ones((2, 2), np.uint8))
    found = send(device, *arrays)
    assert [tensor.numpy().tolist() for tensor in found] == [[0, 1, 2], [[1, 1], [1, 1]]]
    assert [tensor is source for (tensor, _, _), source in zip(sent, pinned, strict=True)] == [True] * 2
    assert {(place, soon) for _, place, soon in sent} == {(device, True)}
    pinned.clear()
    assert send(CPU, arrays[0])[0].data_ptr() == arrays[0].ctypes.data  # no copy
    assert not pinned


def test_values_come_back_when_they_are_asked_for() -> None:
    assert fetch(torch.tensor([1.5, -2.0]))() == [1.5, -2.0]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_a_gpu_is_sent_to_and_fetched_from() -> None:
    device = torch.device("cuda")
    (sent,) = send(device, np.array([1.5, -2.0], np.float32))
    assert sent.is_cuda
    assert fetch(2 * sent)() == [3.0, -4.0]
    assert memory_bytes(device) >= 16


def test_a_processors_memory_is_what_the_process_has_held() -> None:
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    peak = int(line.split()[1]) * 1024
    # What a process's starter held when it forked may count too.
    assert 0.9 * peak < memory_bytes(CPU) < 10 * peak


def test_a_trace_is_what_the_viewers_open(tmp_path: Path) -> None:
    with trace(CPU, tmp_path, "process-0"):
        torch.ones(64, 64) @ torch.ones(64, 64)
    (path,) = tmp_path.iterdir()
    assert path.name.startswith("process-0.")
    assert path.name.endswith(".pt.trace.json")
    events = json.loads(path.read_text())["traceEvents"]
    (product,) = [event for event in events if event.get("name") == "aten::mm"]
    assert product["ph"] == "X"
    assert product["dur"] > 0
