"""A training process among those that start and watch it: when it ends, and what it tells of itself."""

import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wordmill.store.files import write_atomically

PR_SET_PDEATHSIG = 1  # from Linux's <sys/prctl.h>


def die_with_parent() -> None:
    """Have the kernel kill this process when the one that started it ends, however it ends (Linux alone has this).

    Launchers start workers in sessions of their own, where a signal to the launcher's group does not reach them.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


@contextmanager
def at_work(folder: Path, rank: int) -> Iterator[None]:
    """Note a worker's process in worker.<rank> while it works, so that the stage sees when it is killed.

    Its exception is left in failure.<rank>.txt, where the stage finds it among all that launchers print.
    """
    note = folder / f"worker.{rank}"
    write_atomically(note, str(os.getpid()))
    try:
        yield
    except Exception as error:
        write_atomically(folder / f"failure.{rank}.txt", f"{type(error).__name__} in process {rank}: {error}")
        raise
    finally:
        note.unlink()
