"""Kills a forked copy of this process at each of its events in turn, starts another, and tells what became of the work.

Events are what a kill may come between: files opened to write, written by half, renamed, removed, synchronised, locks,
and requests to S3 and MLflow, each before it is sent and before its answer is seen.
"""

import json
import os
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import botocore.client
import requests

from wordmill.models import checkpoint

KILLED, BROKEN = 137, 99
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
CHANGES = {"os.rename": "rename", "os.remove": "remove", "os.rmdir": "remove", "os.mkdir": "make a folder",
           "os.link": "link", "os.symlink": "link", "os.truncate": "truncate"}  # fmt: skip
Attempt = Callable[[Path, int], tuple[int, list[str]]]  # by folder and point: the exit code, the kinds of all events
VERDICTS = ("clean", "crash", "silent", "lost", "left over")


class Points:
    """Counts the events below a folder of this process and its copies, and ends who has one of them, 1..; 0: nobody."""

    def __init__(self, folder: Path, at: int) -> None:
        self.folder, self.at, self.mutex = str(folder), at, threading.RLock()
        self.kinds = TemporaryFile(dir=folder.parent)  # noqa: SIM115 (copies write on where this one stands)

    def happens(self, kind: str, half: Callable[[], object] = lambda: None) -> None:
        """Count an event; the process that ends at it has done half of it before."""
        with self.mutex:
            os.write(self.kinds.fileno(), f"{kind}\n".encode())
            if self.at and len(self.told()) == self.at:
                self.at = 0
                half()
                os._exit(KILLED)

    def told(self) -> list[str]:
        """Return the kinds of all events so far."""
        return os.pread(self.kinds.fileno(), 1 << 20, 0).decode().splitlines()

    def hear(self, name: str, told: tuple[Any, ...]) -> None:
        """Take an audit event of Python's."""
        if name == "fcntl.flock":
            self.happens("lock")
        elif name == "open" and isinstance(told[2], int) and told[2] & WRITES and self.has(told[0]):
            self.happens("open to write")
        elif name in CHANGES and (self.has(told[0]) or told[-1] not in (-1, told[0])):  # by the folder's descriptor
            self.happens(CHANGES[name])

    def has(self, path: object) -> bool:
        """Tell whether a path lies below the folder."""
        return isinstance(path, str | os.PathLike) and os.fspath(path).startswith(self.folder)

    def around(self, owner: Any, name: str, before: str, after: str = "") -> None:
        """Have calls of a function be events, before and after."""
        call = getattr(owner, name)

        def called(*arguments: Any, **options: Any) -> Any:
            self.happens(before)
            result = call(*arguments, **options)
            if after:
                self.happens(after)
            return result

        setattr(owner, name, called)

    def watch(self) -> None:
        """Begin to count, for good."""
        write_bytes, save_file = Path.write_bytes, checkpoint.save_file

        def written(path: Path, content: bytes) -> int:
            self.happens("write", lambda: write_bytes(path, content[: len(content) // 2]))
            return write_bytes(path, content)

        def saved(tensors: Any, path: Path, metadata: Any) -> None:
            self.happens("write", lambda: write_bytes(path, b"half of it"))
            save_file(tensors, path, metadata)

        Path.write_bytes, checkpoint.save_file = written, saved  # type: ignore[method-assign, assignment]
        self.around(os, "fsync", "fsync")
        self.around(botocore.client.BaseClient, "_make_api_call", "S3 request", "S3 answer")
        self.around(requests.Session, "send", "MLflow request", "MLflow answer")
        sys.addaudithook(self.hear)


def counted(work: Callable[[], object], folder: Path, at: int) -> None:
    """Do work in this process, which ends at an event, or leaves the kinds of all of them."""
    points = Points(folder, at)
    points.watch()
    work()
    points.at = 0
    folder.with_name(f"{folder.name}.kinds").write_text(json.dumps(points.told()))


def kinds_of(folder: Path) -> list[str]:
    """Return the kinds of the events of work that came to its end."""
    kinds: list[str] = json.loads(folder.with_name(f"{folder.name}.kinds").read_bytes())
    return kinds


def forked(work: Callable[[], object], folder: Path, at: int = 0) -> tuple[int, list[str]]:
    """Do work in a copy of this process that ends at an event; return its exit code and the kinds of its events."""
    if pid := os.fork():
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        return code, kinds_of(folder) if code == 0 else []
    code = BROKEN
    try:  # nothing of the tests may run on in the copy
        log = os.open(folder.with_name(f"{folder.name}.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for stream in (1, 2):
            os.dup2(log, stream)
        sys.stdout = sys.stderr = os.fdopen(1, "w", encoding="utf-8", buffering=1, closefd=False)
        counted(work, folder, at)
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else BROKEN
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


@dataclass(frozen=True)
class Found:
    """What there is of finished work: its result, what of it is missing, and what else lies about, here and in S3."""

    result: object
    missing: list[str]
    about: object


@dataclass
class Tally:
    """What became of a work at each of its points."""

    points: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def row(self, name: str) -> str:
        """Return a line of the table."""
        return f"| {name} | {self.points} | {' | '.join(str(self.verdicts[verdict]) for verdict in VERDICTS)} |"


def try_all(
    prepare: Callable[[int], Path], work: Attempt, look: Callable[[], Found], points: int = sys.maxsize
) -> Tally:
    """Kill work at every one of its points, or at about so many that lie evenly, and start it again.

    `prepare` makes the place for a try of this number and returns the folder whose events count. POINTS in the
    environment asks for fewer.
    """
    points = min(points, int(os.environ.get("POINTS", points)))
    folder = prepare(0)
    code, kinds = work(folder, 0)
    assert code == 0, folder.with_name(f"{folder.name}.log").read_text()[-3000:]
    expected, tally = look(), Tally()
    for at in range(1, len(kinds) + 1, max(1, len(kinds) // points)):
        folder = prepare(at)
        work(folder, at)
        code, _ = work(folder, 0)
        verdict = judge(code, expected, look() if code == 0 else expected)
        tally.points += 1
        tally.verdicts[verdict] += 1
        print(f"{at}/{len(kinds)} {kinds[at - 1]}: {verdict}", flush=True)
        if verdict != "clean":
            log = folder.with_name(f"{folder.name}.log").read_text()[-1500:]
            told = "; ".join(differences(expected, look())) if code == 0 else f"code {code}"
            tally.wrong.append(f"{verdict} at point {at} of {len(kinds)}, {kinds[at - 1]}: {told}\n{log}")
            print(tally.wrong[-1], flush=True)
    return tally


def differences(expected: Found, found: Found) -> list[str]:
    """Name the parts of what was expected that are not so."""
    return [f"{name}: found {getattr(found, name)}, expected {getattr(expected, name)}"
            for name in ("result", "missing", "about") if getattr(found, name) != getattr(expected, name)]  # fmt: skip


def judge(code: int, expected: Found, found: Found) -> str:
    """Return the verdict on work that was killed and started again."""
    if code:
        return "crash"
    if found.missing:
        return "lost"
    if found.result != expected.result:
        return "silent"
    return "clean" if found.about == expected.about else "left over"
