"""Every recipe as a smoke run in both frameworks, from rendered pictures to proven files: an hour on two cores."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.pipelines.test_smoke import RECIPES

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
OUTSIDE = ("WORDMILL_", "AWS_", "MLFLOW_")
LIMIT_S = 3600.0  # so long even on a machine that does much else
MOST_GIB = 6.0
MORE_GIB = {("rare_r34_ch", "mindspore"): 8.0}  # 41 characters of 6,625 classes make large graphs
LOOK_EVERY_S = 0.5


@pytest.fixture(scope="module")
def variables(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of runs with a state of their own, as after a fresh clone."""
    found = {name: value for name, value in os.environ.items() if not name.startswith(OUTSIDE)}
    found["WORDMILL_STATE"] = str(tmp_path_factory.mktemp("smoke") / "state")
    yield found
    subprocess.run([sys.executable, "-m", "pipelines", "down"], cwd=ROOT, env=found, check=True)


def memory_bytes(process: psutil.Process) -> int:
    """Return what a process and those that it has started have in memory."""
    total = 0
    for member in (process, *process.children(recursive=True)):
        with suppress(psutil.Error):
            total += member.memory_info().rss
    return total


@pytest.mark.parametrize("framework", ["pytorch", "mindspore"])
@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_runs_from_pictures_to_proven_files(
    name: str, framework: str, variables: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log, began, most = tmp_path / "log.txt", time.monotonic(), 0
    command = [sys.executable, "-m", "pipelines", "run", name, "--smoke", "--framework", framework]
    with log.open("w") as output, psutil.Popen(command, cwd=ROOT, env=variables, stdout=output, stderr=output) as run:
        while run.poll() is None:
            with suppress(psutil.NoSuchProcess):
                most = max(most, memory_bytes(run))
            time.sleep(LOOK_EVERY_S)
            assert time.monotonic() - began < LIMIT_S, log.read_text(encoding="utf-8")[-4000:]
    text = log.read_text(encoding="utf-8")
    assert run.returncode == 0, text[-4000:]
    summary = json.loads(Path(text.splitlines()[-1]).read_text(encoding="utf-8"))
    loss = summary["loss"]
    with capsys.disabled():
        print(f"{name} {framework}: {time.monotonic() - began:.0f} s, {most / 2**30:.1f} GiB, loss {loss}")
    assert (summary["ok"], summary["framework"]) == (True, framework)
    assert loss["last"] < loss["first"]
    proven = {file["format"] for file in summary["formats"] if file["made"] and file["texts_equal"] == file["samples"]}
    assert proven == {"mindir", "onnx"}
    assert (summary["gate"]["promoted"], summary["gate"]["outcome"]) == (False, "refused")
    assert Path(summary["report"]).read_text(encoding="utf-8").startswith("<!doctype html>")
    assert most < MORE_GIB.get((name, framework), MOST_GIB) * 2**30
