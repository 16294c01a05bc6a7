"""Loading: batches of 256 in random order, with labels, from warm files and from cold ones, beside the peers'."""

import gc
import itertools
import os
import shutil
import statistics
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.data_rows import CPU, Scale, against, alone, per_sample_us
from benchmarks.models import Row
from benchmarks.peers import loaders
from wordmill.pictures.image import normalise
from wordmill.shards.loader import training_batches
from wordmill.shards.sets import ShardSet

BATCH, RANKS = 256, 8
PEER_SAMPLES, COLD_SAMPLES = 5120, 2560  # of a peer in a round, and with reads one at a time
MIDDLE = 127.5
SERVER_PER_S = 106_510  # samples that the reference training feeds its 8 NPUs with
UINT8_US, FLOAT_US, RGB_FACTOR, COLD_US = 1.0, 2.0, 3.0, 6.0
DTRB_RATIO, MINDOCR_RATIO, SERVER_RATIO = 50.0, 25.0, 4.0

Open = Callable[[], ShardSet]


def epochs(shards: ShardSet, finish: Callable[[Any], object], ranks: int = 1) -> Callable[[], int]:
    """Return a function that loads one epoch of one rank, another one at each call, and tells its samples."""
    epoch = itertools.count()

    def run() -> int:
        samples = 0
        for batch in training_batches(shards, batch=BATCH, rank=0, ranks=ranks, seed=1, epoch=next(epoch)):
            finish(batch.images)
            samples += len(batch.labels)
        return samples

    return run


def as_float(images: Any) -> object:
    """Normalise a batch to float32, as training does where no device does it."""
    return normalise(images, MIDDLE)


def counted(batches: Iterable[Any], most: int) -> int:
    """Draw batches until so many samples have come, and return their number."""
    samples = 0
    for images, _ in batches:
        samples += len(images)
        if samples >= most:
            break
    return samples


def warm(root: Path, gray: ShardSet, rgb: ShardSet, encoded: ShardSet, scale: Scale) -> dict[str, float]:
    """Let all take turns on files that lie in memory; microseconds of processor time per sample."""
    for shards in (gray, rgb, encoded):
        if shards.samples != scale.samples:
            raise RuntimeError(f"the shards have {shards.samples} of the {scale.samples} samples that peers load")
    with loaders.opened(root) as environment:
        dtrb, parseq = loaders.dtrb(environment, BATCH, channels=1), loaders.parseq(environment, BATCH)
        peers: dict[str, Callable[[], Iterable[Any]]] = {
            "DTRB, gray": lambda: dtrb,
            "PARSeq, RGB": lambda: parseq,
            "MindOCR, RGB": lambda: loaders.mindocr(environment, BATCH),
        }
        ours = {
            "gray to uint8": epochs(gray, len),
            "gray to float32": epochs(gray, as_float),
            "RGB to uint8": epochs(rgb, len),
            "RGB to float32": epochs(rgb, as_float),
            "gray to uint8, one of 8 ranks": epochs(gray, len, RANKS),
            "gray to float32 from stored JPEGs": epochs(encoded, as_float),
        }
        for batches in peers.values():
            counted(batches(), scale.samples)
        for run in ours.values():
            run()
        return per_sample_us({name: partial(peer_round, batches) for name, batches in peers.items()} | ours, scale)


def peer_round(batches: Callable[[], Iterable[Any]]) -> int:
    """Draw a part of a new order of a peer's samples."""
    return counted(batches(), PEER_SAMPLES)


