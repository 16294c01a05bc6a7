"""What is kept of the store on this machine, objects and blocks: one bound for both, what was used longest ago goes.

`used` has the sum of the files below `objects` and `blocks`, so that no process looks through them each time. A file
that somebody uses has a lock on it, shared with others', which the kernel frees when the process ends: it stays. Where
more is in use than the bound allows, the cache takes that and an eighth of the bound.
"""

import os
import shutil
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

from wordmill.store.files import LEFT_OVER_S, atomic_file, is_at, lock, locked, write_atomically

VARIABLE, DEFAULT_BYTES = "WORDMILL_CACHE_BYTES", 32 << 30
COUNTED = ("objects", "blocks")


def limit_bytes(cache: Path) -> int:
    """Return the bound: WORDMILL_CACHE_BYTES, else nine tenths of a volume that is the cache's own, else 32 GiB."""
    text = os.environ.get(VARIABLE)
    if not text:
        return shutil.disk_usage(cache).total * 9 // 10 if cache.is_mount() else DEFAULT_BYTES
    if not text.isdecimal():
        raise ValueError(f"{VARIABLE}: found {text!r}, expected a number of bytes")
    return int(text)


class Quota:
    """The bound of a cache; safe to use from many threads and processes."""

    def __init__(self, cache: Path) -> None:
        self.cache, self.limit = cache, limit_bytes(cache)
        self.spare = self.limit // 8  # looking through the folders takes a while: so much more room is made

    @contextmanager
    def room(self, size: int) -> Iterator[None]:
        """Make room for so many bytes and count them; what has no file of that size yet is to get it within."""
        sums = self.cache / "quota" / "used"
        with locked(sums.with_name("lock")):
            text = sums.read_text() if sums.exists() else ""
            used, in_use = map(int, text.split()) if text else self._evict(self.limit)
            if used + size > max(self.limit, in_use + self.spare):
                used, in_use = self._evict(max(0, self.limit - size - self.spare))
            with suppress(OSError):  # no room: what is written within says so
                write_atomically(sums, f"{used + size} {in_use}")
            yield

    @contextmanager
    def file(self, path: Path, size: int) -> Iterator[Path]:
        """Give a temporary file of so many bytes, counted from now on; what is written there becomes the file."""
        with atomic_file(path) as temporary:
            with self.room(size), temporary.open("wb") as file:
                file.truncate(size)
            yield temporary

    def _evict(self, target: int) -> tuple[int, int]:
        """Remove files, least recently used first, until at most `target` bytes are left.

        Return how many are, and how many of those come first, but are in use.
        """
        states = []
        for path in (path for kind in COUNTED for path in (self.cache / kind).glob("??/*")):
            with suppress(FileNotFoundError):  # a temporary file that got its name by now
                states.append((path, path.stat()))
        left, in_use = sum(state.st_size for _, state in states), 0
        for path, state in sorted(states, key=lambda pair: pair[1].st_atime_ns):
            if left <= target:
                break
            if self._remove(path, state):
                left -= state.st_size
            else:
                in_use += state.st_size
        return left, in_use

    def _remove(self, path: Path, state: os.stat_result) -> bool:
        """Remove a file that nobody uses or is still writing, and tell whether it is gone."""
        if path.suffix == ".part" and time.time() - state.st_mtime < LEFT_OVER_S:
            return False
        try:
            with path.open("r+b") as file:
                lock(file, wait=False)
                path.unlink()
        except FileNotFoundError:
            return True
        except OSError:  # it is locked, or another user's
            return False
        place_of_note(self.cache, path.name).unlink(missing_ok=True)
        return True


class ObjectCache:
    """The objects of the store that are files here. What it has been asked for stays until it is let go of."""

    def __init__(self, cache: Path) -> None:
        self.cache, self.mutex = cache, threading.Lock()
        self.in_use: dict[str, BinaryIO] = {}
        weakref.finalize(self, _close, self.in_use)

    @cached_property
    def quota(self) -> Quota:
        """The bound, read when something is to be kept."""
        return Quota(self.cache)

    def path(self, sha256: str) -> Path:
        """Return the place of an object."""
        return self.cache / "objects" / sha256[:2] / sha256

    def take(self, sha256: str) -> os.stat_result | None:
        """Return the state of an object's file, which stays from now on; None where there is none."""
        path = self.path(sha256)
        with self.mutex, suppress(FileNotFoundError):
            if sha256 not in self.in_use or not is_at(path, self.in_use[sha256]):
                self._hold(sha256, path)
            return mark_used(path)
        return None

    def remove(self, sha256: str) -> None:
        """Remove an object's file, whoever uses it: it is damaged."""
        with self.mutex:
            self._let_go(sha256)
            self.path(sha256).unlink(missing_ok=True)

    @contextmanager
    def filling(self, sha256: str, size: int) -> Iterator[Path]:
        """Give a temporary name for an object's bytes, which must be found to be whole before the end, and take it."""
        with self.quota.file(self.path(sha256), size) as temporary:
            yield temporary
            self.note(sha256, temporary.stat())
            with self.mutex:
                self._hold(sha256, temporary)

    def keep(self, path: Path, sha256: str, state: os.stat_result) -> None:
        """Keep a file that is this object: a link to it, or a copy where it lies on another file system."""
        cached = self.path(sha256)
        with suppress(FileNotFoundError):
            mark_used(cached)
            return
        cached.parent.mkdir(parents=True, exist_ok=True)
        with self.quota.room(state.st_size):
            linked = _link(path, cached)
        if linked:
            self.note(sha256, state)
        else:
            with atomic_file(cached) as temporary:
                shutil.copyfile(path, temporary)

    def note(self, sha256: str, state: os.stat_result) -> None:
        """Write down that the file of this state holds the object."""
        write_atomically(place_of_note(self.cache, sha256), _identity(state))

    def is_noted(self, sha256: str, state: os.stat_result) -> bool:
        """Tell whether the file of this state is known to hold the object."""
        noted = place_of_note(self.cache, sha256)
        return noted.exists() and noted.read_text() == _identity(state)

    def _hold(self, sha256: str, path: Path) -> None:
        """Lock a file against its removal; FileNotFoundError where it is gone."""
        while True:
            file = path.open("rb")
            lock(file, shared=True)
            if is_at(path, file):
                break
            file.close()  # it was removed before it was locked
        self._let_go(sha256)
        self.in_use[sha256] = file

    def _let_go(self, sha256: str) -> None:
        if file := self.in_use.pop(sha256, None):
            file.close()


def mark_used(path: Path) -> os.stat_result:
    """Have a file count as used just now, and return its state, of which only that has changed."""
    state = path.stat()
    with suppress(OSError):  # another user's, or on a disk that is only read
        os.utime(path, ns=(time.time_ns(), state.st_mtime_ns))
    return state


def place_of_note(cache: Path, sha256: str) -> Path:
    """Return where it stands which file was found to hold an object."""
    return cache / "verified" / sha256[:2] / sha256


def _identity(state: os.stat_result) -> str:
    """Return what is another where a file is another, or has been written to."""
    return f"{state.st_ino} {state.st_size} {state.st_mtime_ns}"


def _link(path: Path, cached: Path) -> bool:
    try:
        os.link(path, cached)
        mark_used(cached)
    except FileExistsError:  # another process was quicker
        return True
    except OSError:
        return False
    return True


def _close(files: dict[str, BinaryIO]) -> None:
    for file in files.values():
        file.close()
