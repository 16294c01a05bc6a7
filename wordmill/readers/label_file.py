"""Picture files with a text file that has a line for each, in one of six forms."""

from __future__ import annotations  # array takes its items' type in annotations alone

import json
import os
import re
import shutil
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

from wordmill.readers.finding import Finder, readable_name
from wordmill.readers.sample import Sample
from wordmill.recipe.plain import WIDE, is_wide, marked, not_utf8

ENDINGS = (".txt", ".csv", ".tsv", ".json", ".jsonl")  # of label files, to name where there is none of a name
BOM = b"\xef\xbb\xbf"
MOST_BYTES = 64 << 20  # of a line
MOST_LINES = 64  # of a record of csv, whose label may have ends of lines
ESCAPED = re.compile(r'\\(["\\])')
ICDAR = re.compile(r'([^,]+),\s*"(.*)"\s*', re.DOTALL)
CELL = re.compile(r'\s*"((?:[^"]|"")*)"\s*(?=,|\r?\n?\Z)|([^,]*)', re.DOTALL)
OPEN_CELL = re.compile(rb'(?:\A|,)\s*"(?:[^"]|"")*\Z')
# What columns and keys are called: EasyOCR, MMOCR, Hugging Face's folders of images.
PATHS = ("filename", "file_name", "file", "path", "img_path", "image_path", "image", "img")
LABELS = ("words", "word", "text", "label", "transcription", "gt")


