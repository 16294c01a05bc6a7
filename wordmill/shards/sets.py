"""Reading shards (the format is in blocks.py): a set opens by its index alone; blocks come when they are asked for.

A block is read from a shard file where there is one, else out of the store (cache.py); what a process reads of a
file for the first time is checked against the index's digest.
"""

import json
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import numpy.typing as npt

from wordmill.pictures.decoder import decode
from wordmill.pictures.image import Edits, Fitting, Picture, fit_picture
from wordmill.shards.blocks import SCHEMA, Block, Record, digest_of, open_lmdb, table_of, unpack_block
from wordmill.shards.cache import BlockCache
from wordmill.shards.content import Content
from wordmill.shards.index import INDEX, Index
from wordmill.shards.mapping import Gatherer, map_file, read_ahead
from wordmill.store.artifacts import Manifest, whole_manifest
from wordmill.store.storage import Object, Store

Places = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


class Files:
    """The shards of an index that are files here, mapped when they are first read; `paths` has None for the others."""

    def __init__(self, index: Index, paths: Sequence[Path | None]) -> None:
        self.index, self.paths = index, list(paths)
        self.whole = np.zeros(index.blocks, dtype=np.bool_)  # blocks that this process has checked
        self.mapped: dict[int, Record] = {}

    def has(self, block: int) -> bool:
        """Tell whether a block's shard is a file here."""
        return self.paths[self.index.shard[block]] is not None

    def record(self, block: int) -> Record | None:
        """Return a block's record, a part of the mapped file; None for one that is damaged."""
        record = self._part(block)
        if not self.whole[block]:
            self.whole[block] = digest_of(record.data) == self.index.table.digests[block]
        return record if self.whole[block] else None

    def prefetch(self, block: int) -> None:
        """Have the kernel read a block from disk, without waiting for it."""
        read_ahead(self._part(block))

    def _part(self, block: int) -> Record:
        shard = int(self.index.shard[block])
        if shard not in self.mapped:
            self.mapped[shard] = map_file(Path(str(self.paths[shard])))
        start = int(self.index.table.offsets[block])
        return self.mapped[shard][start : start + int(self.index.table.sizes[block])]


class ShardSet:
    """The samples of an index, or those of them that are kept, in blocks."""

    def __init__(self, index: Index, files: Files, stream: BlockCache | None, kept: Mask | None = None) -> None:
        self.index, self.files, self.stream, self.kept = index, files, stream, kept
        self.shape = index.shape
        self.starts = np.append(0, np.cumsum(index.table.samples, dtype=np.int64))  # of each block, (B + 1,)
        # Of each block, how many samples belong to the set, (B,).
        self.counts = np.diff(self.starts) if kept is None else np.add.reduceat(kept, self.starts[:-1], dtype=np.int64)
        self.samples, self.block_bytes = int(self.counts.sum()), int(index.table.sizes.max())

    @classmethod
    def open(cls, paths: Sequence[str | Path]) -> "ShardSet":
        """Open shard files, in this order; ValueError for files that are damaged or do not belong together."""
        index = Index.join([read_index(Path(path)) for path in paths])
        return cls(index, Files(index, [Path(path) for path in paths]), None)

    def keep(self, mask: Mask) -> "ShardSet":
        """Return the set of those stored samples (N,) of the index for which the mask is true."""
        if len(mask) != self.starts[-1]:
            raise ValueError(f"a mask of {len(mask)} for {self.starts[-1]} samples: was the set opened by its index?")
        return ShardSet(self.index, self.files, self.stream, mask)

    def prefetch(self, blocks: Sequence[int]) -> None:
        """Start reading blocks that will soon be asked for; returns at once."""
        for block in blocks:
            if self.files.has(block):
                self.files.prefetch(block)
        if self.stream is not None:
            self.stream.prefetch([block for block in blocks if not self.files.has(block)])

    def window(self, blocks: Sequence[int]) -> "BlockWindow":
        """Return the samples of some blocks that belong to the set, one block behind the other."""
        opened = [self.block(block) for block in blocks]
        if self.kept is None:
            return BlockWindow(self.index, opened, None)
        masks = [self.kept[self.starts[block] : self.starts[block + 1]] for block in blocks]
        return BlockWindow(self.index, opened, np.flatnonzero(np.concatenate(masks)))

    def block(self, block: int) -> Block:
        """Return one block whole; ValueError for a shard file that is damaged, RuntimeError for a stored one."""
        return unpack_block(self._record(block), *self.index.location(block))

    def _record(self, block: int) -> Record:
        if self.files.has(block):
            record = self.files.record(block)
            if record is not None:
                return record
            if self.stream is None:
                name, number = self.index.location(block)
                raise ValueError(f"{name}, block {number}: damaged block: its bytes have another digest than recorded")
            self.files.paths[self.index.shard[block]] = None  # a damaged copy of what the store has
        if self.stream is None:
            raise ValueError(f"{self.index.location(block)[0]}: no such file")
        return self.stream.record(block)


