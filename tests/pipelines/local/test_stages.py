import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from pipelines.local import stages

SOURCE = """
import kfp
from kfp import dsl
from kfp.dsl import *
from typing import *

def greet(name: str, place: dsl.OutputPath(str)) -> str:
    print(f"greeting {name}", flush=True)
    import os, tempfile
    left = tempfile.mkdtemp()
    print("left", left, flush=True)
    if name == "killed":
        os.kill(os.getpid(), 9)
    with open(place, "w") as file:
        file.write(name)
    if name == "nobody":
        raise SystemExit("error: nobody is there")
    return name
"""


def run(folder: Path, name: str) -> int:
    """Run `greet` as kfp.local does, from the command of a compiled component."""
    executor_input = {
        "inputs": {"parameterValues": {"name": name}},
        "outputs": {
            "parameters": {key: {"outputFile": str(folder / key)} for key in ("place", "Output")},
            "outputFile": str(folder / "executor_output.json"),
        },
    }
    arguments = ["--executor_input", json.dumps(executor_input), "--function_to_execute", "greet"]
    return stages.run_forked(full_command=["sh", "-ec", "...", SOURCE, *arguments], env_vars={"_KFP_RUNTIME": "true"})


def test_a_stage_runs_in_a_process_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "a folder"
    sys.modules.pop("kfp.dsl.executor_main", None)  # another test's
    assert run(folder, "Ann") == 0
    assert "greeting Ann\n" in capsys.readouterr().out
    assert (folder / "place").read_text() == "Ann"
    assert json.loads((folder / "executor_output.json").read_text())["parameterValues"]["Output"] == "Ann"
    assert "kfp.dsl.executor_main" not in sys.modules


def test_a_failing_stage_says_why_and_has_its_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "nobody") == 1
    assert "error: nobody is there\n" in capsys.readouterr().out
    assert not (tmp_path / "executor_output.json").exists()


@pytest.mark.parametrize("name", ["Ann", "nobody", "killed"])
def test_nothing_that_a_stage_leaves_among_temporary_files_outlives_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    run(tmp_path / "outputs", name)
    (left,) = [line.removeprefix("left ") for line in capsys.readouterr().out.splitlines() if line.startswith("left ")]
    assert Path(left).parent.parent == tmp_path
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(("tmp", "wordmill-"))] == []


def test_a_killed_stage_is_none_that_succeeded() -> None:
    assert stages.call(kill_itself, environment=dict(os.environ)) == -signal.SIGKILL


def kill_itself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_stage_sees_the_environment_of_its_start_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GREETING", "before")
    stages.call(tell, environment=dict(os.environ))
    stages.call(tell, environment=os.environ | {"GREETING": "after"})
    stages.call(tell, environment={})
    assert capsys.readouterr().out == "before\nafter\nNone\n"


def tell() -> None:
    print(os.environ.get("GREETING"))


def test_what_stages_fork_from_has_no_framework_and_no_threads() -> None:
    program = (
        "import pipelines.local.warm, sys, threading; "
        "print('mlflow' in sys.modules, 'torch' in sys.modules, 'mindspore' in sys.modules, threading.active_count())"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=stages.ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "True False False 1\n"
