"""Downloads in pieces, several at once; what is there survives a kill at any byte and is not fetched again."""

import json
import os
import re
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import xxhash

from wordmill.sources.patience import CancelledError, ChangedError, patiently
from wordmill.sources.remote import Remote
from wordmill.store.files import RESERVE, require_space, write_atomically
from wordmill.store.progress import Progress

PIECE = 8 << 20  # bytes: what one request asks for, and at most what a kill costs each connection
SMALL = 1 << 20  # bytes: of files up to this size no server is asked for ranges
CONNECTIONS = 8  # at once for one source, over all its files
JOURNAL_LINE = re.compile(r"(\d+) (\d+) ([0-9a-f]{16})")

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Part:
    """A file that is being downloaded: its bytes so far, and beside it the journal of its pieces that are whole.

    The journal's first line is the file's version and size on the server, each further one a piece's start, end and
    xxh3_64 digest, by which a piece is believed: a journal may reach the disk before what it lists.
    """

    remote: Remote
    path: Path

    @property
    def journal(self) -> Path:
        """The list of the whole pieces."""
        return self.path.with_name(f"{self.path.name}.journal")

    def whole(self) -> set[tuple[int, int]]:
        """Return the pieces that are whole; where the file is of another version, begin it anew."""
        title = json.dumps([self.remote.version, self.remote.size])
        lines = self.journal.read_text("utf-8", errors="replace").split("\n") if self.journal.exists() else [""]
        if lines[0] != title or not self.path.exists():
            lines = [title]
            self.path.write_bytes(b"")
        kept = [line for line in lines[1:] if self._is_whole(line)]
        write_atomically(self.journal, "".join(f"{line}\n" for line in [title, *kept]))
        return {(int(start), int(stop)) for start, stop, _ in map(str.split, kept)}

    def note(self, start: int, stop: int, digest: str) -> None:
        """Write down that a piece is whole."""
        with self.journal.open("a", encoding="utf-8") as file:
            file.write(f"{start} {stop} {digest}\n")

    def _is_whole(self, line: str) -> bool:
        match = JOURNAL_LINE.fullmatch(line)
        if not match:  # cut when it was written
            return False
        left, found = int(match[2]) - int(match[1]), xxhash.xxh3_64()
        with self.path.open("rb") as file:
            file.seek(int(match[1]))
            while left and (chunk := file.read(min(left, PIECE))):
                found.update(chunk)
                left -= len(chunk)
        return left == 0 and found.hexdigest() == match[3]


def download(what: str, remotes: dict[str, Remote], folder: Path, stop: threading.Event) -> dict[str, Path]:
    """Bring files into a folder and return their paths by name; what an earlier try left there is not fetched again.

    `stop` ends the work when it is set, here too where one of the files fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parts = {name: Part(remote, folder / f"{number:05}.part") for number, (name, remote) in enumerate(remotes.items())}
    try:
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            plans = _together(pool, stop, [partial(_pieces, part, stop) for part in parts.values()])
            pieces = [piece for plan in plans for piece in plan]
            total = sum(remote.size or 0 for remote in remotes.values())
            missing = sum((piece.stop or 0) - piece.start for piece in pieces)
            with require_space(what, folder, missing):
                tally = _Tally(Progress(what, total >> 20, "MB", already=(total - missing) >> 20), total - missing)
                _together(pool, stop, [partial(piece.bring, tally, stop) for piece in pieces])
    except RuntimeError as error:
        # What has changed is of no use any more; a full disk stops everything else, too.
        if isinstance(error, ChangedError) or shutil.disk_usage(folder).free < RESERVE:
            shutil.rmtree(folder)
        raise
    for part in parts.values():
        if part.remote.size is not None:
            os.truncate(part.path, part.remote.size)  # which an earlier try may have passed
    return {name: part.path for name, part in parts.items()}


class _Tally:
    """Counts the bytes of all connections."""

    def __init__(self, progress: Progress, done: int) -> None:
        self.progress, self.done, self.mutex = progress, done, threading.Lock()

    def add(self, count: int) -> None:
        with self.mutex:
            before, self.done = self.done >> 20, self.done + count
            if before != self.done >> 20:
                self.progress.update(self.done >> 20)


@dataclass
class _Piece:
    """A range of a file on its way; one that the server cannot send alone starts again after each break."""

    part: Part
    start: int
    stop: int | None
    resumes: bool
    at: int = 0
    furthest: int = 0
    digest: xxhash.xxh3_64 = field(default_factory=xxhash.xxh3_64)

    def bring(self, tally: _Tally, stop: threading.Event) -> None:
        """Download the piece and note it in the journal."""
        address = self.part.remote.address
        self.at = self.start
        try:
            patiently(address, stop, partial(self._once, tally, stop), lambda: self.furthest)
        except ChangedError as error:
            raise ChangedError(f"{address}: changed while it was downloaded: {error}: run again") from None
        self.part.note(self.start, self.at, self.digest.hexdigest())

    def _once(self, tally: _Tally, stop: threading.Event) -> None:
        if not self.resumes:
            tally.add(self.start - self.at)
            self.at, self.digest = self.start, xxhash.xxh3_64()
        with self.part.path.open("r+b") as file:
            file.seek(self.at)
            for chunk in self.part.remote.read(self.at, self.stop):
                if stop.is_set():
                    raise CancelledError
                if self.stop is not None and self.at + len(chunk) > self.stop:
                    raise ConnectionError(f"it sent more than the {self.stop - self.start} bytes that it announced")
                file.write(chunk)
                self.digest.update(chunk)
                self.at += len(chunk)
                self.furthest = max(self.furthest, self.at)
                tally.add(len(chunk))
        if self.stop is not None and self.at < self.stop:
            raise ConnectionError(f"the connection ended after {self.at} of {self.stop} bytes")


def _pieces(part: Part, stop: threading.Event) -> list[_Piece]:
    """Return the pieces of a file that are missing."""
    whole, size = part.whole(), part.remote.size
    if size is None:
        return [] if whole else [_Piece(part, 0, None, resumes=False)]
    resumes = size > SMALL and patiently(part.remote.address, stop, part.remote.ranged)
    step = PIECE if resumes else max(size, 1)
    ranges = [(start, min(start + step, size)) for start in range(0, size, step)]
    return [_Piece(part, *piece, resumes=resumes) for piece in ranges if piece not in whole]


def _together(pool: ThreadPoolExecutor, stop: threading.Event, calls: list[Callable[[], Answer]]) -> list[Answer]:
    """Return the results of calls that run at once; the first failure stops the others."""
    futures = [pool.submit(call) for call in calls]
    try:
        for future in as_completed(futures):
            future.result()
    except BaseException:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)
        raise
    return [future.result() for future in futures]
