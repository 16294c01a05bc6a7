"""Room on a disk: asked for before work starts, and said clearly when it runs out all the same."""

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

RESERVE = 64 << 20  # bytes of disk left free


@contextmanager
def room(what: str, folder: Path, needed: int) -> Iterator[None]:
    """Refuse to start without room for `needed` bytes in a folder; RuntimeError too when it runs out on the way."""
    free = shutil.disk_usage(folder).free
    if needed + RESERVE > free:
        raise RuntimeError(f"{what}: {needed:,} bytes do not fit on {folder}, {free:,} are free: make room")
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise RuntimeError(f"{what}: no space left on {folder}: make room and run again") from None
