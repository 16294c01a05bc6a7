"""Processes that end when the one that started them does, however it ends and however busy the machine is.

The kernel kills a process at its parent's end that has asked for that (Linux alone has this). To ask between fork and
exec, beside other threads, may hang: a small program asks, and then becomes the command that it was told:
`python -m wordmill.store.children PARENT COMMAND ...`, PARENT the number of the process that starts it.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

PR_SET_PDEATHSIG = 1  # from Linux's <sys/prctl.h>
LAUNCHER = "WORDMILL_LAUNCHER"  # the number of the process that a command has become, for those below it
LINUX = sys.platform == "linux"


def tied(command: list[str]) -> list[str]:
    """Return a command whose process ends with this thread; PYTHONPATH must lead to this package."""
    return [sys.executable, "-m", "wordmill.store.children", str(os.getpid()), *command] if LINUX else command


def die_with_parent() -> None:
    """Have the kernel kill this process when the one that started it ends, and end where that is gone already.

    Launchers start workers in sessions of their own, where a signal to the launcher's group does not reach them.
    """
    if LINUX:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if (launcher := os.environ.get(LAUNCHER)) and int(launcher) not in lineage():
            os._exit(1)


def lineage() -> Iterator[int]:
    """Give the numbers of this process, its parent and on, as far as they can be seen."""
    pid = os.getpid()
    with suppress(FileNotFoundError):
        while pid:
            yield pid
            pid = int(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])


def main(parent: int, command: list[str]) -> None:
    """Become the command, as a process that ends with its parent."""
    os.environ.pop(LAUNCHER, None)
    die_with_parent()
    if os.getppid() != parent:
        sys.exit(1)
    os.environ[LAUNCHER] = str(os.getpid())
    os.execvp(command[0], command)  # noqa: S606 (no shell is wanted)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
