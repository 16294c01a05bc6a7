"""Blocks out of the store: read by range requests, kept in a bounded cache that all processes of a node share.

A cached block is one file below `blocks/`, named by its shard's digest and its number. It appears whole, by a rename,
and is checked against the index's digest whenever it is mapped; a file that does not pass is replaced. Blocks and whole
objects have one bound (wordmill.store.cache): room is made before a block is kept. A mapped file may be removed: what
is mapped stays until it is let go of.
"""

import os
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from wordmill.shards.blocks import Record, digest_of
from wordmill.shards.index import Index
from wordmill.shards.mapping import map_file
from wordmill.store.cache import VARIABLE
from wordmill.store.files import locked
from wordmill.store.storage import Store, object_key

PARALLEL = 8  # range requests at a time
LOCKS = 256  # files that stand for blocks that are being fetched
ATTEMPTS, PAUSE_S = 3, 1.0  # of reading a block


class BlockCache:
    """The blocks of an index as they come out of the store; safe to use from many threads and processes."""

    def __init__(self, store: Store, index: Index) -> None:
        self.store, self.index, self.folder, self.quota = store, index, store.cache / "blocks", store.objects.quota
        largest = int(index.table.sizes.max())
        if self.quota.limit < largest:
            raise ValueError(f"{VARIABLE}: found '{self.quota.limit}', expected a number of bytes, at least a block's "
                             f"{largest}")  # fmt: skip
        self.pool = ThreadPoolExecutor(PARALLEL, thread_name_prefix="blocks")
        self.fetching: dict[int, Future[None]] = {}

    def prefetch(self, blocks: Sequence[int]) -> None:
        """Start fetching those of the blocks that are not here, in this order, several at a time."""
        for block in blocks:
            if block not in self.fetching and not self._path(block).exists():
                self.fetching[block] = self.pool.submit(self._fetch_ahead, block)

    def record(self, block: int) -> Record:
        """Return a block's record, checked; RuntimeError where the store has it no more, or damaged."""
        waiting = self.fetching.pop(block, None)
        if waiting is not None:
            waiting.result()
        record = self._cached(block)
        return self._fetch(block) if record is None else record

    def _fetch_ahead(self, block: int) -> None:
        self._fetch(block)

    def _fetch(self, block: int) -> Record:
        """Return a block that was not here a moment ago; one process of the node fetches it, the others wait."""
        with locked(self.folder / "locks" / f"{int(self.index.table.digests[block]) % LOCKS}"):
            record = self._cached(block)
            if record is None:
                record = self._downloaded(block)
                self._keep(self._path(block), record)
        return record

    def _keep(self, path: Path, record: Record) -> None:
        with self.quota.file(path, len(record)) as temporary, temporary.open("r+b") as file:
            file.write(record.data)
            file.flush()
            os.fsync(file.fileno())

    def _cached(self, block: int) -> Record | None:
        """Return a block that is here, and mark it as used; None where there is none, or a damaged one."""
        path = self._path(block)
        try:
            os.utime(path)
            record = map_file(path)
        except FileNotFoundError:
            return None
        return record if digest_of(record.data) == self.index.table.digests[block] else None

    def _downloaded(self, block: int) -> Record:
        entry = self.index.objects[int(self.index.shard[block])]
        start, size = int(self.index.table.offsets[block]), int(self.index.table.sizes[block])
        for attempt in range(1, ATTEMPTS + 1):
            try:
                record = np.frombuffer(self.store.read_range(entry, start, size), dtype=np.uint8)
            except RuntimeError:
                if attempt == ATTEMPTS:
                    raise
            else:
                if digest_of(record.data) == self.index.table.digests[block]:
                    return record
            time.sleep(PAUSE_S)
        name, number = self.index.location(block)
        raise RuntimeError(f"s3://{self.store.bucket}/{object_key(entry)} ({name}), block {number}: its bytes have "
                           "another digest than recorded: delete the object and run the shard stage again")  # fmt: skip

    def _path(self, block: int) -> Path:
        entry = self.index.objects[int(self.index.shard[block])]
        return self.folder / entry.sha256[:2] / f"{entry.sha256}.{self.index.location(block)[1]}"
