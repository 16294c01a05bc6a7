"""The learning curve of `python -m pipelines tune`: short trainings on an eighth, a quarter, half and all of the words.

All begin with the same weights and take the same number of steps, so that nothing but the words is another; together
they cost a quarter of what the run's training may. They are the train stage's work as any, by its keys, of which MLflow
is told the outcome alone, and no model is registered.
"""

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.local.evaluating import stage_program
from pipelines.local.own.composing import ENDING
from wordmill.inference.learning_curve import fit_curve
from wordmill.recipe.parsing import to_json
from wordmill.recipe.sections import Data, Recipe, Train
from wordmill.store.artifacts import read_manifest

PARTS = (0.125, 0.25, 0.5, 1.0)
COST = 1 / 4  # of all four trainings together, in pictures of the run's: tuning ends in ten minutes
WARMUP = 0.125  # of each
LEAST_LEARNT, LEAST_HELD_OUT = 64, 30  # words of which a curve is drawn
TELLING = 0.1  # the width up to which an interval that holds 0 tells something
DRAWN = 24  # points of the fitted curve


def learning_curve(
    recipe: Recipe, samples: dict[str, int], own: str, start: Path, shards: Path, where: tuple[str, int], folder: Path
) -> dict[str, Any]:
    """Train and measure each part, and return the points, the fitted curve and what twice as many words would give.

    recipe: as the run had it; samples: of its packed sets; own: the set whose words count, with parts `own`_train and
    `own`_test; start: the weights that all begin with; shards: the run's manifest of them; where: the device and the
    number of processes; folder: of the run, whose name is its tag.
    """
    learnt, held_out = samples[f"{own}_train"], samples[f"{own}_test"]
    if learnt < LEAST_LEARNT or held_out < LEAST_HELD_OUT:
        return {"points": [], "text": f"too few words to tell what more would give: {learnt} to learn from and "
                f"{held_out} held out, expected at least {LEAST_LEARNT} and {LEAST_HELD_OUT}"}  # fmt: skip
    if f"{own}_train" not in recipe.data.shares:
        return {"points": [], "text": f"no learning curve: data.shares gives {own}_train no share"}
    points = []
    for part in PARTS:
        words = round(part * learnt)
        print(f"learning curve: {words:,} of {learnt:,} words", flush=True)
        data, train = short_training(recipe, samples, f"{own}_train", part, start)
        trained, measured = (folder / "curve" / f"{stage}-{words}.json" for stage in ("train", "evaluate"))
        run_tag, device = f"{folder.name}-curve-{words}", where[0]
        stage_program("train", run_tag, trained, recipe="", data=to_json(data), model=to_json(recipe.model),
                      train=to_json(train), shards=str(shards), device=device, processes=str(where[1]),
                      gang="")  # fmt: skip
        stage_program("evaluate", run_tag, measured, benchmark=f"{own}_test", evaluation=to_json(recipe.evaluation),
                      model=str(trained), shards=str(shards), device=device)  # fmt: skip
        facts = read_manifest(measured).facts
        points.append({"words": words, "total": facts["total"], "correct": facts["correct"]})
    return fitted(points)


def short_training(
    recipe: Recipe, samples: dict[str, int], learnt: str, part: float, start: Path
) -> tuple[Data, Train]:
    """Return the sections of a short training on a part of one of a recipe's sets.

    What is composed of all of its words tells more than a part has: its share is the part's.
    """
    data, train = own_alone(recipe.data, learnt), recipe.train
    epoch = data.epoch_samples or sum(samples[name] for name in data.train)
    steps = COST * train.epochs * epoch / len(PARTS) / train.global_batch
    return (
        dataclasses.replace(data, fractions=data.fractions | {learnt: part},
                            epoch_samples=math.ceil(steps) * train.global_batch),
        dataclasses.replace(
            train, start_from=str(start), epochs=1, validations_per_epoch=1, patience=0, keep_best=1, profile=0,
            schedule="warmup_cosine", warmup_epochs=WARMUP, min_lr=0.0, flat_start_epochs=0.0,
        ),
    )  # fmt: skip


def own_alone(data: Data, learnt: str) -> Data:
    """Return a recipe's data with a set of own words instead of those that are composed of its letters too."""
    composed = f"{learnt.removesuffix('_train')}{ENDING}"
    shares = {name: share for name, share in data.shares.items() if name != composed}
    shares[learnt] += data.shares.get(composed, 0.0)
    return dataclasses.replace(data, shares=shares, train=tuple(name for name in data.train if name != composed))


def fitted(points: list[dict[str, int]]) -> dict[str, Any]:
    """Return points, {words, total, correct}, with the curve through them, and what twice as many words would give."""
    words, total = [point["words"] for point in points], points[-1]["total"]
    parts = tuple(count / words[-1] for count in words)
    wrong = np.array([[total - point["correct"] for point in points]])
    found = fit_curve(parts, wrong, total)
    gain, low, high = (float(values[0]) for values in (found.gain, found.low, found.high))
    drawn = np.geomspace(parts[0], 2.0, DRAWN).tolist()
    curve = [[words[-1] * part, 1 - float(found.error_at(part)[0])] for part in drawn]
    return {"points": points, "curve": curve, "gain": gain, "interval": [low, high],
            "text": gain_text(gain, low, high)}  # fmt: skip


def gain_text(gain: float, low: float, high: float) -> str:
    """Say what twice as many words would give, by a gain in accuracy and its 95 % interval, shares of -1 to 1."""
    interval = f"{100 * low:+.1f} to {100 * high:+.1f}"
    if low <= 0 <= high and high - low > TELLING:
        return f"too few words to tell what twice as many would give: {interval} points (95 %)"
    return f"twice as many words would give about {100 * gain:+.1f} points (95 %: {interval})"
