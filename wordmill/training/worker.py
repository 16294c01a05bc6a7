"""A training process among those that start and watch it: `python -m wordmill.training.worker pt|ms JOB`.

It is tied to its launcher before it imports a framework, which takes seconds, on a busy machine minutes.
"""

import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wordmill.store.children import die_with_parent
from wordmill.store.files import write_atomically


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


def main(twin: str, job: str) -> None:
    """Train by a job file in the framework of a twin, pt or ms."""
    die_with_parent()
    importlib.import_module(f"wordmill.training.{twin}.train").main(Path(job))


if __name__ == "__main__":
    main(*sys.argv[1:])