class BlockWindow:
    """Samples of some blocks: their labels, and pictures by their places among them."""

    def __init__(self, index: Index, blocks: Sequence[Block], rows: Places | None) -> None:
        """Take whole blocks, and which of all their samples belong here; None: all."""
        self.shape = index.shape
        self.labels = list(chain.from_iterable(block.labels for block in blocks))
        self.pictures: Gatherer | FileDecoder
        if index.picture is None:
            self.pictures = Gatherer([block.images for block in blocks])
        else:
            files = list(chain.from_iterable(block.files for block in blocks))
            self.pictures = FileDecoder(files, Fitting(**index.picture))
        self.rows = rows
        if rows is not None:
            self.labels = [self.labels[row] for row in rows.tolist()]

    def take(self, places: Places, edits: Edits = ()) -> Picture:
        """Return pictures uint8 (n, H, W, C) by the places of their labels; n edits, of files alone, or none."""
        rows = places if self.rows is None else self.rows[places]
        if isinstance(self.pictures, FileDecoder):
            return self.pictures.take(rows, edits)
        if edits:
            raise ValueError("pictures that are stored as they are fitted cannot be edited before: data.stored")
        return self.pictures.take(rows).reshape(-1, *self.shape)


class FileDecoder:
    """Pictures that stay in their files until they are taken."""

    def __init__(self, files: Sequence[memoryview], fitting: Fitting) -> None:
        self.files, self.fitting = files, fitting

    def take(self, places: Places, edits: Edits = ()) -> Picture:
        """Return pictures uint8 (n, H, W, C) fitted, and before that edited by n edits, if there are any."""
        found = [decode(bytes(self.files[place]), self.fitting.channels) for place in places.tolist()]
        if edits:
            found = [edit(image) for edit, image in zip(edits, found, strict=True)]
        return np.stack([fit_picture(image, self.fitting) for image in found])


def read_index(path: Path) -> Index:
    """Return the index of one shard file; it does not say what the labels need of a recogniser."""
    with open_lmdb(path) as environment:
        try:
            with environment.begin() as transaction:
                meta = _checked_meta(transaction.get(b"meta"), path)
            table = table_of(environment, meta["blocks"], str(path))
        except lmdb.Error as error:
            raise ValueError(f"{path}, meta: damaged shard: {error}") from None
    entry = Object(name=str(path), sha256="", bytes=path.stat().st_size)
    height, width, channels = meta["shape"]
    none = np.empty(0, dtype=np.uint8)
    return Index.of_shard(entry, (height, width, channels), meta["picture"], table, (none, none), Content())


def _checked_meta(record: bytes | None, path: Path) -> dict[str, Any]:
    if record is None:
        raise ValueError(f"{path}, meta: missing: the shard is damaged")
    try:
        meta: Any = json.loads(record)
    except ValueError:
        meta = None
    if not isinstance(meta, dict):
        raise ValueError(f"{path}, meta: damaged shard: found {record[:40]!r}, expected a JSON mapping")
    if meta.get("schema") != SCHEMA:
        raise ValueError(f"{path}: shard schema is {meta.get('schema')!r}, this code reads {SCHEMA}")
    return meta


def open_sets(paths: Sequence[Path]) -> ShardSet:
    """Open data sets by their index files, one behind the other.

    A shard that lies beside its index is read there, any other one in the store's cache or out of the store.
    """
    indices = [Index.load(path) for path in paths]
    index = Index.join(indices)
    beside = [path.with_name(entry.name) for path, part in zip(paths, indices, strict=True) for entry in part.objects]
    files = [path if path.is_file() else None for path in beside]
    if all(files):
        return ShardSet(index, Files(index, files), None)
    store = Store.from_environment()
    files = [path or store.find(entry) for path, entry in zip(files, index.objects, strict=True)]
    return ShardSet(index, Files(index, files), BlockCache(store, index))


def open_dataset(store: Store, combined: Manifest, name: str) -> ShardSet:
    """Open a data set in the store; `combined` is the shard stage's manifest."""
    references = combined.facts["datasets"]
    if name not in references:
        raise ValueError(f"data set '{name}': {combined.reference} has only {', '.join(sorted(references))}")
    return open_sets([fetch_index(store, references[name], name)])


def fetch_index(store: Store, reference: str, name: str = "") -> Path:
    """Return the index file of the data set `shard/<key>`, which is called `name`; RuntimeError if it is not whole."""
    return store.fetch(whole_manifest(store, reference, name).object(INDEX))
