"""Packing: what a JPEG costs to decode, resize and write, beside what the peer's tool takes to check and copy it."""

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path

from benchmarks.data_rows import CPU, Scale, against, alone, per_sample_us
from benchmarks.data_stages import Ran, section
from benchmarks.models import Row
from benchmarks.peers.loaders import create_lmdb
from components.shard.packing import Rules, Task, pack_shard
from wordmill.recipe.catalogue import Entry
from wordmill.recipe.parsing import from_json
from wordmill.recipe.sections import Data
from wordmill.text.charset import charset_of

GRAY_US, MEMORY_MB = 30.0, 1024.0
PEER = "DTRB create_lmdb_dataset"


def pack_rows(listed: Path, root: Path, scale: Scale) -> list[Row]:
    """Let a worker of the shard stage and the peer's tool take turns on the same samples."""
    work: dict[str, Callable[[], int]] = {PEER: lambda: created(listed, scale.folder / "created")}
    for name, channels, stored in (("gray", 1, "decoded"), ("RGB", 3, "decoded"), ("JPEGs", 1, "encoded")):
        work[name] = packer(root, from_json(Data, section(channels, stored=stored)), scale)
    times = per_sample_us(work, scale)
    rows = [alone(PEER, times[PEER], CPU)]
    rows += [alone("pack gray", times["gray"], CPU, GRAY_US)]
    rows += [against(f"pack {name}", times[name], CPU, PEER, times[PEER], 1.0 if name == "gray" else 0.0)
             for name in ("gray", "RGB", "JPEGs")]  # fmt: skip
    return rows


def created(listed: Path, output: Path) -> int:
    """Write the peer's LMDB and remove it."""
    samples = create_lmdb(listed, output)
    shutil.rmtree(output)
    return samples


def packer(root: Path, data: Data, scale: Scale) -> Callable[[], int]:
    """Return what packs all samples to one shard, again at each call."""
    entry = Entry(source=root.as_uri(), reader="lmdb", samples=scale.samples, licence="none")
    rules = Rules(data=data, charset=charset_of(data), training=True)
    number = itertools.count()

    def run() -> int:
        path = scale.folder / f"packed-{data.channels}-{data.stored}-{next(number)}.lmdb"
        packed = pack_shard(Task(entry=entry, root=root, start=0, stop=scale.samples, path=path, rules=rules))
        path.unlink()
        if packed.samples != scale.samples:
            raise RuntimeError(f"{packed.samples} of {scale.samples} samples were packed: {packed}")
        return packed.samples

    return run


def stage_rows(small: Ran, large: Ran, added: int) -> list[Row]:
    """Make the lines of the whole stage by what `added` samples more take: its start counts for nothing."""
    per_s = added / (large.wall_s - small.wall_s)
    cpu_us = 1e6 * (large.cpu_s - small.cpu_s) / added
    return [
        alone("shard stage, gray, reading and storing included", cpu_us, CPU),
        alone("shard stage, gray, both cores by the clock", per_s, "samples/s"),
        alone("shard stage, peak memory of its processes", large.memory_mb, "MiB", MEMORY_MB),
    ]
