import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from wordmill.training.worker import at_work


def test_a_worker_leaves_its_error_where_the_stage_looks(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="too wide"), at_work(tmp_path, 3):
        raise ValueError("picture 7 is too wide")
    assert (tmp_path / "failure.3.txt").read_text() == "ValueError in process 3: picture 7 is too wide"


def test_a_worker_notes_its_process_while_it_works(tmp_path: Path) -> None:
    with at_work(tmp_path, 3):
        assert (tmp_path / "worker.3").read_text() == str(os.getpid())
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has PR_SET_PDEATHSIG")
def test_a_worker_in_a_session_of_its_own_dies_with_its_parent() -> None:
    child = (
        "import os, time; from wordmill.training.worker import die_with_parent; die_with_parent(); "
        "print(os.getpid(), flush=True); time.sleep(60)"
    )
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}], start_new_session=True)"
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    worker = int(process.stdout.readline())
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    deadline = time.monotonic() + 10
    while is_alive(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_alive(worker)


def is_alive(pid: int) -> bool:
    """Tell whether a process runs; one that has ended but was not collected does not."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False
