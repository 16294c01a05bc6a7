"""The format of shards, and their writer: single-file LMDB environments of pictures in blocks.

A shard holds `meta` (JSON: schema, shape, picture, and of every block its samples and digest) and one record per block
under its number (4 bytes, big-endian, so that records lie in reading order). A block record is, little-endian:
    4 bytes   magic "WMB2"
    8 x u32   number, samples n, height, width, channels, 1 for encoded pictures, bytes of pictures, bytes of labels
    12 bytes  0: with the 16 of LMDB's page header in front of the record, pictures begin 64 bytes behind a page's start
    pictures  uint8 (n, height, width, channels); encoded: u32 x n+1 offsets of the files, and the files
    UTF-8     the labels, joined by NUL
    zeros     up to MIN_RECORD bytes: LMDB keeps so large a record in pages of its own, in one piece
`picture` in `meta` is null, or how the files of encoded pictures become (height, width, channels).
"""

import ctypes
import itertools
import json
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import lmdb
import numpy as np
import numpy.typing as npt
import xxhash

from wordmill.pictures.image import PICTURE_KEYS, Picture
from wordmill.recipe.sections import Data
from wordmill.shards.content import Content
from wordmill.store.files import temporary_path

SCHEMA = 2
MOST_BLOCK_SAMPLES, MOST_BLOCK_BYTES = 256, 2_500_000
MOST_SHARD_SAMPLES, MOST_SHARD_BYTES = 16384, 256_000_000
MAX_LABEL_BYTES = 4096
MAX_FILE_BYTES = 1 << 20  # of an encoded picture
MAGIC = b"WMB2"
HEADER = struct.Struct("<4s8I12x")
MIN_RECORD = 1 << 14  # bytes: over half of LMDB's largest page
KEY = struct.Struct(">I")
PAGE = 4096  # bytes: LMDB's page on every platform that this runs on is this or a multiple
PAGE_HEADER = struct.Struct("<Q8x")  # LMDB's, before a record in pages of its own; it begins with the page's number

Shape = tuple[int, int, int]
Record = npt.NDArray[np.uint8]


