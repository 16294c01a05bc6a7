import os
import sys
from pathlib import Path

import pytest

from wordmill.recipe.frameworks import check_device, environment, launch, twin


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


def test_torchrun_starts_one_process_per_device() -> None:
    command = launch("pytorch", "cpu", 2, Path("/work/job.json"))
    assert "--nproc-per-node=2" in command
    assert command[-3:] == ["-m", "wordmill.training.pt.train", "/work/job.json"]


def test_msrun_joins_its_workers_so_that_their_failure_is_its_own() -> None:
    command = launch("mindspore", "cpu", 2, Path("/work/job.json"))
    assert Path(command[0]).name == "msrun"
    assert {"--worker_num=2", "--local_worker_num=2", "--join=True"} <= set(command)
    assert "--tail_worker_log=2" in command  # there are workers 0 and 1
    assert command[-2].endswith("wordmill/training/ms/train.py")


def test_mindspores_workers_on_processors_have_some_each() -> None:
    assert "--bind_core=True" in launch("mindspore", "cpu", 2, Path("/work/job.json"))
    assert "--bind_core=True" not in launch("mindspore", "cpu", 1, Path("/work/job.json"))


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="device 'gpu': expected one of cpu, cuda, npu"):
        check_device("gpu")
    with pytest.raises(ValueError, match="framework 'tensorflow': expected one of pytorch, mindspore"):
        twin("tensorflow", "models.predict")
