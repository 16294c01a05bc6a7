"""Rendering: pictures per second as benchmarks/synth.py counts them, and what rendering takes beside a trainer."""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial

import cv2

from benchmarks.data_rows import CPU, Scale, alone, per_sample_us
from benchmarks.data_stages import children_s
from benchmarks.models import RECIPES, ROOT, Row, interleaved
from wordmill.pictures.distortion import distort
from wordmill.pictures.image import Picture
from wordmill.recipe.loading import load_recipe
from wordmill.synth.renderer import Renderer, SynthSpec
from wordmill.training.rendered import rendered_batches

CORES = 2  # of the trainer
RECIPE = "quickstart"
BATCH, WARM, COUNT = 128, 30, 60  # pictures as in the recipe, steps until most faces are unpacked, and then
LARGE, STRENGTH = (240, 80), 0.5  # pixels across and down of a large word's picture; how strongly it is changed
SHARE = 15.0  # percent of one core


def rendered_rows(scale: Scale) -> list[Row]:
    """Make the lines; those of benchmarks/synth.py in a process of its own, whose memory is one of them."""
    command = [sys.executable, "-m", "benchmarks.synth", "--json"]
    printed = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout
    rows: list[Row] = [line | {"name": f"render, {line['name']}"} for line in json.loads(printed)]
    return [*rows, *changed_rows(scale), share_row(render_us(scale), train_us(scale))]


def changed_rows(scale: Scale) -> list[Row]:
    """Make the lines of what train.augment words takes for a picture, of those that are rendered and of large ones."""
    renderer = Renderer(SynthSpec(seed=1, count=BATCH, words="train", difficulty="mixed"))
    small = [renderer.sample(number)[0] for number in range(BATCH)]
    large = [cv2.resize(cv2.cvtColor(image, cv2.COLOR_GRAY2RGB), LARGE) for image in small]

    def work(images: list[Picture]) -> int:
        return len([distort(image, number, STRENGTH) for number, image in enumerate(images)])

    kinds: dict[str, Callable[[], int]] = {
        "gray 32x100": partial(work, small), f"RGB {LARGE[1]}x{LARGE[0]}": partial(work, large),
    }  # fmt: skip
    return [alone(f"change a word, {name}", value, CPU) for name, value in per_sample_us(kinds, scale).items()]


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
    for _ in rendered_batches(spec, recipe.data, recipe.train, batch=BATCH, rank=0, ranks=1, steps=steps):
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
