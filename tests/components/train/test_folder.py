"""A run's folder: one process at a time, what stays in it and for how long."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from components.train.folder import LEFT_DAYS, finish_folder, join_logs, prepare_folder, run_folder
from tests.waiting import LIMIT_S, wait_until

HOLDER = """
import sys, time
from pathlib import Path
from components.train.folder import run_folder
with run_folder(Path(sys.argv[1]), "k") as folder:
    (folder / "held").write_text("")
    while not (folder / "release").exists():
        time.sleep(0.02)
    (folder / "done").write_text("")
"""


def test_a_second_process_waits_for_the_first_and_says_so(tmp_path: Path) -> None:
    folder = tmp_path / "training" / "k"
    first = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)])
    wait_until((folder / "held").exists)
    code = HOLDER.replace("while", "assert (folder / 'done').exists()\n    while")
    second = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert second.stdout is not None
    said = f"train: another process does the same work in {folder}: this one waits\n"
    assert second.stdout.readline() == said
    (folder / "release").write_text("")
    assert (first.wait(LIMIT_S), second.wait(LIMIT_S)) == (0, 0)


def test_the_folder_of_a_killed_process_is_free(tmp_path: Path) -> None:
    first = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)])
    wait_until((tmp_path / "training" / "k" / "held").exists)
    first.kill()
    first.wait()
    with run_folder(tmp_path, "k") as folder:
        assert [path.name for path in folder.iterdir()] == ["held"]
        shutil.rmtree(folder)
    assert list((tmp_path / "training").iterdir()) == []


def test_what_fails_leaves_its_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), run_folder(tmp_path, "k") as folder:
        shutil.copyfile(folder / "nothing", folder / "a")
    assert (tmp_path / "training" / "k").is_dir()
    assert (tmp_path / "training" / "k.lock").exists()


def test_what_a_person_has_put_among_checkpoints_stays_at_the_end_and_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for own in ("step-00000002.json", "metrics-00000002.jsonl", ""):
        with run_folder(tmp_path, "k") as folder:
            (folder / "msrun").mkdir()
            (folder / "log.txt").touch()
            (folder / "checkpoints").mkdir(exist_ok=True)
            (folder / "checkpoints" / (own or "before-lunch.safetensors")).touch()
            finish_folder(folder)
    left = [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*")) if path.is_file()]
    assert left == ["training/k/checkpoints/before-lunch.safetensors", "training/k.lock"]
    told = "stays, it holds what is not this run's: before-lunch.safetensors"
    assert capsys.readouterr().out == f"train: {tmp_path / 'training/k/checkpoints'} {told}\n"


def test_folders_of_dead_runs_are_removed_after_two_weeks_and_no_others(tmp_path: Path) -> None:
    parent, old = tmp_path / "training", time.time() - 86400 * (LEFT_DAYS + 1)
    for name, age in (("dead", old), ("young", time.time()), ("training", old), ("own", old), ("working", old)):
        (parent / name / "checkpoints").mkdir(parents=True)
        (parent / f"{name}.lock").touch()
        for path in (parent / name / "checkpoints", parent / name, parent / f"{name}.lock"):
            os.utime(path, (age, age))
    os.utime(parent / "training" / "checkpoints")  # it has a new checkpoint
    with run_folder(tmp_path, "working"):
        os.utime(parent / "working.lock", (old, old))
        with run_folder(tmp_path, "own"):
            left = {path.name for path in parent.iterdir()}
    assert left == {f"{name}{end}" for name in ("young", "training", "own", "working") for end in ("", ".lock")}


def test_another_attempt_finds_checkpoints_and_logs_and_nothing_of_the_last_ones_end(tmp_path: Path) -> None:
    for name in ("checkpoints/step-00000002.json", "nonfinite/a.npz", "msrun/worker_0.log", "msrun/x/y", "trace/t"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text(f"{name}\n")
    for name in ("stop", "pulse.0", "failure.0.txt", "outcome.json", "metrics.jsonl", "job.json", "launcher.log"):
        (tmp_path / name).write_text(f"{name}\n")
    prepare_folder(tmp_path, None)
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoints", "nonfinite", "trace", "log.txt"}
    log = "--- launcher.log\nlauncher.log\n--- worker_0.log\nmsrun/worker_0.log\n"
    assert (tmp_path / "log.txt").read_text() == log
    (tmp_path / "launcher.log").write_text("again\n")
    assert join_logs(tmp_path).read_text() == f"{log}--- launcher.log\nagain\n"
