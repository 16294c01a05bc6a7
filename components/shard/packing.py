"""What a worker process of the shard stage does: a range of a data set's samples becomes one shard file."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from wordmill.pictures.decoder import decode
from wordmill.pictures.image import Picture, encode, fit_pictures
from wordmill.pictures.resemblance import Fingerprints, fingerprints, thumbnails, variants
from wordmill.readers.opening import open_reader
from wordmill.readers.sample import Sample
from wordmill.recipe.catalogue import Entry
from wordmill.recipe.sections import Data
from wordmill.shards.blocks import MAX_FILE_BYTES, MAX_LABEL_BYTES, BlockTable, Shape, ShardWriter
from wordmill.shards.content import Content
from wordmill.shards.index import Counts, measure_labels
from wordmill.shards.tally import Tally, mean_levels
from wordmill.text.charset import Charset
from wordmill.text.labels import judge, lacking

NO_PRINTS = np.empty((0, 3), dtype=np.uint64)
WINDOW = 2048  # samples that are decoded before they are fitted: enough for many of equal size,
WINDOW_BYTES = 32 << 20  # unless they are large


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What becomes of samples: how pictures are fitted and stored, and which labels a training set goes without."""

    data: Data
    charset: Charset
    training: bool

    @property
    def shape(self) -> Shape:
        """(H, W, C) of a picture."""
        return self.data.height, self.data.width, self.data.channels

    @property
    def encoded(self) -> Data | None:
        """How pictures are fitted when they are read, where they are stored as the files that they come in."""
        return self.data if self.data.stored == "encoded" else None


@dataclass(frozen=True, kw_only=True)
class Task:
    """Samples start <= i < stop of a data set, and the file that they go to."""

    entry: Entry
    root: Path
    start: int
    stop: int
    path: Path
    rules: Rules


@dataclass(kw_only=True)
class Packed:
    """What came of a task: what the shard's index says of it, and what was dropped, changed and put aside."""

    picture: dict[str, Any] | None
    table: BlockTable
    content: Content
    measured: tuple[Counts, Counts]
    tally: Tally
    prints: Fingerprints  # (N, 3) of training pictures; (M, 4) of others, with their numbers, which are sought there
    dropped: Counter[str]
    changed: Counter[str]
    quarantine: list[dict[str, str | int]]
    outside: Counter[str]  # of each character outside the charset the labels that have it, of "" those with any

    @property
    def samples(self) -> int:
        """How many samples the shard has."""
        return len(self.measured[0])


@dataclass(frozen=True)
class _Fates:
    dropped: Counter[str] = field(default_factory=Counter)
    changed: Counter[str] = field(default_factory=Counter)
    quarantine: list[dict[str, str | int]] = field(default_factory=list)
    outside: Counter[str] = field(default_factory=Counter)


def pack_shard(task: Task) -> Packed:
    """Read a range of samples and write its shard."""
    rules, fates, stored = task.rules, _Fates(), list[str]()
    levels, prints = [np.empty(0, dtype=np.float32)], list[Fingerprints]()
    with ShardWriter(task.path, rules.shape, task.stop - task.start, rules.encoded) as writer:
        for window in _windows(_accepted(task, fates)):
            images, files, labels = zip(*window, strict=True)
            pictures = fit_pictures(images, rules.data)
            for picture, label in zip(files if rules.encoded else pictures, labels, strict=True):
                writer.add(picture, label)
            small = thumbnails(pictures)
            levels.append(mean_levels(small))
            prints.append(fingerprints(small) if rules.training else _sought(images, len(stored), rules.data))
            stored += labels
    return Packed(
        picture=writer.picture, table=writer.table, content=writer.content,
        measured=measure_labels(stored, rules.charset), tally=Tally.of(stored, np.concatenate(levels), rules.charset),
        prints=np.concatenate(prints or [NO_PRINTS]), dropped=fates.dropped, changed=fates.changed,
        outside=fates.outside,
        quarantine=sorted(fates.quarantine, key=lambda item: item["index"]),
    )  # fmt: skip


def _sought(images: Sequence[Picture], first: int, data: Data) -> Fingerprints:
    """Return the fingerprints (M, 4) of pictures and of what copies of them may be, each with the picture's number."""
    made = [variants(image) for image in images]
    owners = np.repeat(np.arange(first, first + len(images)), [len(some) for some in made]).astype(np.uint64)
    known = fingerprints(thumbnails(fit_pictures([image for some in made for image in some], data)))
    return np.column_stack([known, owners])


def order(task: Task) -> list[int]:
    """Return the numbers of the task's samples as they are packed: of a training set shuffled, so that blocks mix."""
    numbers = list(range(task.start, task.stop))
    if not task.rules.training:
        return numbers
    # RandomState, whose sequences are the same in every version of NumPy.
    shuffled: list[int] = np.random.RandomState(task.start).permutation(numbers).tolist()
    return shuffled


def _accepted(task: Task, fates: _Fates) -> Iterator[tuple[Picture, bytes, str]]:
    """Yield the picture, its file where files are stored, and the label of every sample that is kept."""
    rules, numbers = task.rules, order(task)
    for number, sample in zip(numbers, open_reader(task.entry, task.root).read(numbers), strict=True):
        try:
            image = picture(sample, rules.data)
        except ValueError as error:
            fates.quarantine.append({"index": number, "where": sample.where, "reason": str(error)})
            continue
        label = _label(sample.label, rules, fates)
        if label is None:
            continue
        file = b""
        if rules.encoded:
            file = sample.image if isinstance(sample.image, bytes) else encode(sample.image)
        yield image, file, label


def _windows(samples: Iterator[tuple[Picture, bytes, str]]) -> Iterator[list[tuple[Picture, bytes, str]]]:
    """Yield up to WINDOW samples at a time."""
    window, size = list[tuple[Picture, bytes, str]](), 0
    for sample in samples:
        window.append(sample)
        size += sample[0].size + len(sample[1])
        if len(window) == WINDOW or size >= WINDOW_BYTES:
            yield window
            window, size = [], 0
    if window:
        yield window


def picture(sample: Sample, data: Data) -> Picture:
    """Return a sample's picture, uint8 (h, w, 1 or 3) or (h, w); ValueError says why the sample is put aside."""
    if sample.problem:
        raise ValueError(sample.problem)
    if len(sample.label) * 4 > MAX_LABEL_BYTES and (length := len(sample.label.encode())) > MAX_LABEL_BYTES:
        raise ValueError(f"label too long: {length} bytes, expected at most {MAX_LABEL_BYTES}")
    if "\0" in sample.label:
        raise ValueError("label with a NUL character")
    if not isinstance(sample.image, bytes):
        return sample.image
    if data.stored == "encoded" and len(sample.image) > MAX_FILE_BYTES:
        raise ValueError(f"file too large: {len(sample.image)} bytes, expected at most {MAX_FILE_BYTES}")
    return decode(sample.image, data.channels)


def _label(label: str, rules: Rules, fates: _Fates) -> str | None:
    """Return the text that is stored, None for a sample that a training set goes without; counts what happens.

    Other sets keep every sample and its label as it is; what a recogniser of this charset cannot see is counted.
    """
    policy, longest = (rules.data.label_policy, rules.data.max_label) if rules.training else ("dtrb_unfiltered", 0)
    verdict = judge(policy, label, rules.charset, longest)
    if outside := lacking(policy, label, rules.charset):
        fates.outside.update(["", *outside])
    if verdict.reason:
        fates.dropped[verdict.reason] += 1
        return None
    for change in verdict.changed:
        fates.changed[change] += 1
    return verdict.label if rules.training else label
