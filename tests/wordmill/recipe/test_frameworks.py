import os
import resource
import sys
from pathlib import Path

import numpy as np
import pytest

from wordmill.recipe.frameworks import check_device, environment, keep_freed_memory, twin


def test_mindspore_is_held_to_avx2_and_pytorch_is_not() -> None:
    assert environment("mindspore", "cpu")["ONEDNN_MAX_CPU_ISA"] == "AVX2"
    assert "ONEDNN_MAX_CPU_ISA" not in environment("pytorch", "cpu")


def test_mindspore_finds_this_python_and_the_protobuf_that_it_can_use() -> None:
    variables = environment("mindspore", "cpu")
    assert variables["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)
    assert variables["PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION"] == "python"


def test_cores_are_shared_among_the_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    assert environment("pytorch", "cpu", 2)["OMP_NUM_THREADS"] == "4"
    assert environment("pytorch", "cpu", 16)["OMP_NUM_THREADS"] == "1"
    assert "OMP_NUM_THREADS" not in environment("pytorch", "cuda", 8)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="device 'gpu': expected one of cpu, cuda, npu"):
        check_device("gpu")
    with pytest.raises(ValueError, match="framework 'tensorflow': expected one of pytorch, mindspore"):
        twin("tensorflow", "models.predict")


def test_memory_that_was_freed_is_taken_again_without_asking_the_system() -> None:
    keep_freed_memory()
    faults = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        np.full(16 << 20, 1.0, np.float32)  # 64 MiB: 16,384 pages, or 32 huge ones
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    assert max(faults[1:]) < 16
