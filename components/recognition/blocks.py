"""The format of shards, and their writer: single-file LMDB environments of decoded, resized pictures in blocks.

A shard holds `meta` (JSON: schema, samples, block, shape) and one record per block under its number (4 bytes,
big-endian, so that records lie in reading order). A block record is, little-endian:
    4 bytes   magic "WMB1"
    5 x u32   count n, height, width, channels, bytes of all labels
    u32 x n+1 offsets of the labels in the label text
    uint8     n pictures (height, width, channels), one behind the other
    UTF-8     the labels, one behind the other
Every block but a shard's last holds `block` samples.
"""

import json
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import lmdb
import numpy as np
import numpy.typing as npt

from components.recognition.image import Picture

SCHEMA = 1
SHARD_SAMPLES = 16384  # source samples per shard; any number of workers splits a data set at the same places
BLOCK_SAMPLES = 256
MAX_LABEL_BYTES = 4096
MAGIC = b"WMB1"
HEADER = struct.Struct("<4s5I")
KEY = struct.Struct(">I")
PAGE = 4096  # bytes: LMDB's page on every platform that this runs on is this or a multiple

Shape = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class Block:
    """Samples of one record: pictures uint8 (n, H, W, C), a read-only view, and their labels, decoded on demand."""

    images: Picture
    offsets: npt.NDArray[np.uint32]
    text: memoryview

    def label(self, row: int) -> str:
        """Return the label of one sample."""
        return str(self.text[self.offsets[row] : self.offsets[row + 1]], "utf-8")

    @property
    def labels(self) -> list[str]:
        """The labels of all samples."""
        return [self.label(row) for row in range(len(self.images))]


def pack_block(images: Sequence[Picture], labels: Sequence[str]) -> bytes:
    """Return the record of a block: pictures of one shape (H, W, C), uint8, and their labels."""
    texts = [label.encode() for label in labels]
    offsets = np.cumsum([0, *map(len, texts)], dtype="<u4")
    header = HEADER.pack(MAGIC, len(texts), *images[0].shape, int(offsets[-1]))
    return b"".join([header, offsets.tobytes(), *(image.tobytes() for image in images), *texts])


def unpack_block(record: memoryview, where: str) -> Block:
    """Read a block record without copying its pictures; ValueError for one whose parts do not add up."""
    if len(record) < HEADER.size:
        raise ValueError(f"{where}: a record of {len(record)} bytes is no block")
    magic, count, height, width, channels, text_bytes = HEADER.unpack_from(record)
    first_image = HEADER.size + 4 * (count + 1)
    first_text = first_image + count * height * width * channels
    if magic != MAGIC or len(record) != first_text + text_bytes:
        found = f"{len(record)} bytes beginning with {magic!r}"
        raise ValueError(
            f"{where}: damaged block: found {found}, expected {first_text + text_bytes} bytes and {MAGIC!r}"
        )
    offsets = np.frombuffer(record, dtype="<u4", count=count + 1, offset=HEADER.size)
    if offsets[0] != 0 or offsets[-1] != text_bytes or (offsets[1:] < offsets[:-1]).any():
        raise ValueError(f"{where}: damaged block: the offsets of its labels do not rise from 0 to {text_bytes}")
    images = np.frombuffer(record, dtype=np.uint8, count=first_text - first_image, offset=first_image)
    return Block(images=images.reshape(count, height, width, channels), offsets=offsets, text=record[first_text:])


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


class ShardWriter:
    """Writes one shard in one transaction; equal samples give equal bytes. The file appears, complete, at the end."""

    def __init__(self, path: Path, shape: Shape, capacity: int) -> None:
        self.path, self.shape = path, shape
        self.temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
        self.samples = self.blocks = 0
        self.images: list[Picture] = []
        self.labels: list[str] = []
        self.temporary.unlink(missing_ok=True)
        blocks = -(-capacity // BLOCK_SAMPLES)
        most = capacity * (int(np.prod(shape)) + MAX_LABEL_BYTES + 4) + (blocks + 16) * 4 * PAGE
        # writemap: pages come from a fresh, zeroed file; LMDB's other way leaves bytes of its heap in page headers.
        self.environment = lmdb.open(
            str(self.temporary), map_size=most, subdir=False, lock=False, sync=False, writemap=True
        )
        self.transaction = self.environment.begin(write=True)

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._finish()
        else:
            self.transaction.abort()
            self.environment.close()
            self.temporary.unlink()

    def add(self, image: Picture, label: str) -> None:
        """Append a sample: uint8 (H, W, C) of the shard's shape and a label of at most 4 KiB of UTF-8."""
        if image.shape != self.shape or image.dtype != np.uint8:
            raise ValueError(f"{self.path}: found a {image.dtype} picture {image.shape}, expected uint8 {self.shape}")
        self.images.append(image)
        self.labels.append(label)
        if len(self.images) == BLOCK_SAMPLES:
            self._flush()

    def _flush(self) -> None:
        self.transaction.put(KEY.pack(self.blocks), pack_block(self.images, self.labels), append=True)
        self.blocks += 1
        self.samples += len(self.images)
        self.images, self.labels = [], []

    def _finish(self) -> None:
        if self.images:
            self._flush()
        meta = {"schema": SCHEMA, "samples": self.samples, "block": BLOCK_SAMPLES, "shape": self.shape}
        self.transaction.put(b"meta", json.dumps(meta).encode(), append=True)
        self.transaction.commit()
        used = used_bytes(self.environment)
        self.environment.close()
        os.truncate(self.temporary, used)
        self.temporary.replace(self.path)
