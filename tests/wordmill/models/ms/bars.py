"""Pictures of bars that say which digits they are, and jobs on them."""

import dataclasses
from pathlib import Path

import numpy as np

from tests.wordmill.models.ms import COMPACT, DATA, TRAIN
from tests.wordmill.training.tiny import write_index
from wordmill.shards.blocks import ShardWriter
from wordmill.shards.loader import Batch
from wordmill.text.charset import load_charset
from wordmill.text.decoding import CtcCodec
from wordmill.training.job import Job
from wordmill.training.stream import MicroBatch, parts_of
from wordmill.training.targets import Draws

CODEC = CtcCodec(charset=load_charset("lower36"))
STEPS = 25


def draw(samples: int) -> tuple[np.ndarray, list[str]]:
    """Return pictures (N, 32, 100, 1) of bars whose height says which of three digits they are, and their labels."""
    rng = np.random.default_rng(samples)
    images = rng.integers(100, 150, (samples, 32, 100, 1), dtype=np.uint8)
    labels = []
    for image in images:
        digits = rng.integers(0, 3, rng.integers(1, 5))
        for place, digit in enumerate(digits):
            image[8 * digit + 2 : 8 * digit + 12, 24 * place + 4 : 24 * place + 20] = 250
        labels.append("".join(map(str, digits)))
    return images, labels


def write_set(path: Path, samples: int, extra: tuple[str, ...] = ()) -> Path:
    """Write a shard of so many pictures, and once more the first ones with labels of their own, and its index."""
    images, labels = draw(samples)
    with ShardWriter(path, (32, 100, 1), samples + len(extra)) as writer:
        for image, label in zip([*images, *images[: len(extra)]], [*labels, *extra], strict=True):
            writer.add(image, label)
    return write_index(path)


def some_parts(samples: int, parts: int = 1) -> list[MicroBatch]:
    """Return a batch in so many parts."""
    images, labels = draw(samples)
    section = dataclasses.replace(TRAIN, accumulation=parts)
    drawn = Draws(forced=np.ones(samples, np.float32), seeds=np.zeros(samples, np.int32))
    return parts_of(Batch(images=images, labels=labels), section, CODEC, STEPS, drawn)


def make_job(folder: Path, processes: int) -> Job:
    """Return a job of one step, on 32 pictures and two whose labels do not fit, with 70 to validate on."""
    section = dataclasses.replace(TRAIN, global_batch=32)
    return Job(
        data=DATA[1], model=COMPACT, train=section, start=None, device="cpu", processes=processes, folder=folder,
        train_sets=(write_set(folder / "train.mdb", 32, extra=("0" * 20, "!")),),
        val_sets=(write_set(folder / "val.mdb", 70),),
    )  # fmt: skip
