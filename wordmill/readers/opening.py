"""Readers: one sequence of samples, whatever a data set's format; any of them can be read alone."""

from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

from wordmill.readers.fsns import Fsns
from wordmill.readers.holdout import HeldOut
from wordmill.readers.label_file import LabelFile
from wordmill.readers.lmdb import Lmdb
from wordmill.readers.sample import Reader, Sample
from wordmill.recipe.catalogue import Entry
from wordmill.synth.renderer import Renderer, SynthSpec


@lru_cache(maxsize=1)  # a worker process reads one part of a data set after the other
def open_reader(entry: Entry, root: Path) -> Reader:
    """Return the reader of a data set whose unpacked files lie below `root`."""
    whole = _open_whole(entry, root)
    return HeldOut(whole, entry.part) if entry.part else whole


def _open_whole(entry: Entry, root: Path) -> Reader:
    if entry.reader == "synth":
        return Rendered(SynthSpec.parse(entry.source))
    if entry.reader == "label_file":
        return LabelFile(root, entry.labels, entry.label_format)
    return Fsns(root) if entry.reader == "fsns" else Lmdb(root)


class Rendered:
    """Word images drawn on demand."""

    notes = ()

    def __init__(self, spec: SynthSpec) -> None:
        self.spec = spec

    def __len__(self) -> int:
        return self.spec.count

    def read(self, indices: Iterable[int]) -> Iterator[Sample]:
        """Yield the drawn samples of these numbers."""
        renderer = Renderer(self.spec)
        for index in indices:
            image, label = renderer.sample(index)
            yield Sample(f"index {index}", image, label)
