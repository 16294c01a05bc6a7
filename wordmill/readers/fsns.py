"""The French Street Name Signs (Smith et al. 2016) as they are published: TFRecord files of Examples."""

from __future__ import annotations  # array takes its items' type in annotations alone

import re
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from itertools import accumulate
from pathlib import Path

from wordmill.readers.sample import Sample
from wordmill.readers.tfrecord import byte_features, index_records, record_at
from wordmill.sources.leftovers import is_leftover

NAME = re.compile(r".+-\d{5}-of-\d{5}|.+\.tfrecords?")


class Fsns:
    """All TFRecord files below a folder, ordered by path, as one sequence.

    A sample is `image/encoded`, a PNG of 600x150 that is four views side by side, and `image/text`, UTF-8.
    """

    notes = ()

    def __init__(self, root: Path) -> None:
        found = sorted(path for path in root.rglob("*") if NAME.fullmatch(path.name) and path.is_file())
        self.files = [path for path in found if not is_leftover(path.relative_to(root))]
        if not self.files:
            raise ValueError("no TFRecord file (such as train-00000-of-00512) is in the archive")
        self.names = [path.relative_to(root).as_posix() for path in self.files]
        self.starts: list[array[int]] = [index_records(path) for path in self.files]
        self.stops = list(accumulate(len(starts) - 1 for starts in self.starts))

    def __len__(self) -> int:
        return self.stops[-1]

    def read(self, indices: Iterable[int]) -> Iterator[Sample]:
        """Yield the samples of these numbers, which count through all files."""
        for index in indices:
            number = bisect_right(self.stops, index)
            yield self._sample(number, index - (self.stops[number - 1] if number else 0))

    def _sample(self, number: int, record: int) -> Sample:
        where, starts = f"{self.names[number]}: record {record}", self.starts[number]
        try:
            features = byte_features(record_at(self.files[number], starts[record], starts[record + 1]))
            missing = [name for name in ("image/encoded", "image/text") if name not in features]
            if missing:
                return Sample(where, b"", "", f"no feature {' and no '.join(missing)}")
            return Sample(where, features["image/encoded"], features["image/text"].decode())
        except ValueError as error:
            return Sample(where, b"", "", f"unreadable record: {error}")
