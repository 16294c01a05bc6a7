"""Readers: one sequence of samples, whatever a data set's format; any range of it can be read alone."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Protocol

import lmdb

from components.recognition.blocks import open_lmdb
from components.recognition.catalogue import Entry
from components.recognition.image import Picture
from components.recognition.synth import SynthSpec, render

ICDAR = re.compile(r'([^,]+),\s*"(.*)"\s*')


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One sample as its source has it: encoded or rendered picture, label, and what is wrong where something is."""

    where: str
    image: bytes | Picture
    label: str
    problem: str = ""


class Reader(Protocol):
    """A data set's samples, numbered from 0."""

    def __len__(self) -> int: ...

    def read(self, start: int, stop: int) -> Iterator[Sample]:
        """Yield samples start <= i < stop, one for each i, whatever is wrong with it."""


@lru_cache(maxsize=1)  # a worker process reads one range of a data set after the other
def open_reader(entry: Entry, root: Path) -> Reader:
    """Return the reader of a data set whose unpacked files lie below `root`."""
    if entry.reader == "synth":
        return Rendered(SynthSpec.parse(entry.source))
    return LabelFile(root, entry) if entry.reader == "label_file" else Lmdb(root)


class Rendered:
    """Word images drawn on demand."""

    def __init__(self, spec: SynthSpec) -> None:
        self.spec = spec

    def __len__(self) -> int:
        return self.spec.count

    def read(self, start: int, stop: int) -> Iterator[Sample]:
        """Yield the drawn samples of the range."""
        for index, (image, label) in enumerate(render(self.spec, start, stop), start=start):
            yield Sample(where=f"index {index}", image=image, label=label)


class LabelFile:
    """Picture files and a UTF-8 text file with a line `path label` for each, in one of three forms.

    space: `path label`; tab: `path<TAB>label` (DTRB, PaddleOCR); icdar: `path, "label"` with \\" and \\\\ for " and \\.
    Paths count from the label file's folder, or else from the root.
    """

    def __init__(self, root: Path, entry: Entry) -> None:
        self.root, self.labels, self.form = root, entry.labels, entry.label_format
        path = root / entry.labels
        if not path.is_file():
            found = sorted(file.relative_to(root).as_posix() for file in root.rglob("*.txt"))[:8]
            raise ValueError(f"label file '{entry.labels}' is not in the archive; text files there: {found}")
        try:
            text = path.read_bytes().decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise ValueError(f"{entry.labels}: not UTF-8 at byte {error.start}: convert it") from None
        # Not splitlines: it would cut labels at Unicode's other line ends.
        lines = (line.rstrip("\r") for line in text.split("\n"))
        self.samples = [self._parse(number, line) for number, line in enumerate(lines, start=1) if line.strip()]

    def __len__(self) -> int:
        return len(self.samples)

    def read(self, start: int, stop: int) -> Iterator[Sample]:
        """Yield the samples of a range of lines; a picture that cannot be read is a sample with a problem."""
        for number, path, label in self.samples[start:stop]:
            where = f"{self.labels}, line {number}: {path}"
            file = self._find(path)
            problem = "" if file else "picture file missing, or outside the data set"
            yield Sample(where=where, image=file.read_bytes() if file else b"", label=label, problem=problem)

    def _parse(self, number: int, line: str) -> tuple[int, str, str]:
        if self.form == "icdar":
            match = ICDAR.fullmatch(line)
            path, label = (match[1], re.sub(r'\\(["\\])', r"\1", match[2])) if match else ("", "")
        else:
            path, _, label = line.partition("\t" if self.form == "tab" else " ")
        if not path or not label:
            raise ValueError(f"{self.labels}, line {number}: no label: found {line!r}, expected the form '{self.form}'")
        return number, path, label

    def _find(self, path: str) -> Path | None:
        relative = PurePosixPath(path)
        if relative.is_absolute() or ".." in relative.parts:
            return None
        places = ((self.root / self.labels).parent / relative, self.root / relative)
        return next((place for place in places if place.is_file()), None)


class Lmdb:
    """The LMDB environments of CRNN and DTRB below a folder: num-samples, image-%09d and label-%09d, counted from 1."""

    def __init__(self, root: Path) -> None:
        files = sorted(path for path in root.rglob("*.mdb") if path.name != "lock.mdb")
        if not files:
            raise ValueError("no LMDB environment (data.mdb) is in the archive")
        self.names = [path.relative_to(root).as_posix() for path in files]
        self.transactions = [open_lmdb(path).begin() for path in files]
        self.counts = [self._count(*pair) for pair in zip(self.names, self.transactions, strict=True)]

    def __len__(self) -> int:
        return sum(self.counts)

    def read(self, start: int, stop: int) -> Iterator[Sample]:
        """Yield the samples of a range that counts through all environments."""
        first = 0
        for name, transaction, count in zip(self.names, self.transactions, self.counts, strict=True):
            for index in range(max(start - first, 0), min(stop - first, count)):
                yield self._sample(name, transaction, index + 1)
            first += count

    def _count(self, name: str, transaction: lmdb.Transaction) -> int:
        record = bytes(transaction.get(b"num-samples") or b"")
        if not record.isdigit():
            raise ValueError(f"{name}: num-samples is {record!r}, expected a number: not an LMDB of word images")
        return int(record)

    def _sample(self, name: str, transaction: lmdb.Transaction, number: int) -> Sample:
        where = f"{name}: {number:09}"
        try:
            image, label = transaction.get(b"image-%09d" % number), transaction.get(b"label-%09d" % number)
            text = bytes(label or b"").decode()
        except (lmdb.Error, UnicodeDecodeError) as error:
            return Sample(where=where, image=b"", label="", problem=f"unreadable record: {error}")
        missing = [kind for kind, record in (("image", image), ("label", label)) if record is None]
        problem = f"no {' and no '.join(missing)} record" if missing else ""
        return Sample(where=where, image=bytes(image or b""), label=text, problem=problem)