def block_samples(shape: Shape) -> int:
    """Return how many pictures (H, W, C) a full block holds."""
    return min(MOST_BLOCK_SAMPLES, max(1, MOST_BLOCK_BYTES // int(np.prod(shape))))


def shard_samples(shape: Shape) -> int:
    """Return how many source samples go to a shard, full blocks: any number of workers splits a set at these places."""
    block = block_samples(shape)
    return min(MOST_SHARD_SAMPLES, max(block, MOST_SHARD_BYTES // int(np.prod(shape)) // block * block))


@dataclass(frozen=True, kw_only=True)
class BlockTable:
    """Where the blocks of a shard lie in its file.

    offsets (B,) uint64, sizes (B,) uint32: bytes, of the records
    samples (B,) uint32; digests (B,) uint64: xxh3_64 of the records
    """

    offsets: npt.NDArray[np.uint64]
    sizes: npt.NDArray[np.uint32]
    samples: npt.NDArray[np.uint32]
    digests: npt.NDArray[np.uint64]


@dataclass(frozen=True, kw_only=True)
class Block:
    """Samples of one record: their labels, and pictures uint8 (n, H, W, C), a read-only view, or their n files.

    `images` are none where there are files.
    """

    labels: list[str]
    images: Picture
    files: tuple[memoryview, ...]


def pack_block(number: int, shape: Shape, pictures: bytes | memoryview, labels: Sequence[str], encoded: bool) -> bytes:
    """Return the record of a block; `pictures` is the record's part of that name."""
    text = "\0".join(labels).encode()
    header = HEADER.pack(MAGIC, number, len(labels), *shape, encoded, len(pictures), len(text))
    return b"".join([header, pictures, text]).ljust(MIN_RECORD, b"\0")


def unpack_block(record: Record, name: str, number: int) -> Block:
    """Read the record (bytes,) of a shard's block, its pictures uncopied; ValueError if its parts do not add up."""
    view, where = record.data, f"{name}, block {number}"
    if len(view) < MIN_RECORD:
        raise ValueError(f"{where}: damaged block: a record of {len(view)} bytes is no block")
    magic, own, count, height, width, channels, encoded, image_bytes, text_bytes = HEADER.unpack_from(view)
    text_start = HEADER.size + image_bytes
    expected = max(MIN_RECORD, text_start + text_bytes)
    if magic != MAGIC or own != number or len(view) != expected:
        found = f"{len(view)} bytes, number {own}, beginning with {magic!r}"
        raise ValueError(f"{where}: damaged block: found {found}, expected {expected} bytes, {number} and {MAGIC!r}")
    labels = str(view[text_start : text_start + text_bytes], "utf-8").split("\0")
    if len(labels) != count or not (encoded or image_bytes == count * height * width * channels):
        found = f"{len(labels)} labels and {image_bytes} bytes of pictures"
        raise ValueError(f"{where}: damaged block: found {found} for {count} samples ({height}, {width}, {channels})")
    if encoded:
        none = np.empty((0, height, width, channels), dtype=np.uint8)
        return Block(labels=labels, images=none, files=_files(view[HEADER.size : text_start], count, where))
    images = record[HEADER.size : text_start].reshape(count, height, width, channels)
    return Block(labels=labels, images=images, files=())


def _files(pictures: memoryview, count: int, where: str) -> tuple[memoryview, ...]:
    first = 4 * (count + 1)
    ends = np.frombuffer(pictures[:first], dtype="<u4").tolist() if len(pictures) >= first else [0]
    if len(ends) != count + 1 or ends[0] != 0 or ends[-1] != len(pictures) - first or ends != sorted(ends):
        raise ValueError(f"{where}: damaged block: the offsets of its pictures do not rise from 0 to their bytes")
    return tuple(pictures[first + start : first + stop] for start, stop in itertools.pairwise(ends))


def digest_of(record: bytes | memoryview) -> int:
    """Return the xxh3_64 digest of a record."""
    return xxhash.xxh3_64_intdigest(record)


def open_lmdb(path: Path) -> lmdb.Environment:
    """Open an LMDB data file for reading; ValueError for one that is damaged or cut off."""
    try:
        environment = lmdb.open(str(path), subdir=False, readonly=True, lock=False, create=False)
    except lmdb.Error as error:
        raise ValueError(f"{path}: not a readable LMDB file: {error}") from None
    used, size = used_bytes(environment), path.stat().st_size
    if size < used:  # reading past the end of a mapped file would kill the process
        environment.close()
        raise ValueError(f"{path}: cut off: found {size} bytes, expected {used}")
    return environment


def used_bytes(environment: lmdb.Environment) -> int:
    """Return how many bytes of its file an environment uses."""
    return int((environment.info()["last_pgno"] + 1) * environment.stat()["psize"])


def place_of(record: memoryview, environment: lmdb.Environment, where: str) -> int:
    """Return the file offset of a record that LMDB gave as a view of its map."""
    if len(record) < MIN_RECORD:
        raise ValueError(f"{where}: damaged block: a record of {len(record)} bytes is no block")
    address = np.frombuffer(record, dtype=np.uint8).__array_interface__["data"][0]
    (page,) = PAGE_HEADER.unpack(ctypes.string_at(address - PAGE_HEADER.size, PAGE_HEADER.size))
    return int(page * environment.stat()["psize"] + PAGE_HEADER.size)


class ShardWriter:
    """Writes one shard in one transaction; equal samples give equal bytes. The file appears, complete, at the end.

    Afterwards `samples` and `blocks` say how many there are, `table` where they lie, `content` what they are. With
    `encoded`, a recipe's data section, pictures are stored as the files that they come in, and fitted by that section
    when they are read.
    """

    table: BlockTable

    def __init__(self, path: Path, shape: Shape, capacity: int, encoded: Data | None = None) -> None:
        self.path, self.shape = path, shape
        self.picture = {key: getattr(encoded, key) for key in PICTURE_KEYS} if encoded else None
        self.temporary = temporary_path(path)
        self.samples = self.blocks = 0
        self.content = Content()
        self.labels: list[str] = []
        self.files: list[bytes] = []
        self.full = block_samples(shape)
        self.images = None if encoded else np.empty((self.full, *shape), dtype=np.uint8)
        self.written: list[tuple[int, str]] = []  # samples and digest of each block
        each = (MAX_FILE_BYTES if encoded else int(np.prod(shape))) + MAX_LABEL_BYTES + 5
        most = capacity * each + (capacity + 20) * 8 * PAGE
        # writemap: pages come from a fresh, zeroed file; LMDB's other way leaves bytes of its heap in page headers.
        self.environment = lmdb.open(str(self.temporary), map_size=most, subdir=False, lock=False, sync=False,
                                     writemap=True)  # fmt: skip
        self.transaction = self.environment.begin(write=True)

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._finish()
        else:
            self.transaction.abort()
            self.environment.close()
            self.temporary.unlink()

    def add(self, image: Picture | bytes, label: str) -> None:
        """Append a sample: uint8 (H, W, C) of the shard's shape, or a file's bytes, and a label without NUL.

        A label takes at most 4 KiB of UTF-8, a file at most 1 MiB.
        """
        if "\0" in label:
            raise ValueError(f"{self.path}: found a NUL in the label {label!r}, expected none")
        if isinstance(image, bytes):
            self._add_file(image, label)
        elif self.images is None or image.shape != self.shape or image.dtype != np.uint8:
            expected = "a file's bytes" if self.images is None else f"uint8 {self.shape}"
            raise ValueError(f"{self.path}: found a {image.dtype} picture {image.shape}, expected {expected}")
        else:
            self.images[len(self.labels)] = image
            self.content.add(self.images[len(self.labels)].data, label)
        self.labels.append(label)
        if len(self.labels) == self.full:
            self._flush()

    def _add_file(self, data: bytes, label: str) -> None:
        if self.images is not None or len(data) > MAX_FILE_BYTES:
            expected = f"uint8 {self.shape}" if self.images is not None else f"at most {MAX_FILE_BYTES} bytes"
            raise ValueError(f"{self.path}: found a file of {len(data)} bytes, expected {expected}")
        if self.labels and sum(map(len, self.files)) + len(data) > MOST_BLOCK_BYTES:
            self._flush()
        self.files.append(data)
        self.content.add(data, label)

    def _flush(self) -> None:
        record = pack_block(self.blocks, self.shape, self._pictures(), self.labels, encoded=self.images is None)
        self.transaction.put(KEY.pack(self.blocks), record, append=True)
        self.written.append((len(self.labels), f"{digest_of(record):016x}"))
        self.blocks += 1
        self.samples += len(self.labels)
        self.labels, self.files = [], []

    def _pictures(self) -> bytes | memoryview:
        if self.images is not None:
            return self.images[: len(self.labels)].reshape(-1).data
        return b"".join([np.cumsum([0, *map(len, self.files)], dtype="<u4").tobytes(), *self.files])

    def _finish(self) -> None:
        if self.labels:
            self._flush()
        meta = {"schema": SCHEMA, "shape": self.shape, "picture": self.picture, "blocks": self.written}
        self.transaction.put(b"meta", json.dumps(meta).encode(), append=True)
        self.transaction.commit()
        self.table = table_of(self.environment, self.written, str(self.path))
        used = used_bytes(self.environment)
        self.environment.close()
        os.truncate(self.temporary, used)
        self.temporary.replace(self.path)


def table_of(environment: lmdb.Environment, blocks: Sequence[tuple[int, str]], where: str) -> BlockTable:
    """Look up where each block's record lies; `blocks` is (samples, digest in hexadecimal digits) of each."""
    offsets, sizes = [], []
    with environment.begin(buffers=True) as transaction:
        for number in range(len(blocks)):
            record: memoryview | None = transaction.get(KEY.pack(number))
            if record is None:
                raise ValueError(f"{where}, block {number}: missing: the shard is damaged")
            offsets.append(place_of(record, environment, f"{where}, block {number}"))
            sizes.append(len(record))
            del record  # a view of the map, which must not outlive the transaction
    return BlockTable(
        offsets=np.array(offsets, dtype=np.uint64),
        sizes=np.array(sizes, dtype=np.uint32),
        samples=np.array([samples for samples, _ in blocks], dtype=np.uint32),
        digests=np.array([int(digest, 16) for _, digest in blocks], dtype=np.uint64),
    )
