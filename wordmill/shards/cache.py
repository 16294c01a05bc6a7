"""Blocks out of the store: read by range requests, kept in a bounded cache that all processes of a node share.

A cached block is one file below `blocks/`, named by its shard's digest and its number. It appears whole, by a rename,
and is checked against the index's digest whenever it is mapped; a file that does not pass is replaced. The cache never
takes more bytes than its bound: room is reserved before a block is fetched, and what was not used for longest goes.
A mapped file may be removed: what is mapped stays until it is let go of.
"""

import os
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np

from wordmill.shards.blocks import Record, digest_of
from wordmill.shards.index import Index
from wordmill.shards.mapping import map_file
from wordmill.store.files import LEFT_OVER_S, atomic_file, locked, write_atomically
from wordmill.store.storage import Store, object_key

VARIABLE, DEFAULT_BYTES = "WORDMILL_CACHE_BYTES", 32 << 30
PARALLEL = 8  # range requests at a time
LOCKS = 256  # files that stand for blocks that are being fetched
ATTEMPTS, PAUSE_S = 3, 1.0  # of reading a block


class BlockCache:
    """The blocks of an index as they come out of the store; safe to use from many threads and processes."""

    def __init__(self, store: Store, index: Index, limit_bytes: int) -> None:
        self.store, self.index = store, index
        self.quota = DiskQuota(store.cache / "blocks", limit_bytes)
        self.pool = ThreadPoolExecutor(PARALLEL, thread_name_prefix="blocks")
        self.fetching: dict[int, Future[None]] = {}

    @classmethod
    def from_environment(cls, store: Store, index: Index) -> "BlockCache":
        """Open the cache below the store's; WORDMILL_CACHE_BYTES bounds it, 32 GiB if it is not set."""
        text = os.environ.get(VARIABLE) or str(DEFAULT_BYTES)
        largest = int(index.table.sizes.max())
        if not text.isdecimal() or int(text) < largest:
            raise ValueError(f"{VARIABLE}: found {text!r}, expected a number of bytes, at least a block's {largest}")
        return cls(store, index, int(text))

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
        with locked(self.quota.folder / "locks" / f"{int(self.index.table.digests[block]) % LOCKS}"):
            record = self._cached(block)
            if record is None:
                record = self._downloaded(block)
                self.quota.put(self._path(block), record)
        return record

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
        return self.quota.folder / entry.sha256[:2] / f"{entry.sha256}.{self.index.location(block)[1]}"


class DiskQuota:
    """A folder of files that never take more than so many bytes; the file `used` has their sum."""

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self.folder, self.limit = folder, limit_bytes

    def put(self, path: Path, content: Record) -> None:
        """Write a file below the folder, having removed what was used longest ago where there is no room."""
        with atomic_file(path) as temporary:
            self._reserve(temporary, len(content))
            with temporary.open("r+b") as file:
                file.write(content.data)
                file.flush()
                os.fsync(file.fileno())

    def _reserve(self, temporary: Path, size: int) -> None:
        """Make room, and the file at its full size, so that every process counts it from now on."""
        sums = self.folder / "used"
        with locked(self.folder / "locks" / "used"):
            text = sums.read_text() if sums.exists() else ""
            used = int(text) if text else self._evict(self.limit)
            if used + size > self.limit:  # an eighth more, because looking through the folder takes a while
                used = self._evict(max(0, self.limit - size - self.limit // 8))
            with temporary.open("wb") as file:
                file.truncate(size)
            write_atomically(sums, str(used + size))

    def _evict(self, target: int) -> int:
        """Remove files, least recently used first, until at most `target` bytes are left; return how many are."""
        states = []
        for path in self.folder.glob("??/*"):
            with suppress(FileNotFoundError):  # a temporary file that got its name by now
                states.append((path, path.stat()))
        total = sum(state.st_size for _, state in states)
        for path, state in sorted(states, key=lambda pair: pair[1].st_mtime_ns):
            being_written = path.suffix == ".part" and time.time() - state.st_mtime < LEFT_OVER_S
            if total > target and not being_written:
                path.unlink(missing_ok=True)
                total -= state.st_size
        return total
