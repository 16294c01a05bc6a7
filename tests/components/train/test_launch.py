import sys
from pathlib import Path

import pytest

from components.train.launch import Node, launch


def test_torchrun_starts_one_process_per_device() -> None:
    command = launch("pytorch", "cpu", 2, Path("/jobs/job.json"))
    assert "--nproc-per-node=2" in command
    assert "--log-dir=/jobs/torchrun" in command  # else its folders stay among temporary files for good
    assert command[-4:] == ["-m", "wordmill.training.worker", "pt", "/jobs/job.json"]


@pytest.mark.parametrize(("framework", "twin"), [("pytorch", "pt"), ("mindspore", "ms")])
def test_a_process_that_is_alone_has_no_launcher(framework: str, twin: str) -> None:
    job = Path("/jobs/job.json")
    assert launch(framework, "cpu", 1, job) == [sys.executable, "-m", "wordmill.training.worker", twin, str(job)]
    node = Node(rank=0, nodes=2, master="first", port=2345)
    assert len(launch(framework, "cpu", 1, job, node)) > 8  # one a node, of two


def test_msrun_joins_its_workers_so_that_their_failure_is_its_own() -> None:
    command = launch("mindspore", "cpu", 2, Path("/jobs/job.json"))
    assert Path(command[0]).name == "msrun"
    assert {"--worker_num=2", "--local_worker_num=2", "--join=True"} <= set(command)
    assert "--tail_worker_log=2" in command  # there are workers 0 and 1
    assert command[-5:] == ["python", "-m", "wordmill.training.worker", "ms", "/jobs/job.json"]


def test_mindspores_workers_on_processors_have_some_each() -> None:
    assert "--bind_core=True" in launch("mindspore", "cpu", 2, Path("/jobs/job.json"))
