"""Tiny training jobs for the tests of both frameworks."""

import dataclasses
from pathlib import Path

import numpy as np
import numpy.typing as npt

from wordmill.recipe.sections import Data, Model, Train
from wordmill.shards.blocks import ShardWriter
from wordmill.shards.content import Content
from wordmill.shards.index import Index, measure_labels
from wordmill.shards.sets import ShardSet
from wordmill.store.storage import Object, hash_file
from wordmill.text.charset import load_charset
from wordmill.training.job import Job
from wordmill.training.state import Scored

WORDS = ("a", "be", "cat", "door", "eagle", "f00d", "1234", "zz")
DATA = Data(train=("t",), val=("v",), charset="lower36", height=32, width=100, channels=1)
# 8 columns: of a decoder of as many steps, as of a guide, each is compiled.
NARROW = dataclasses.replace(DATA, width=32)
MODEL = Model(name="crnn", backbone="compact", neck="bilstm", hidden=16, layers=1)
TRAIN = Train(
    framework="pytorch", epochs=1, global_batch=16, loss="ctc_by_length", optimizer="adamw", lr=2e-3, warmup_epochs=0.0,
    weight_decay=1e-4, amp="O0", seed=7, clip_norm=5.0,
)  # fmt: skip


def picture(number: int) -> npt.NDArray[np.uint8]:
    """Return one of the pictures (32, 100, 1): large squares of random gray, easy to tell apart."""
    squares = np.random.default_rng(number).integers(0, 256, (4, 10), dtype=np.uint8)
    return np.kron(squares, np.ones((8, 10), dtype=np.uint8))[:, :, np.newaxis]


def write_shard(path: Path, samples: int, labels: tuple[str, ...] = WORDS, width: int = DATA.width) -> Path:
    """Write a shard in which sample i has label and picture number i modulo the number of labels."""
    with ShardWriter(path, (32, width, 1), samples) as writer:
        for number in range(samples):
            kind = number % len(labels)
            writer.add(picture(kind)[:, :width], labels[kind])
    return path


def write_set(path: Path, samples: int, labels: tuple[str, ...] = WORDS, width: int = DATA.width) -> Path:
    """Write a shard as `write_shard` does and its index beside it; return the index's path."""
    return write_index(write_shard(path, samples, labels, width))


def write_index(shard: Path) -> Path:
    """Write the index of a shard beside it, and return its path."""
    read, path = ShardSet.open([shard]), shard.with_suffix(".npz")
    labels = [label for number in range(read.index.blocks) for label in read.block(number).labels]
    content = Content()
    for number in range(read.index.blocks):
        block = read.block(number)
        pictures = [image.data for image in block.images] if read.index.picture is None else block.files
        for image, label in zip(pictures, block.labels, strict=True):
            content.add(image, label)
    entry = Object(name=shard.name, sha256=hash_file(shard), bytes=shard.stat().st_size)
    measured = measure_labels(labels, load_charset("lower36"))
    Index.of_shard(entry, read.shape, read.index.picture, read.index.table, measured, content).save(path)
    return path


def make_job(folder: Path, *, train: Train = TRAIN, samples: int = 64, processes: int = 1, data: Data = DATA) -> Job:
    """Return a job on fresh sets: `samples` for training, 20 for validation."""
    return Job(
        data=data, model=MODEL, train=train, device="cpu", processes=processes, folder=folder, start=None,
        train_sets=(write_set(folder / "train.shard", samples, width=data.width),),
        val_sets=(write_set(folder / "val.shard", 20, width=data.width),),
    )  # fmt: skip


def best_of(step: int) -> tuple[Scored, ...]:
    """Return what a run knows of its best weights, those of a step; 0: it has none."""
    return (Scored(step=step, accuracy=0.5, loss=1.0),) if step else ()
