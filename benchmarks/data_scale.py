"""Size: how fast an epoch starts and what a sample costs as a data set grows, its blocks one shard's, repeated."""

import dataclasses
import gc
import os
import statistics
import time
from pathlib import Path

import numpy as np

from benchmarks.data_load import BATCH, epochs
from benchmarks.data_rows import CPU, Scale, against, alone
from benchmarks.models import ROOT, Row
from benchmarks.peers import loaders
from components.report.charts import line_chart
from wordmill.shards.index import Index
from wordmill.shards.loader import training_batches
from wordmill.shards.sets import Files, ShardSet, open_sets
from wordmill.text.charset import load_charset
from wordmill.text.decoding import CtcCodec
from wordmill.training.targets import fitting

SIZES = (100_000, 300_000, 1_000_000, 3_000_000, 10_000_000)
LARGEST = 14_442_049  # MJSynth and SynthText together
START_S, GROWTH = 1.0, 1.2
ROUNDS = 3  # a round takes 15 s
FRAMES = 25  # of a recogniser of pictures 100 pixels wide
STYLE = ROOT / "components" / "report" / "page.css"
TITLE = "us of processor time per sample over the samples of the set"


def scale_rows(gray: ShardSet, root: Path, plot: Path | None, scale: Scale) -> list[Row]:
    """Make the lines of growing sets, and draw them."""
    costs = cost_us(gray, (5_000, 20_000) if scale.quick else SIZES, scale)
    if plot:
        plot.write_text(drawn(costs), encoding="utf-8")
    rows = [alone(f"load gray to uint8, the first epoch of {size:,} samples", cost, CPU)
            for size, cost in costs.items()]  # fmt: skip
    growth = costs[max(costs)] / costs[min(costs)]
    rows.append(alone("cost of a sample, largest set by smallest", growth, "times", GROWTH))
    return rows + start_rows(gray, root, scale)


def grown(gray: ShardSet, samples: int) -> ShardSet:
    """Return a set of at least so many samples: the first shard of a set again and again, each time mapped anew."""
    index = gray.index
    blocks = int(np.count_nonzero(index.shard == 0))
    table = {field.name: getattr(index.table, field.name)[:blocks] for field in dataclasses.fields(index.table)}
    count = int(table["samples"].sum())
    part = dataclasses.replace(
        index,
        objects=index.objects[:1],
        table=dataclasses.replace(index.table, **table),
        shard=index.shard[:blocks],
        characters=index.characters[:count],
        frames=index.frames[:count],
    )
    whole = Index.join([part] * -(-samples // count))
    return ShardSet(whole, Files(whole, gray.files.paths[:1] * len(whole.objects)), None)


def cost_us(gray: ShardSet, sizes: tuple[int, ...], scale: Scale) -> dict[int, float]:
    """Load an epoch of a set of each size in turn; the median of us of processor time per sample."""
    times: dict[int, list[float]] = {size: [] for size in sizes}
    for _ in range(min(scale.rounds, ROUNDS)):
        for size in sizes:
            gc.collect()  # the maps of the set before
            run = epochs(grown(gray, size), len)
            start = time.process_time()
            samples = run()
            times[size].append(1e6 * (time.process_time() - start) / samples)
    return {size: statistics.median(found) for size, found in times.items()}


def start_rows(gray: ShardSet, root: Path, scale: Scale) -> list[Row]:
    """Make the lines of an epoch's start: until the first batch is there, and what DTRB's scan of labels would take."""
    large = grown(gray, scale.samples if scale.quick else LARGEST)
    path = scale.folder / "index.npz"
    large.index.save(path)
    os.link(str(gray.files.paths[0]), path.with_name(large.index.objects[0].name))
    walls, spent = [], []
    for _ in range(scale.rounds):
        wall, cpu = time.monotonic(), time.process_time()
        start(path)
        walls.append(time.monotonic() - wall)
        spent.append(time.process_time() - cpu)
    before = time.process_time()
    with loaders.opened(root) as environment:
        loaders.DtrbDataset(environment, channels=1)
    scan_s = (time.process_time() - before) / scale.samples * large.samples
    name = f"start of an epoch of {large.samples:,} samples"
    return [
        alone(f"{name}, by the clock", statistics.median(walls), "s", START_S),
        against(name, statistics.median(spent), "s CPU", "DTRB's scan, at its rate here", scan_s),
    ]


def start(path: Path) -> None:
    """Open a set by its index, leave out what a recogniser cannot learn, and load the first batch."""
    codec = CtcCodec(charset=load_charset("lower36"))
    fit = fitting(open_sets([path]), codec, FRAMES)
    next(training_batches(fit, batch=BATCH, rank=0, ranks=1, seed=1, epoch=0))


def drawn(costs: dict[int, float]) -> str:
    """Return the costs as a line over the sizes, an SVG file."""
    chart = line_chart(TITLE, {"gray": [(size, cost, 0.0) for size, cost in costs.items()]})
    style = f"<style>{STYLE.read_text(encoding='utf-8')}</style><title>{TITLE}</title>"
    return str(chart).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1).replace(">", f">{style}", 1)