def warm_rows(times: dict[str, float]) -> list[Row]:
    """Make the lines of warm loading."""
    goals = {"gray to uint8": UINT8_US, "gray to float32": FLOAT_US, "RGB to uint8": RGB_FACTOR * UINT8_US,
             "RGB to float32": RGB_FACTOR * FLOAT_US}  # fmt: skip
    rows = [alone(f"load {name}", value, CPU, goals.get(name, 0.0)) for name, value in times.items()]
    for name, peer, goal in (("gray to float32", "DTRB, gray", DTRB_RATIO),
                             ("gray to float32", "MindOCR, RGB", MINDOCR_RATIO),
                             ("RGB to float32", "PARSeq, RGB", 0.0),
                             ("RGB to float32", "MindOCR, RGB", 0.0),
                             ("RGB to uint8", "MindOCR, RGB", 0.0),
                             ("gray to float32 from stored JPEGs", "DTRB, gray", 0.0)):  # fmt: skip
        rows.append(against(f"load {name}", times[name], CPU, peer, times[peer], goal))
    for name in ("gray to uint8", "gray to float32"):
        share = 1e6 / times[name] / SERVER_PER_S
        rows.append(alone(f"one core, {name}, of {SERVER_PER_S:,}/s", share, "times", SERVER_RATIO, least=True))
    return rows


def cold_rows(root: Path, cache: Path, gray: Open, rgb: Open, scale: Scale) -> list[Row]:
    """Make the lines of loading from files that are not in memory; by the clock."""
    theirs = cold_us(partial(dtrb_cold, root), root, scale)
    rows = [alone("load DTRB, gray, cold", theirs, "us/sample")]
    for name, opens, goal in (("gray", gray, COLD_US), ("RGB", rgb, RGB_FACTOR * COLD_US)):
        ours = cold_us(partial(cold_epoch, opens), cache, scale)
        rows.append(alone(f"load {name} to uint8, cold", ours, "us/sample", goal))
        rows.append(against(f"load {name} to uint8, cold", ours, "us/sample", "DTRB, gray, cold", theirs))
    return rows


def cold_epoch(opens: Open) -> Callable[[], int]:
    """Open a set and return what loads an epoch."""
    return epochs(opens(), len)


def dtrb_cold(root: Path) -> Callable[[], int]:
    """Prepare DTRB's loader without pages of its file mapped, and return what loads."""
    with loaders.opened(root) as environment:
        loader = loaders.dtrb(environment, BATCH, channels=1)
    dataset: Any = loader.dataset

    def run() -> int:
        with loaders.opened(root) as dataset.environment:
            return counted(loader, COLD_SAMPLES)

    return run


def cold_us(start: Callable[[], Callable[[], int]], folder: Path, scale: Scale) -> float:
    """Open anew, forget the files' pages and load once, round after round; the median of us by the clock per sample."""
    times = []
    for _ in range(scale.rounds):
        gc.collect()  # a mapped page stays
        run = start()
        forget(folder)
        read, begin = bytes_read(), time.monotonic()
        samples = run()
        times.append(1e6 * (time.monotonic() - begin) / samples)
        if not scale.quick and bytes_read() == read:
            raise RuntimeError(f"{folder} is read from memory: cold reading needs a file system on a disk")
    return statistics.median(times)


def stream_rows(cache: Path, opens: Open) -> list[Row]:
    """Make the lines of loading out of the store, of which nothing is here at first, opening included."""
    aside = cache.rename(cache.with_name("aside"))
    wall, cpu = time.monotonic(), time.process_time()
    shards = opens()
    next(training_batches(shards, batch=BATCH, rank=0, ranks=1, seed=1, epoch=0))
    rows = [alone("first batch out of the store", time.monotonic() - wall, "s")]
    for name in ("out of the store", "out of the store, the second epoch"):
        samples = epochs(shards, len)()
        rows.append(alone(f"load gray to uint8 {name}", 1e6 * (time.process_time() - cpu) / samples, CPU))
        cpu = time.process_time()
    shutil.rmtree(cache)
    aside.rename(cache)
    return rows


def forget(folder: Path) -> None:
    """Drop the pages of all files below a folder from memory."""
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)  # a page that is not written yet stays
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def bytes_read() -> int:
    """Return how many bytes this process has had read from disks."""
    lines = Path("/proc/self/io").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes"))
