"""What an attention head beside CTC's costs while training, and what it gives: same time with it and without it.

python -m benchmarks.guided [--recipe quickstart] [--seeds 1 2 3] [--minutes 20] [--weight 1.0] [--quick] [--json]

Cost: processor time of a training step on one batch, with and without the head, in turn. Gain: for each seed two
trainings of the recipe that take as long by the processor's time, the one with the head on as many pictures fewer as
it costs, each on a constant budget of steps; then the share of the recipe's benchmarks' rendered words that is read.
"""

import argparse
import dataclasses
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import ours
from benchmarks.data_rows import alone, print_rows
from benchmarks.models import Row
from pipelines.building import FOLDER, recipe_path
from wordmill.models.checkpoint import Checkpoint
from wordmill.pictures.image import fit_picture
from wordmill.recipe.arguments import from_nought, minutes
from wordmill.recipe.catalogue import load_catalogue
from wordmill.recipe.frameworks import twin
from wordmill.recipe.loading import load_recipe
from wordmill.recipe.sections import Recipe
from wordmill.synth.renderer import SynthSpec, render
from wordmill.training.job import Job
from wordmill.training.stream import training_stream

ROUNDS, TIMED = 5, 4  # rounds of so many steps
BATCH = 64
MEASURED = 1000


def recipe_of(name: str, guide: float, seed: int = 42) -> Recipe:
    """Return a recipe that learns from streamed pictures in PyTorch."""
    return load_recipe(recipe_path(name), ("train.framework=pytorch", f"train.guide={guide}", f"train.seed={seed}",
                                           "data.streamed=true", "train.validations_per_epoch=1"))  # fmt: skip


def step_seconds(name: str, weight: float, quick: bool) -> tuple[float, float]:
    """Return the processor time of a step without the head and with it, medians over rounds in turn."""
    steps = [ours.training(dataclasses.replace(one, data=dataclasses.replace(one.data, streamed=False)),
                           4 if quick else BATCH, "cpu", "pytorch")
             for one in (recipe_of(name, 0.0), recipe_of(name, weight))]  # fmt: skip
    for step in steps:
        step()
    times: list[list[float]] = [[], []]
    for _ in range(1 if quick else ROUNDS):
        for taken, step in zip(times, steps, strict=True):
            began = time.process_time()
            for _ in range(TIMED):
                step()
            taken.append((time.process_time() - began) / TIMED)
    return statistics.median(times[0]), statistics.median(times[1])


def read_after(name: str, guide: float, seed: int, steps: int, quick: bool) -> tuple[float, float]:
    """Train for so many steps; return the mean share of the rendered benchmarks' words that is read, and the time.

    It is the processor's, in seconds, without that of the process that draws the words.
    """
    recipe = recipe_of(name, guide, seed)
    catalogue = load_catalogue([FOLDER / "datasets.yaml"])
    batch = 8 if quick else recipe.train.global_batch
    data = dataclasses.replace(recipe.data, limit=steps * batch)
    train = dataclasses.replace(recipe.train, epochs=1, global_batch=batch)
    with tempfile.TemporaryDirectory(prefix="wordmill-benchmark-") as folder:
        val = ours.make_job(recipe, 8, "cpu", Path(folder)).val_sets
        job = Job(data=data, model=recipe.model, train=train, train_sets=(), val_sets=val, start=None, device="cpu",
                  processes=1, folder=Path(folder), rendered=catalogue[data.train[0]].source)  # fmt: skip
        trainer = ours.pytorch_trainer(job)
        rates, began = trainer.context.plan.rates, time.process_time()
        for number, parts in enumerate(training_stream(trainer.context), start=1):
            trainer.result(trainer.step(number, parts, float(rates[number - 1]), (False, False)))
        seconds = time.process_time() - began
        checkpoint = Checkpoint(tensors=trainer.weights(), data=data, model=job.model, train=train, step=steps)
    sources = [catalogue[benchmark].source for benchmark in recipe.benchmarks]
    shares = [share_read(checkpoint, source, 20 if quick else MEASURED) for source in sources]
    return statistics.mean(shares), seconds


def share_read(checkpoint: Checkpoint, source: str, count: int) -> float:
    """Return the share of the first rendered words of a source that are read."""
    predictor: Any = twin("pytorch", "models.predict").Predictor(checkpoint, "cpu")
    drawn = list(render(SynthSpec.parse(source), 0, count))
    images = np.stack([fit_picture(picture.reshape(*picture.shape[:2], -1), checkpoint.data) for picture, _ in drawn])
    clean = predictor.codec.charset.clean
    texts = [text for first in range(0, count, 100) for text in predictor.read(images[first : first + 100])[0]]
    return float(np.mean([text == clean(label) for text, (_, label) in zip(texts, drawn, strict=True)]))


def compare(options: argparse.Namespace) -> list[Row]:
    """Measure cost and gain."""
    plain, guided = step_seconds(options.recipe, options.weight, options.quick)
    rows = [alone(f"{options.recipe}, a step without the head", 1000 * plain, "ms CPU"),
            alone(f"{options.recipe}, a step with it", 1000 * guided, "ms CPU"),
            alone(f"{options.recipe}, its cost", 100 * (guided / plain - 1), "%")]  # fmt: skip
    steps = 4 if options.quick else max(1, round(60 * options.minutes / plain))
    trainings = {"without": (0.0, steps), "with": (options.weight, max(1, round(steps * plain / guided)))}
    rows += [alone(f"{name} the head", counted, "steps") for name, (_, counted) in trainings.items()]
    gains = []
    for seed in options.seeds:
        found = {name: read_after(options.recipe, guide, seed, counted, options.quick)
                 for name, (guide, counted) in trainings.items()}  # fmt: skip
        gains.append(100 * (found["with"][0] - found["without"][0]))
        rows += [line for name, (share, seconds) in found.items()
                 for line in (alone(f"seed {seed}, {name}", 100 * share, "% read"),
                              alone(f"seed {seed}, {name}, training", seconds, "s CPU"))]  # fmt: skip
        print(json.dumps(rows[-4:]), flush=True)
    rows.append(alone("gain, mean of the seeds", statistics.mean(gains), "points"))
    return [*rows, alone("gain, least to most", max(gains) - min(gains), "points")]


def main() -> None:
    """Measure, and print the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.guided", description=__doc__)
    parser.add_argument("--recipe", default="quickstart", help="one of CTC, on rendered words")
    parser.add_argument("--seeds", type=from_nought, nargs="+", default=[1, 2, 3])
    parser.add_argument("--minutes", type=minutes, default=20.0, help="of processor time for each training")
    parser.add_argument("--weight", type=float, default=1.0, help="train.guide")
    parser.add_argument("--quick", action="store_true", help="a few steps each, to see that everything works")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    print_rows(compare(options), options.json)


if __name__ == "__main__":
    main()
