"""Picture files with a UTF-8 text file that has a line for each, in one of four forms."""

from __future__ import annotations  # array takes its items' type in annotations alone

import json
import os
import re
import stat
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

from wordmill.readers.sample import Sample

BOM = b"\xef\xbb\xbf"
MOST_BYTES = 64 << 20  # of a picture file, and of a line
ESCAPED = re.compile(r'\\(["\\])')
ICDAR = re.compile(r'([^,]+),\s*"(.*)"\s*', re.DOTALL)


class LabelFile:
    """The samples of a label file; blank lines count for nothing, a byte order mark and CRLF make no difference.

    space:     `path label`
    dtrb:      `path<TAB>label`, and no other TAB
    icdar:     `path, "label"` with \\" and \\\\ for " and \\ (ICDAR 2013, 2015)
    paddleocr: `path<TAB>label`, and what follows another TAB is not read; the path may be a JSON list of paths, of
               which PaddleOCR draws one at random: here the line's number chooses

    Paths count from the label file's folder, or else from the root. Lines are parsed when they are read: memory is 12
    bytes per line.
    """

    def __init__(self, root: Path, labels: str, form: str) -> None:
        self.path, self.labels, self.form = root / labels, labels, form
        if not self.path.is_file():
            found = sorted(file.relative_to(root).as_posix() for file in root.rglob("*.txt"))[:8]
            raise ValueError(f"label file '{labels}' is not in the archive; text files there: {found}")
        self.folders = list(dict.fromkeys((f"{self.path.parent}/", f"{root}/")))
        self.starts, self.lengths, self.blanks = self._index()

    def __len__(self) -> int:
        return len(self.starts)

    def read(self, indices: Iterable[int]) -> Iterator[Sample]:
        """Yield the samples of these lines; one that is malformed or without its picture is a sample with a problem."""
        with self.path.open("rb", buffering=0) as file:
            for index in indices:
                line = os.pread(file.fileno(), self.lengths[index], self.starts[index])
                yield self._sample(index, line.decode().rstrip("\r\n"))

    def _index(self) -> tuple[array[int], array[int], array[int]]:
        """Return where lines start, how long they are in bytes, and before which of them blank lines were left out."""
        starts, lengths, blanks, place = array("Q"), array("I"), array("I"), 0
        with self.path.open("rb") as file:
            place = len(BOM) if file.read(len(BOM)) == BOM else 0
            file.seek(place)
            for line in iter(partial(file.readline, MOST_BYTES), b""):
                if line.isspace():
                    blanks.append(len(starts))
                else:
                    self._check(line, place)
                    starts.append(place)
                    lengths.append(len(line))
                place += len(line)
        return starts, lengths, blanks

    def _check(self, line: bytes, place: int) -> None:
        if len(line) == MOST_BYTES:
            raise ValueError(f"{self.labels}: a line of {MOST_BYTES >> 20} MiB or more, at byte {place}: no label file")
        if not line.isascii():
            try:
                line.decode()
            except UnicodeDecodeError as error:
                raise ValueError(f"{self.labels}: not UTF-8 at byte {place + error.start}: convert it") from None

    def _sample(self, index: int, line: str) -> Sample:
        number = index + bisect_right(self.blanks, index) + 1
        path, label = self._parse(line, number)
        if not path:
            problem = f"no path and label: found {line[:80]!r}, expected the form '{self.form}'"
            return Sample(f"{self.labels}, line {number}", b"", "", problem)
        image, problem = self._picture(path)
        return Sample(f"{self.labels}, line {number}: {path}", image, label, problem)

    def _parse(self, line: str, number: int) -> tuple[str, str]:
        """Return path and label; no path: the line has not the form."""
        if self.form == "icdar":
            match = ICDAR.fullmatch(line)
            return (match[1], ESCAPED.sub(r"\1", match[2])) if match else ("", "")
        path, separator, label = line.partition(" " if self.form == "space" else "\t")
        if not separator or (self.form == "dtrb" and "\t" in label):
            return "", ""
        return (_choose(path, number), label.partition("\t")[0]) if self.form == "paddleocr" else (path, label)

    def _picture(self, path: str) -> tuple[bytes, str]:
        """Return a picture file's bytes, and what is wrong with it."""
        if path.startswith("/") or "\0" in path or ".." in path.split("/"):
            return b"", "picture file outside the data set"
        for folder in self.folders:
            try:
                return _read(folder + path)
            except FileNotFoundError:
                continue
            except OSError as error:
                return b"", f"picture file not readable: {error.strerror}"
        return b"", "picture file missing"


def _read(path: str) -> tuple[bytes, str]:
    """Return a file's bytes, and why they are no picture's; plain system calls take half of the time of Path's."""
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe must not be waited for
    try:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode) or found.st_size > MOST_BYTES:
            return b"", f"no picture file of at most {MOST_BYTES >> 20} MiB"
        return os.read(file, found.st_size), ""
    finally:
        os.close(file)


def _choose(path: str, number: int) -> str:
    """Return one path of a JSON list of them, or the path itself."""
    if not path.startswith("["):
        return path
    try:
        paths = json.loads(path)
    except (ValueError, RecursionError):
        return path
    chosen = paths[number % len(paths)] if paths else ""
    return chosen if isinstance(chosen, str) else ""
