"""The index of a data set: its shards, where their blocks lie, and what each label needs of a recogniser.

With it alone a set opens in a moment, whatever its size, and no label is looked at before it is learnt from. It is one
small file, `index.npz`, beside the shards; equal indices have equal bytes.
"""

import dataclasses
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wordmill.shards.blocks import BlockTable, Shape
from wordmill.shards.content import Content
from wordmill.store.artifacts import digest
from wordmill.store.files import atomic_file, write_arrays
from wordmill.store.storage import Object
from wordmill.text.charset import Charset

INDEX = "index.npz"  # the name of the file
SCHEMA = 3  # of the file
MANY = 255  # of a label's characters or frames: so many, or more

Counts = npt.NDArray[np.uint8]
TABLE = tuple(field.name for field in dataclasses.fields(BlockTable))


@dataclass(frozen=True, kw_only=True)
class Index:
    """A data set of shards of one shape (H, W, C).

    picture:    None, or how the files of encoded pictures are fitted: the recipe's PICTURE_KEYS
    samples:    what the samples are, in their order, where a shard's writer has told it
    objects:    the shards
    table:      of all blocks, one shard behind the other
    shard:      (B,) uint32, the number of each block's shard
    characters: (N,) uint8, of each label, how many of the recipe's charset it has, 255 for that or more
    frames:     (N,) uint8, the same and one for each pair of equal neighbours: the steps that CTC needs
    """

    shape: Shape
    picture: dict[str, Any] | None
    samples: Content
    objects: tuple[Object, ...]
    table: BlockTable
    shard: npt.NDArray[np.uint32]
    characters: Counts
    frames: Counts

    @property
    def content(self) -> str:
        """A digest of labels and pictures in their order: equal sets are equal however they are cut into shards."""
        return digest([self.shape, self.picture, self.samples.samples, f"{self.samples.value:x}"])

    @property
    def blocks(self) -> int:
        """Number of blocks over all shards."""
        return len(self.shard)

    @cached_property
    def first_blocks(self) -> npt.NDArray[np.int64]:
        """The number of each shard's first block."""
        return np.searchsorted(self.shard, np.arange(len(self.objects)))

    def location(self, block: int) -> tuple[str, int]:
        """Return the name of a block's shard, and the block's number in it."""
        shard = self.shard[block]
        return self.objects[shard].name, block - int(self.first_blocks[shard])

    @classmethod
    def of_shard(
        cls, entry: Object, shape: Shape, picture: dict[str, Any] | None, table: BlockTable,
        measured: tuple[Counts, Counts], samples: Content,
    ) -> "Index":  # fmt: skip
        """Return the index of one shard; `shape`, `picture`, `table` and `samples` are its writer's."""
        shard = np.zeros(len(table.samples), dtype=np.uint32)
        characters, frames = measured
        return cls(shape=shape, picture=picture, samples=samples, objects=(entry,), table=table, shard=shard,
                   characters=characters, frames=frames)  # fmt: skip

    @classmethod
    def join(cls, parts: Sequence["Index"]) -> "Index":
        """Return one index of all parts, in this order; ValueError for parts that do not belong together."""
        if not parts:
            raise ValueError("no shards given: expected at least one")
        for part in parts:
            if (part.shape, part.picture) != (parts[0].shape, parts[0].picture):
                first = f"{parts[0].objects[0].name} {parts[0].shape}"
                found = f"{part.objects[0].name}: pictures are {part.shape}"
                raise ValueError(f"{found}, but those of {first}: shard them alike")
        starts = np.cumsum([0, *(len(part.objects) for part in parts[:-1])], dtype=np.uint32)
        shard = [part.shard + start for part, start in zip(parts, starts, strict=True)]
        return cls(
            shape=parts[0].shape, picture=parts[0].picture, shard=np.concatenate(shard),
            samples=reduce(Content.join, (part.samples for part in parts)),
            objects=tuple(entry for part in parts for entry in part.objects),
            table=BlockTable(**{name: np.concatenate([getattr(p.table, name) for p in parts]) for name in TABLE}),
            characters=np.concatenate([part.characters for part in parts]),
            frames=np.concatenate([part.frames for part in parts]),
        )  # fmt: skip

    def save(self, path: Path) -> None:
        """Write the index file; it appears whole or not at all."""
        facts = {"schema": SCHEMA, "shape": self.shape, "picture": self.picture,
                 "samples": [f"{self.samples.value:x}", self.samples.samples],
                 "objects": [dataclasses.astuple(entry) for entry in self.objects]}  # fmt: skip
        text = np.frombuffer(json.dumps(facts).encode(), dtype=np.uint8)
        table = {name: getattr(self.table, name) for name in TABLE}
        with atomic_file(path) as temporary, temporary.open("wb") as file:
            write_arrays(file, {"facts": text, "shard": self.shard, "characters": self.characters,
                                "frames": self.frames, **table})  # fmt: skip

    @classmethod
    def load(cls, path: Path) -> "Index":
        """Read what `save` wrote; ValueError for a file that is damaged or of another schema."""
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = dict(file)
                facts = json.loads(arrays.pop("facts").tobytes())
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path}: not a readable index of shards: {error}") from None
        if facts.get("schema") != SCHEMA:
            raise ValueError(f"{path}: index schema is {facts.get('schema')!r}, this code reads {SCHEMA}")
        height, width, channels = facts["shape"]
        return cls(
            shape=(height, width, channels), picture=facts["picture"],
            samples=Content(value=int(facts["samples"][0], 16), samples=facts["samples"][1]),
            objects=tuple(Object(name=name, sha256=sha256, bytes=size) for name, sha256, size in facts["objects"]),
            table=BlockTable(**{name: arrays[name] for name in TABLE}),
            **{name: arrays[name] for name in ("shard", "characters", "frames")},
        )  # fmt: skip


def measure_labels(labels: Sequence[str], charset: Charset) -> tuple[Counts, Counts]:
    """Return characters and frames of labels without NUL, (N,) uint8, as an index has them."""
    numbers, lengths = charset.spell(labels)
    frames = lengths + count_repeats(numbers, lengths)
    return np.minimum(lengths, MANY).astype(np.uint8), np.minimum(frames, MANY).astype(np.uint8)


def count_repeats(numbers: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return how many pairs of equal neighbours each label has, (N,), given what `Charset.spell` says of them."""
    owners = np.repeat(np.arange(len(lengths)), lengths)
    repeats = (numbers[1:] == numbers[:-1]) & (owners[1:] == owners[:-1])
    return np.bincount(owners[1:][repeats], minlength=len(lengths))
