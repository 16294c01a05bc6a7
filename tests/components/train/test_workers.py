"""How the stage starts training processes, what it says of those that fail, and that it leaves none behind."""

import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from components.train import workers
from components.train.memory import Machine, ShortOfMemoryError
from tests.waiting import LIMIT_S, wait_until
from tests.wordmill.training.test_worker import is_alive
from tests.wordmill.training.tiny import make_job
from wordmill.store.stages import StoppedError
from wordmill.training.job import Job


def fake_job(folder: Path, code: str, monkeypatch: pytest.MonkeyPatch) -> Job:
    """A job whose launcher is a Python program."""
    monkeypatch.setattr(workers, "launch", lambda *_: [sys.executable, "-c", code])
    monkeypatch.setattr(workers, "LOOK_EVERY_S", 0.05)
    return make_job(folder)


def run(job: Job) -> None:
    workers.run_workers(job, lambda: None, lambda left_s: None)


def test_a_failure_shows_the_end_of_the_log_and_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = fake_job(tmp_path, "print('\\n'.join(f'line {n}' for n in range(50))); raise SystemExit(3)", monkeypatch)
    with pytest.raises(workers.LostError) as caught:  # a worker that is killed leaves no more than that
        run(job)
    text = str(caught.value)
    why = "no process has said why, such as one that is killed"
    assert text.startswith(f"training failed with code 3: {why}\nthe last lines are:\nline 30\n")
    assert text.endswith(f"line 49\nthe whole log is {tmp_path / 'log.txt'}")
    assert (tmp_path / "log.txt").read_text().startswith("--- launcher.log\nline 0\n")


def test_a_failure_that_a_worker_told_is_the_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "failure.1.txt").write_text("ValueError in process 1: no label fits")
    os.utime(tmp_path / "failure.1.txt", (1, 1))
    (tmp_path / "failure.0.txt").write_text("RuntimeError in process 0: connection closed by peer")
    job = fake_job(tmp_path, "raise SystemExit(1)", monkeypatch)
    message = r"^training failed with code 1: ValueError in process 1: no label fits\n"
    with pytest.raises(RuntimeError, match=message) as caught:
        run(job)
    assert type(caught.value) is RuntimeError


def test_workers_that_end_without_an_outcome_have_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeError, match="training failed with code 0") as caught:
        run(fake_job(tmp_path, "pass", monkeypatch))
    assert type(caught.value) is RuntimeError


KILLED = """
import os, signal, subprocess, sys, time
from pathlib import Path
from typing import Any
worker = (
    "import os, sys, time; from pathlib import Path; from wordmill.training.worker import at_work; "
    "work = at_work(Path(sys.argv[1]), 0); work.__enter__(); os.kill(os.getpid(), 9)"
)
subprocess.Popen([sys.executable, "-c", worker, os.environ["FOLDER"]])
time.sleep(60)
"""


def test_a_killed_worker_that_its_launcher_does_not_miss_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOLDER", str(tmp_path))
    monkeypatch.setattr(workers, "GONE_S", 0.2)
    job = fake_job(tmp_path, KILLED, monkeypatch)
    with pytest.raises(workers.LostError, match="training lost process 0 of 1, which was killed"):
        run(job)


@pytest.mark.parametrize("gone_s", [0.2, 60.0])  # noticed before and after the launcher's end
def test_a_worker_killed_for_want_of_memory_is_not_started_again(
    gone_s: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kills = iter([3, *[4] * 99])  # the kernel's count before and after
    monkeypatch.setattr(Machine, "kills", lambda machine: next(kills))
    monkeypatch.setenv("FOLDER", str(tmp_path))
    monkeypatch.setattr(workers, "GONE_S", gone_s)
    sleeps = KILLED if gone_s < 1 else KILLED.replace("time.sleep(60)", "time.sleep(1); sys.exit(1)")
    with pytest.raises(ShortOfMemoryError, match=r"^out of memory: .* at batch 16 x 1 process, which used"):
        run(fake_job(tmp_path, sleeps, monkeypatch))


def test_memory_that_a_framework_is_refused_is_said_with_what_to_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "failure.0.txt").write_text("RuntimeError in process 0: DefaultCPUAllocator: can't allocate memory")
    job = dataclasses.replace(fake_job(tmp_path, "raise SystemExit(1)", monkeypatch), processes=2)
    told = r"^training was refused more memory: give the profile more, set train.accumulation=2 \(parts"
    with pytest.raises(ShortOfMemoryError, match=told):
        run(job)


STAGE_PROGRAM = """
import sys
from pathlib import Path
from typing import Any
from components.train import workers
from tests.wordmill.training.tiny import make_job
folder = Path(sys.argv[1])
worker = (
    "import os, sys, time; from wordmill.store.children import die_with_parent; die_with_parent(); "
    "open(sys.argv[1] + '/worker', 'w').write(str(os.getpid())); time.sleep(60)"
)
launcher = (
    "import subprocess, sys; "
    "subprocess.run([sys.executable, '-c', sys.argv[1], sys.argv[2]], start_new_session=True)"
)
workers.launch = lambda *_: [sys.executable, "-c", launcher, worker, str(folder)]
job = make_job(folder)
(folder / "pulse.0").write_text("1")
workers.GRACE_S = 0.5
workers.run_workers(job, lambda: None, lambda left_s: print("kept", flush=True))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has PR_SET_PDEATHSIG")
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_when_the_stage_is_stopped(how: signal.Signals, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", STAGE_PROGRAM, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    noted = tmp_path / "worker"
    wait_until(lambda: noted.exists() and bool(noted.read_text()))
    worker = int(noted.read_text())
    assert is_alive(worker)
    process.send_signal(how)
    printed, complaint = process.communicate(timeout=LIMIT_S)
    assert ("stopped by SIGTERM" in complaint) == ("kept" in printed) == (how == signal.SIGTERM)
    assert (tmp_path / "stop").exists() == (how == signal.SIGTERM)
    wait_until(lambda: not is_alive(worker))


def test_a_signal_while_the_launcher_is_started_leaves_none_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started, popen = list[subprocess.Popen[bytes]](), subprocess.Popen

    def signalled(*arguments: Any, **options: Any) -> subprocess.Popen[bytes]:
        started.append(popen(*arguments, **options))
        os.kill(os.getpid(), signal.SIGTERM)  # before anybody knows of the process
        return started[0]

    monkeypatch.setattr(workers, "GRACE_S", 0.0)
    job = fake_job(tmp_path, "import time; time.sleep(60)", monkeypatch)
    monkeypatch.setattr(subprocess, "Popen", signalled)
    with pytest.raises(StoppedError, match="training was stopped by SIGTERM"):
        run(job)
    assert started[0].returncode == -signal.SIGKILL
