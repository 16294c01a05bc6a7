"""The data plane from fetching to batches, beside the loading and packing of peers: one table, one run.

python -m benchmarks.data [--samples 20000] [--parts NAME...] [--quick] [--json] [--plot FILE.svg]

All read the same rendered JPEGs, of MJSynth's size, in random order. Costs are processor time, user and system, which
other work on the machine disturbs less than it does the clock; where the unit is no CPU time, the clock counts. A
ratio is the peer's cost by ours: above 1, ours is faster. A goal is the ratio's where a peer stands, else the value's.
Peers do what they publish, without worker processes (benchmarks/peers/loaders.py).
"""

import argparse
import contextlib
import dataclasses
import json
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from benchmarks import data_fetch, data_load, data_pack, data_readers, data_rendered, data_scale, data_stages
from benchmarks.data_rows import Scale
from benchmarks.data_samples import Words, words, write_folder
from benchmarks.data_stages import Ran
from benchmarks.models import Row, table
from benchmarks.peers.loaders import create_lmdb
from wordmill.recipe.arguments import from_one
from wordmill.shards.sets import ShardSet
from wordmill.store.storage import Store

SAMPLES, ROUNDS, ROUND_S = 20_000, 5, 0.5
QUICK_SAMPLES = 2_304  # of which 8 ranks get a batch each
TIMES = 6  # how often the large set has each sample


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bench:
    """The samples in the forms that the parts read: files with a list, and the peers' LMDB environment."""

    scale: Scale
    plot: Path | None
    samples: Words
    listed: Path
    root: Path
    store: Store

    @property
    def source(self) -> Ran:
        """The fetch stage's outcome of the LMDB environment, which it finds finished from the second time on."""
        return data_stages.fetched(
            self.scale.folder, source=self.root.as_uri(), reader="lmdb", samples=self.scale.samples
        )

    def opener(self, channels: int, stored: str = "decoded") -> Callable[[], ShardSet]:
        """Return what opens the samples as the shard stage packs them."""
        data = data_stages.section(channels, stored=stored)
        ran = data_stages.sharded(self.scale.folder, self.source.manifest, data)
        return partial(data_stages.opened, self.store, ran)


def load(bench: Bench) -> list[Row]:
    """Measure loading beside the peers, from warm files, from cold ones and out of the store."""
    gray, rgb, encoded = bench.opener(1), bench.opener(3), bench.opener(1, "encoded")
    rows = data_load.warm_rows(data_load.warm(bench.root, gray(), rgb(), encoded(), bench.scale))
    rows += data_load.cold_rows(bench.root, bench.store.cache, gray, rgb, bench.scale)
    return rows + data_load.stream_rows(bench.store.cache, gray)


def scale(bench: Bench) -> list[Row]:
    """Measure what a set's size costs."""
    return data_scale.scale_rows(bench.opener(1)(), bench.root, bench.plot, bench.scale)


def pack(bench: Bench) -> list[Row]:
    """Measure packing beside the peer's tool."""
    return data_pack.pack_rows(bench.listed, bench.root, bench.scale)


def stages(bench: Bench) -> list[Row]:
    """Measure the stages fetch and shard as a pipeline runs them, on a set several times as large."""
    count = TIMES * bench.scale.samples
    with large_archive(bench) as archive:
        rows, large = data_fetch.fetch_rows(archive, count, bench.scale.folder)
    gray = data_stages.section(1)
    small = data_stages.sharded(bench.scale.folder, bench.source.manifest, gray)
    packed = data_stages.sharded(bench.scale.folder, large.manifest, gray)
    return rows + data_pack.stage_rows(small, packed, count - bench.scale.samples)


@contextlib.contextmanager
def large_archive(bench: Bench) -> Iterator[Path]:
    """Give a tar of an LMDB environment with every sample several times."""
    again, root = bench.listed.with_name("again.txt"), bench.scale.folder / "large"
    again.write_text(TIMES * bench.listed.read_text(encoding="utf-8"), encoding="utf-8")
    create_lmdb(again, root)
    archive = bench.scale.folder / "large.tar"
    with tarfile.open(archive, "w") as file:
        file.add(root / "data.mdb", "large/data.mdb")
    yield archive
    archive.unlink()


def readers(bench: Bench) -> list[Row]:
    """Measure the readers."""
    data_readers.write_forms(bench.listed.parent, bench.samples)
    return data_readers.reader_rows(bench.root, bench.listed.parent, bench.scale)


def rendered(bench: Bench) -> list[Row]:
    """Measure the renderer."""
    return data_rendered.rendered_rows(bench.scale)


PARTS: dict[str, Callable[[Bench], list[Row]]] = {
    "load": load, "scale": scale, "pack": pack, "stages": stages, "readers": readers, "rendered": rendered,
}  # fmt: skip


def measure(parts: list[str], size: Scale, plot: Path | None) -> list[Row]:
    """Make the samples, and let the parts measure one after the other."""
    import cv2
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    tell(f"rendering {size.samples:,} samples")
    samples = words(size.samples)
    listed, root = write_folder(size.folder / "files", samples), size.folder / "lmdb"
    create_lmdb(listed, root)
    rows = []
    with data_stages.storage(size.folder) as store:
        bench = Bench(scale=size, plot=plot, samples=samples, listed=listed, root=root, store=store)
        for part in parts:
            start = time.monotonic()
            rows += PARTS[part](bench)
            tell(f"{part}: {time.monotonic() - start:.0f} s")
    return rows


def tell(text: str) -> None:
    """Say what is being done."""
    print(text, file=sys.stderr, flush=True)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.data", description=__doc__)
    parser.add_argument("--samples", type=from_one, default=SAMPLES)
    parser.add_argument("--parts", nargs="+", choices=tuple(PARTS), default=tuple(PARTS), metavar="NAME")
    parser.add_argument("--quick", action="store_true", help="little and once, to see that everything works")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="draw the cost of a sample over the set's size")
    return parser.parse_args()


def main() -> None:
    """Measure, and print the table or its rows as JSON."""
    options = parse()
    with tempfile.TemporaryDirectory(prefix="wordmill-benchmark-") as folder:
        if options.quick:
            size = Scale(folder=Path(folder), samples=QUICK_SAMPLES, rounds=1, round_s=0.0, quick=True)
        else:
            size = Scale(folder=Path(folder), samples=options.samples, rounds=ROUNDS, round_s=ROUND_S, quick=False)
        with contextlib.redirect_stdout(sys.stderr):  # what is fetched and opened tells its progress
            rows = measure(options.parts, size, options.plot)
    print(json.dumps(rows, indent=1) if options.json else table(rows))


if __name__ == "__main__":
    main()
