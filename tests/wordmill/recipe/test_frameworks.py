import os
import sys
from pathlib import Path

import pytest

from wordmill.recipe.frameworks import check_device, environment, twin


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
