"""LMDB environments of CRNN and DTRB: `num-samples`, `image-%09d` and `label-%09d`, counted from 1, or else from 0.

Fudan University's Chinese benchmark has the same form.
"""

import os
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import lmdb

from wordmill.readers.pages import check_pages
from wordmill.readers.sample import Sample
from wordmill.shards.blocks import open_lmdb
from wordmill.sources.leftovers import is_leftover

MOST_OPEN = 256  # environments at a time, of several thousand in one data set


class Lmdb:
    """All environments below a folder, ordered by path, as one sequence. None of them stays open between reads."""

    def __init__(self, root: Path) -> None:
        found = sorted(path for ending in ("*.mdb", "*.lmdb") for path in root.rglob(ending) if path.is_file())
        self.files = [path for path in found if path.name != "lock.mdb" and not is_leftover(path.relative_to(root))]
        if not self.files:
            raise ValueError("no LMDB environment (data.mdb, or a single file .lmdb) is in the archive")
        self.names = [path.relative_to(root).as_posix() for path in self.files]
        with _Environments(self.files) as opened:
            counts = [_count(opened, number, name) for number, name in enumerate(self.names)]
        self.firsts = [first for first, _ in counts]
        self.stops = list(accumulate(count for _, count in counts))
        from_zero = [name for name, first in zip(self.names, self.firsts, strict=True) if first == 0]
        self.notes = tuple(f"{name}: its records count from 0, not from 1: all are taken" for name in from_zero)

    def __len__(self) -> int:
        return self.stops[-1]

    def read(self, indices: Iterable[int]) -> Iterator[Sample]:
        """Yield the samples of these numbers, which count through all environments."""
        with _Environments(self.files) as opened:
            for index in indices:
                number = bisect_right(self.stops, index)
                before = self.stops[number - 1] if number else 0
                yield _sample(opened, number, self.names[number], index - before + self.firsts[number])


class _Environment(NamedTuple):
    file: lmdb.Environment
    transaction: lmdb.Transaction


class _Environments:
    """Environments by number, opened when they are needed; beyond MOST_OPEN the longest unused is closed."""

    def __init__(self, files: list[Path]) -> None:
        self.files = files
        # Equal files lie in one place of the store's cache, and LMDB opens no file twice.
        first: dict[str, int] = {}
        self.places = [first.setdefault(os.path.realpath(file), number) for number, file in enumerate(files)]
        self.open: dict[int, _Environment] = {}

    def __enter__(self) -> "_Environments":
        return self

    def __exit__(self, *_: object) -> None:
        for number in list(self.open):
            self.close(number)

    def __getitem__(self, number: int) -> lmdb.Transaction:
        number = self.places[number]
        found = self.open.pop(number, None)
        if found is None:
            if len(self.open) == MOST_OPEN:
                self.close(next(iter(self.open)))
            file = open_lmdb(self.files[number])
            found = _Environment(file, file.begin())
        self.open[number] = found
        return found.transaction

    def close(self, number: int) -> None:
        """Close an open environment; it is opened again when it is asked for."""
        self.open.pop(self.places[number]).file.close()


def _count(opened: _Environments, number: int, name: str) -> tuple[int, int]:
    """Return the number of the first record, 1 or 0, and how many there are."""
    try:
        check_pages(opened.files[number])
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    try:
        record = bytes(opened[number].get(b"num-samples") or b"").strip()
        if not record.isdigit() or len(record) > 9:
            raise ValueError(f"{name}: num-samples is {record[:40]!r}, expected a number: not an LMDB of word images")
        count, first = int(record), 1 if opened[number].get(b"image-%09d" % 0) is None else 0
        if opened[number].get(beyond := b"image-%09d" % (count + first)) is not None:
            raise ValueError(f"{name}: num-samples is {count}, but there is {beyond.decode()}: is the count too small?")
    except lmdb.Error as error:
        raise ValueError(f"{name}: damaged: {error}") from None
    return first, count


def _sample(opened: _Environments, number: int, name: str, record: int) -> Sample:
    where = f"{name}: {record:09}"
    transaction = opened[number]
    try:
        image, label = transaction.get(b"image-%09d" % record), transaction.get(b"label-%09d" % record)
    except lmdb.Error as error:
        opened.close(number)  # a transaction that met damage refuses everything else
        return Sample(where, b"", "", f"unreadable record: {error}")
    if not image or label is None:
        missing = [kind for kind, found in (("image", image), ("label", label)) if found is None]
        problem = f"no {' and no '.join(missing)} record" if missing else "the image record is empty"
        return Sample(where, b"", "", problem)
    try:
        return Sample(where, bytes(image), str(label, "utf-8"))
    except UnicodeDecodeError as error:
        return Sample(where, b"", "", f"unreadable label: {error}")