class LabelFile:
    """The samples of a label file; blank lines count for nothing, a byte order mark and CRLF make no difference.

    space:     `path label`
    dtrb:      `path<TAB>label`, and no other TAB
    icdar:     `path, "label"` with \\" and \\\\ for " and \\ (ICDAR 2013, 2015)
    paddleocr: `path<TAB>label`, and what follows another TAB is not read; the path may be a JSON list of paths, of
               which PaddleOCR draws one at random: here the line's number chooses
    csv:       `path,label`, quoted as CSV is, perhaps under a line of names (EasyOCR); else a label may have commas
    jsonl:     `{"filename": path, "text": label}`, with these or other usual names (MMOCR, Hugging Face)

    The text is UTF-8, or UTF-16 or UTF-32 where a byte order mark says so. Paths count from the label file's
    folder, or else from the root. Lines are parsed when they are read: memory is 12 bytes per line.
    """

    notes = ()

    def __init__(self, root: Path, labels: str, form: str) -> None:
        found = Finder([f"{root}/"]).meant(labels)
        if len(found) != 1:
            there = found or [file for file in root.rglob("*") if file.suffix.lower() in ENDINGS]
            names = sorted(readable_name(os.fsencode(file.relative_to(root))) for file in there)
            raise ValueError(f"label file '{labels}' is not in the archive; text files there: {names[:8]}")
        self.path, self.labels, self.form = found[0], labels, form
        self.finder = Finder(list(dict.fromkeys((f"{self.path.parent}/", f"{root}/"))))
        self.converted = self._converted()
        self.starts, self.lengths, self.blanks = self._index()
        self.columns = self._columns() if form == "csv" else None

    def __len__(self) -> int:
        return len(self.starts)

    def read(self, indices: Iterable[int]) -> Iterator[Sample]:
        """Yield the samples of these lines; one that is malformed or without its picture is a sample with a problem."""
        with self._open() as file:
            for index in indices:
                yield self._sample(index, self._line(file, index))

    def _open(self) -> IO[bytes] | nullcontext[IO[bytes]]:
        return nullcontext(self.converted) if self.converted else self.path.open("rb", buffering=0)

    def _line(self, file: IO[bytes], index: int) -> str:
        return os.pread(file.fileno(), self.lengths[index], self.starts[index]).decode().rstrip("\r\n")

    def _converted(self) -> IO[bytes] | None:
        """Return the text in UTF-8 where it is UTF-16 or UTF-32, in a file that goes with this reader."""
        with self.path.open("rb") as file:
            if (encoding := marked(file.read(4))) not in ("utf-16", "utf-32"):
                return None
        made = TemporaryFile()  # noqa: SIM115 (it is read from as long as this is)
        try:
            with self.path.open(encoding=encoding, newline="") as text, open(
                os.dup(made.fileno()), "w", encoding="utf-8", newline=""
            ) as copy:  # fmt: skip
                shutil.copyfileobj(text, copy)
        except UnicodeError as error:
            raise ValueError(
                f"{self.labels}: begins as {encoding.upper()} and goes on as something else: {error}"
            ) from None
        return made

    def _index(self) -> tuple[array[int], array[int], array[int]]:
        """Return where lines start, how long they are in bytes, and before which of them blank lines were left out."""
        starts, lengths, blanks, place = array("Q"), array("I"), array("I"), 0
        with self._open() as file, open(os.dup(file.fileno()), "rb") as buffered:
            place = len(BOM) if buffered.seek(0) == 0 and buffered.read(len(BOM)) == BOM else 0
            buffered.seek(place)
            for lines, record in self._records(buffered):
                if record.isspace():
                    blanks.append(len(starts))
                else:
                    self._check(record, place, len(starts) + len(blanks) + 1)
                    starts.append(place)
                    lengths.append(len(record))
                    blanks.extend([len(starts)] * (lines - 1))
                place += len(record)
        return starts, lengths, blanks

    def _records(self, file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
        """Give each line and how many it is: of csv a quoted label may go on in the next ones."""
        for line in iter(partial(file.readline, MOST_BYTES), b""):
            record, lines, place = line, 1, file.tell()
            while self.form == "csv" and b'"' in record and lines < MOST_LINES and OPEN_CELL.search(record):
                record, lines = record + (more := file.readline(MOST_BYTES)), lines + 1
                if not more:
                    break
            if lines > 1 and OPEN_CELL.search(record):  # it never ends: the quote is a character
                file.seek(place)
                record, lines = line, 1
            yield lines, record

    def _check(self, line: bytes, place: int, number: int) -> None:
        if len(line) >= MOST_BYTES:
            raise ValueError(f"{self.labels}: a line of {MOST_BYTES >> 20} MiB or more, at byte {place}: no label file")
        if is_wide(line):
            raise ValueError(f"{self.labels}, line {number}: {WIDE}")
        if not line.isascii():
            try:
                line.decode()
            except UnicodeDecodeError as error:
                raise ValueError(not_utf8(self.labels, line, error.start, number)) from None

    def _columns(self) -> tuple[int, int] | None:
        """Return the columns of path and label where the first line names them, which then is no sample."""
        if not self.starts:
            return None
        with self._open() as file:
            names = [name.strip().lower() for name in _cells(self._line(file, 0))]
        path, label = (next((name for name in known if name in names), "") for known in (PATHS, LABELS))
        if not path or not label:
            return None
        del self.starts[0], self.lengths[0]
        self.blanks = array("I", [0, *(max(before - 1, 0) for before in self.blanks)])
        return names.index(path), names.index(label)

    def _sample(self, index: int, line: str) -> Sample:
        number = index + bisect_right(self.blanks, index) + 1
        path, label = self._parse(line, number)
        if not path or not _is_text(path) or not _is_text(label):
            ends = ": lines end with CR alone: save it with LF or CRLF" if "\r" in line else ""
            problem = f"no path and label: found {line[:80]!r}, expected the form '{self.form}'{ends}"
            return Sample(f"{self.labels}, line {number}", b"", "", problem)
        image, problem = self.finder.read(path)
        if problem and self.form == "space" and "\t" in path:
            problem = "picture file missing: the line has a tab, which label_format 'dtrb' takes"
        return Sample(f"{self.labels}, line {number}: {path}", image, label, problem)

    def _parse(self, line: str, number: int) -> tuple[str, str]:
        """Return path and label; no path: the line has not the form."""
        if self.form == "icdar":
            match = ICDAR.fullmatch(line)
            return (match[1], ESCAPED.sub(r"\1", match[2])) if match else ("", "")
        if self.form in ("csv", "jsonl"):
            return self._of_columns(line) if self.form == "csv" else _of_json(line)
        path, separator, label = line.partition(" " if self.form == "space" else "\t")
        if not separator or (self.form == "dtrb" and "\t" in label):
            return "", ""
        return (_choose(path, number), label.partition("\t")[0]) if self.form == "paddleocr" else (path, label)

    def _of_columns(self, line: str) -> tuple[str, str]:
        """Return path and label of a line of csv; of two columns a label that is not quoted is all behind the path."""
        cells = _cells(line)
        if self.columns and len(cells) > max(self.columns) and max(self.columns) > 1:
            return cells[self.columns[0]], cells[self.columns[1]]
        if len(cells) < 2 or (self.columns and self.columns[0] > self.columns[1]):
            return ("", "") if len(cells) < 2 else (cells[1], cells[0])
        if len(cells) == 2:
            return cells[0], cells[1]
        first = CELL.match(line)
        return cells[0], line[first.end() + 1 :] if first else ""


def _cells(line: str) -> list[str]:
    """Return the cells of a line of csv, quotes taken off."""
    cells, place = [], 0
    while (match := CELL.match(line, place)) is not None:
        cells.append(match[2] if match[1] is None else match[1].replace('""', '"'))
        if match.end() >= len(line) or line[match.end()] != ",":
            break
        place = match.end() + 1
    return cells


def _of_json(line: str) -> tuple[str, str]:
    """Return path and label of a line of JSON; no path: it has none."""
    try:
        found: Any = json.loads(line)
    except (ValueError, RecursionError):
        return "", ""
    if not isinstance(found, dict):
        return "", ""
    path, label = (next((found[key] for key in known if key in found), None) for known in (PATHS, LABELS))
    return (path, label) if isinstance(path, str) and isinstance(label, str) else ("", "")


def _is_text(text: str) -> bool:
    """Tell whether there is no half of a character in it, as JSON lets one write."""
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


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
