"""Files that appear whole or not at all, locks that end with their process, room on a disk; where output goes."""

import errno
import fcntl
import hashlib
import os
import re
import secrets
import shutil
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    import numpy as np

CHUNK = 8 << 20  # bytes at a time
RESERVE = 64 << 20  # bytes of disk left free
FULL = {errno.ENOSPC, errno.EDQUOT}
TEMPORARY = re.compile(r".+\.[0-9a-f]{12}\.part(\..+)?")  # and what a writer, such as boto3, appends to it
LEFT_OVER_S = 3600.0  # a temporary file so old belongs to a process that was killed


@contextmanager
def atomic_file(path: Path, ending: str = "") -> Iterator[Path]:
    """Give a temporary name beside a file; what is written there becomes the file unless the writing fails.

    `ending` is for writers that append it to names without it.
    """
    temporary = temporary_path(path, ending)
    try:
        yield temporary
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Give an empty temporary folder beside one that is not there; it becomes that unless the filling fails."""
    temporary = temporary_path(folder)
    temporary.mkdir()
    try:
        yield temporary
        temporary.replace(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file of text, in UTF-8, or of bytes under a temporary name, then rename it."""
    with atomic_file(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def write_arrays(file: BinaryIO, arrays: "Mapping[str, np.ndarray[Any, Any]]") -> None:
    """Write arrays as `numpy.load` reads them; equal ones have equal bytes.

    `numpy.savez` streams into the archive, whose heads are others from Python 3.11.4 on.
    """
    from numpy.lib import format as numpy_format

    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            content = BytesIO()
            numpy_format.write_array(content, array, allow_pickle=False)  # type: ignore[no-untyped-call]
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), content.getbuffer())


def usual_mode(path: Path) -> int:
    """Make an empty file, and return the mode that files of this process have: some libraries write for it alone."""
    path.touch()
    return path.stat().st_mode


def temporary_path(path: Path, ending: str = "") -> Path:
    """Return a name of one's own beside a file or folder; pods share folders, where process numbers say nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path.parent)
    return path.with_name(f"{path.name}.{secrets.token_hex(6)}.part{ending}")


@cache
def _sweep(folder: Path) -> None:
    """Remove from a folder, once in a process, what killed processes have left half-written there."""
    with suppress(OSError):  # a folder that cannot be listed can be written to all the same
        for path in [Path(entry.path) for entry in os.scandir(folder) if TEMPORARY.fullmatch(entry.name)]:
            with suppress(OSError):  # another process removes it, too, or has just given it its name
                # Not by mtime, which a link to another file has of that.
                changed = max(one.lstat().st_ctime for one in (path, *path.rglob("*")))
                if time.time() - changed > LEFT_OVER_S:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()


def remove_whole(folder: Path) -> None:
    """Remove a folder with all that is in it and can be removed."""
    shutil.rmtree(folder, ignore_errors=True)


def sweep_abandoned(parent: Path, days: float, own: str = "", remove: Callable[[Path], object] = remove_whole) -> None:
    """Remove the folders, but for one's own, that nobody has gone on with for so long, each with its free lock."""
    for lock in parent.glob("*.lock"):
        folder = lock.with_suffix("")
        if folder.name == own:
            continue
        with suppress(OSError):  # held, or removed by another process meanwhile
            changed = max(path.stat().st_mtime for path in (lock, folder, *folder.glob("*")) if path.exists())
            if time.time() - changed > 86400 * days:
                with locked(lock, wait=False, remove=True):
                    remove(folder)


@contextmanager
def locked(path: Path, *, wait: bool = True, waiting: str = "", remove: bool = False) -> Iterator[None]:
    """Keep other threads and processes out; the kernel frees the lock of a process that ends, however it ends.

    Who has to wait prints the line `waiting`, or gets BlockingIOError without `wait`. The file stays, unless it is to
    be removed with the lock, or is within.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with path.open("ab") as file:
            lock(file, wait=wait, waiting=waiting)
            if is_at(path, file):  # else the last owner has removed it meanwhile, and a third may hold a new one
                try:
                    yield
                finally:
                    if remove:
                        path.unlink(missing_ok=True)
                return


def lock(file: BinaryIO, *, wait: bool = True, waiting: str = "", shared: bool = False) -> None:
    """Lock an open file until it is closed, as `locked` does with a path; a shared lock keeps the other kind out."""
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        if not wait:
            raise
        if waiting:
            print(f"{waiting}\n", end="", flush=True)  # one write, line end included: threads wait, too
        fcntl.flock(file, kind)


def is_at(path: Path, file: BinaryIO) -> bool:
    """Tell whether an open file is the one at a path, not one that was removed from there."""
    with suppress(FileNotFoundError):
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    return False


def is_full(error: Exception) -> bool:
    """Tell whether a write failed for want of room; safetensors tells the kernel's number in its text alone."""
    if isinstance(error, OSError):
        return error.errno in FULL
    found = re.search(r"os error (\d+)", str(error))
    return found is not None and int(found[1]) in FULL


@contextmanager
def require_space(what: str, folder: Path, needed: int) -> Iterator[None]:
    """Refuse to start without room for `needed` bytes in a folder; RuntimeError too when it runs out on the way."""
    free = shutil.disk_usage(folder).free
    if needed + RESERVE > free:
        raise RuntimeError(f"{what}: {needed:,} bytes do not fit on {folder}, {free:,} are free: make room")
    try:
        yield
    except OSError as error:
        if not is_full(error):
            raise
        raise RuntimeError(f"{what}: no space left on {folder}: make room and run again") from None


def copy_file(source: Path, target: Path) -> str:
    """Copy a file and return the sha256 of what was copied, by one reading."""
    digest = hashlib.sha256()
    with source.open("rb") as reader, target.open("wb") as writer:
        while chunk := reader.read(CHUNK):
            digest.update(chunk)
            writer.write(chunk)
    return digest.hexdigest()


@contextmanager
def redirected(descriptor: int, other: int) -> Iterator[None]:
    """Send what is written to a file descriptor meanwhile, by child processes too, to where another one leads."""
    kept = os.dup(descriptor)
    os.dup2(other, descriptor)
    try:
        yield
    finally:
        os.dup2(kept, descriptor)
        os.close(kept)
