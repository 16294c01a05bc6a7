"""Processes end with the one that started them, at whatever moment that is."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.waiting import wait_until
from tests.wordmill.training.test_worker import is_alive
from wordmill.store.children import LAUNCHER, LINUX, lineage, tied

pytestmark = pytest.mark.skipif(not LINUX, reason="only Linux has PR_SET_PDEATHSIG")
ASLEEP = "import os, threading; print(os.getpid(), flush=True); threading.Event().wait()"


def test_a_command_becomes_a_process_that_ends_with_its_parent() -> None:
    command = [sys.executable, "-c", ASLEEP]
    code = f"import subprocess; from wordmill.store.children import tied; subprocess.run(tied({command}))"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    assert is_alive(child)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    wait_until(lambda: not is_alive(child))


def test_a_command_is_started_as_it_is_told_and_says_how_it_ended(tmp_path: Path) -> None:
    done = subprocess.run(tied([sys.executable, "-c", "import sys; sys.exit(int(sys.argv[1]))", "7"]), check=False)
    assert done.returncode == 7


def test_a_command_whose_parent_is_gone_already_is_not_begun(tmp_path: Path) -> None:
    """The number of a process that has ended stands for a parent that was killed while Python was starting."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    command = tied([sys.executable, "-c", f"open({str(tmp_path / 'begun')!r}, 'w')"])
    command[3] = str(gone.pid)
    assert subprocess.run(command, check=False).returncode == 1
    assert not (tmp_path / "begun").exists()


def test_a_worker_whose_launcher_ended_while_it_was_starting_ends_too() -> None:
    code = "from wordmill.store.children import die_with_parent; die_with_parent(); print('goes on')"
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for launcher, told in ((gone.pid, ""), (os.getpid(), "goes on\n")):
        variables = os.environ | {LAUNCHER: str(launcher)}
        done = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=False)
        assert (done.stdout, done.returncode) == (told, 0 if told else 1)


def test_lineage_leads_from_this_process_to_the_first() -> None:
    found = list(lineage())
    assert found[:2] == [os.getpid(), os.getppid()]
    assert len(found) == len(set(found))
