"""Reading shards (the format is in blocks.py): many files as one sequence of samples, without decoding or copying."""

import json
import resource
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar
from weakref import WeakValueDictionary

import lmdb
import numpy as np
import numpy.typing as npt

from components.recognition.artifacts import Manifest, find_manifest
from components.recognition.blocks import KEY, SCHEMA, Block, Shape, open_lmdb, unpack_block
from components.recognition.storage import Store

SPARE_FILES = 256  # file descriptors left for everything but shards

Rows = npt.NDArray[np.uint16]


class _Pinned:
    """Bytes of a mapped file and the shard that keeps it mapped: arrays over them hold both, and outlive neither."""

    def __init__(self, record: memoryview, shard: "Shard") -> None:
        self.shard = shard
        self.__array_interface__ = np.frombuffer(record, dtype=np.uint8).__array_interface__


class Shard:
    """One shard file, open for reading in this process for as long as anybody holds it."""

    # LMDB refuses to open a file twice in a process; a forked child reads through its parent's mapping.
    opened: ClassVar["WeakValueDictionary[Path, Shard]"] = WeakValueDictionary()

    def __init__(self, path: Path) -> None:
        self.path = path
        self.environment = open_lmdb(path)
        self.transaction = self.environment.begin(buffers=True)
        self._read_meta()

    @classmethod
    def open(cls, path: Path) -> "Shard":
        """Return the shard of this file, opened once per process."""
        shard = cls.opened.get(path.resolve())
        if shard is None:
            shard = cls.opened[path.resolve()] = cls(path)
        return shard

    def _record(self, key: bytes, what: str) -> memoryview:
        try:
            record: memoryview | None = self.transaction.get(key)
        except lmdb.Error as error:
            raise ValueError(f"{self.path}, {what}: damaged shard: {error}") from None
        if record is None:
            raise ValueError(f"{self.path}, {what}: missing: the shard is damaged")
        return np.asarray(_Pinned(record, self)).data

    def _read_meta(self) -> None:
        record = bytes(self._record(b"meta", "meta"))
        try:
            meta: Any = json.loads(record)
        except json.JSONDecodeError:
            meta = None
        if not isinstance(meta, dict):
            raise ValueError(f"{self.path}, meta: damaged shard: found {record[:40]!r}, expected a JSON mapping")
        if meta.get("schema") != SCHEMA:
            raise ValueError(f"{self.path}: shard schema is {meta.get('schema')!r}, this code reads {SCHEMA}")
        self.samples: int = meta["samples"]
        self.block_samples: int = meta["block"]
        height, width, channels = meta["shape"]
        self.shape: Shape = (height, width, channels)

    def counts(self) -> list[int]:
        """Return the number of samples in each block."""
        full, rest = divmod(self.samples, self.block_samples)
        return [self.block_samples] * full + ([rest] if rest else [])

    def block(self, number: int) -> Block:
        """Return one block, a view of the file."""
        where = f"{self.path}, block {number}"
        block = unpack_block(self._record(KEY.pack(number), f"block {number}"), where)
        if block.images.shape[1:] != self.shape:
            raise ValueError(f"{where}: pictures are {block.images.shape[1:]}, the shard says {self.shape}")
        return block


class ShardSet:
    """Samples of several shards of one shape, in blocks; reading starts when a block is asked for."""

    def __init__(self, shards: Sequence[Shard], kept: Sequence[Rows] | None = None) -> None:
        self.shards = tuple(shards)
        self.places = [(shard, number) for shard in self.shards for number in range(len(shard.counts()))]
        counts = [count for shard in self.shards for count in shard.counts()]
        self.rows: list[Rows] = list(kept) if kept else [np.arange(count, dtype=np.uint16) for count in counts]
        self.samples = sum(map(len, self.rows))
        self.shape = self.shards[0].shape

    @classmethod
    def open(cls, paths: Sequence[str | Path]) -> "ShardSet":
        """Open shard files, in this order; ValueError for files that are damaged or do not belong together."""
        if not paths:
            raise ValueError("no shards given: expected at least one file")
        _allow_open_files(len(paths) + SPARE_FILES)
        shards = [Shard.open(Path(path)) for path in paths]
        for shard in shards:
            if shard.shape != shards[0].shape:
                first = f"{shards[0].path} {shards[0].shape}"
                raise ValueError(f"{shard.path}: pictures are {shard.shape}, but those of {first}: shard them alike")
        return cls(shards)

    @property
    def blocks(self) -> int:
        """Number of blocks over all shards."""
        return len(self.places)

    def block(self, index: int) -> Block:
        """Return block 0 <= index < blocks whole; `rows[index]` are those of its samples that belong to the set."""
        shard, number = self.places[index]
        return shard.block(number)

    def keep(self, fits: Callable[[str], bool]) -> "ShardSet":
        """Return the set without the samples whose label does not fit; reads labels alone, no picture."""
        kept = []
        for index, rows in enumerate(self.rows):
            block = self.block(index)
            kept.append(np.array([row for row in rows if fits(block.label(row))], dtype=np.uint16))
        return ShardSet(self.shards, kept)


def open_dataset(store: Store, combined: Manifest, name: str) -> ShardSet:
    """Fetch a data set's shards to the cache and open them; `combined` is the shard stage's manifest."""
    references = combined.facts["datasets"]
    if name not in references:
        raise ValueError(f"data set '{name}': {combined.reference} has only {', '.join(sorted(references))}")
    manifest = find_manifest(store, references[name])
    if manifest is None:
        raise RuntimeError(f"{references[name]} ({name}) is not whole in the store any more: run the shard stage again")
    return ShardSet.open([store.fetch(manifest.object(shard["object"])) for shard in manifest.facts["shards"]])


def _allow_open_files(needed: int) -> None:
    """Raise this process's limit of open files where shards need it: each stays mapped while its set is in use."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise RuntimeError(f"{needed} open files are needed, the hard limit is {hard}: raise it (ulimit -Hn)")
    if soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
