"""Rendering: pictures per second as benchmarks/synth.py counts them, and what rendering takes beside a trainer."""

import argparse
import json
import subprocess
import sys

from benchmarks.data_rows import Scale, alone
from benchmarks.data_stages import children_s
from benchmarks.models import RECIPES, ROOT, Row, interleaved
from wordmill.recipe.loading import load_recipe
from wordmill.synth.renderer import SynthSpec
from wordmill.training.rendered import rendered_batches

CORES = 2  # of the trainer
RECIPE = "quickstart"
BATCH, WARM, COUNT = 128, 30, 60  # pictures as in the recipe, steps until most faces are unpacked, and then
SHARE = 15.0  # percent of one core


def rendered_rows(scale: Scale) -> list[Row]:
    """Make the lines; those of benchmarks/synth.py in a process of its own, whose memory is one of them."""
    command = [sys.executable, "-m", "benchmarks.synth", "--json"]
    printed = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout
    rows: list[Row] = [line | {"name": f"render, {line['name']}"} for line in json.loads(printed)]
    return [*rows, share_row(render_us(scale), train_us(scale))]


def share_row(render: float, train: float) -> Row:
    """Make the line of a trainer whose pictures are rendered on its own two cores: rendering's share of one of them.

    Both are microseconds of processor time per picture, all of which lies on the two cores.
    """
    share = 100 * render / ((render + train) / CORES)
    return alone(f"render while {RECIPE} trains on {CORES} cores", share, "% of one core", SHARE)


def render_us(scale: Scale) -> float:
    """Return what the process beside a trainer takes for a picture, once warm."""
    few, many = (2, 4) if scale.quick else (WARM, WARM + COUNT)
    return 1e6 * (feeder_s(many) - feeder_s(few)) / ((many - few) * BATCH)


def feeder_s(steps: int) -> float:
    """Draw so many batches as a trainer does; the processor time of the process that renders them, s."""
    recipe, before = load_recipe(RECIPES / f"{RECIPE}.yaml"), children_s()
    spec = SynthSpec(seed=1, count=steps * BATCH, words="train", difficulty="mixed")
    for _ in rendered_batches(spec, recipe.data, batch=BATCH, rank=0, ranks=1, steps=steps):
        pass
    return children_s() - before


def train_us(scale: Scale) -> float:
    """Return what a picture takes in a training step; RuntimeError where the trainer does not start.

    On one core, since threads that wait for each other take processor time, too.
    """
    failed: list[str] = []
    options = argparse.Namespace(batch=BATCH, threads=1, device="cpu", quick=scale.quick, failed=failed)
    results = interleaved(["pytorch"], RECIPE, "training", options)
    if failed:
        raise RuntimeError("; ".join(failed))
    return 1000 * results[0].cpu_ms
