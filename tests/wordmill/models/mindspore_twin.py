"""What MindSpore makes of recipes' recognisers, of each in a process of its own: it keeps the memory of every network.

`python -m tests.wordmill.models.mindspore_twin` reads lines of `GIVEN.npz FOUND.npz RECIPE.yaml...`, the recipes of one
network, with --compiled in one: by compiled graphs. It answers each by the exit code of a copy of this process that has
done it, so that MindSpore is imported once.
"""

import argparse
import gc
import os
import shlex
import sys
import traceback
from pathlib import Path

import mindspore as ms
import numpy as np

from tests.wordmill.models.parts import part_of, shorten
from wordmill.models.checkpoint import Checkpoint, Tensors
from wordmill.models.ms.model import Recogniser
from wordmill.models.ms.predict import Predictor
from wordmill.models.ms.weights import dump, load_weights
from wordmill.recipe.loading import load_recipe
from wordmill.recipe.sections import Recipe
from wordmill.shards.loader import Batch
from wordmill.training.ms.optimisers import build_optimiser
from wordmill.training.ms.step import Gradients, LossScale, Objective, Update
from wordmill.training.ms.train import tensors_of
from wordmill.training.targets import Targets


def main(recipes: list[Recipe], given: Path, found: Path, compiled: bool) -> None:
    """Take weights, pictures and targets, give the weights back, what they read, and what training steps make."""
    with np.load(given) as arrays:
        tensors, images = part_of(dict(arrays), "weights"), arrays["images"]
        targets = Targets(**part_of(dict(arrays), "targets"))
    first = recipes[0]
    checkpoint = Checkpoint(tensors=tensors, data=first.data, model=first.model, train=first.train, step=0)
    predictor = Predictor(checkpoint, "cpu")
    net = shorten(predictor.net)
    read, passed = predictor(images), dump(net)
    if not compiled:
        ms.set_context(mode=ms.PYNATIVE_MODE)
        ms.runtime.launch_blocking()  # the threads that take cells' operations along wait by turning round
    scale = LossScale(1.0, dynamic=False)
    vector, logits = differentiate(Objective(net, first.data.middle), scale, tensors, images, targets)
    gradients, moved = split(vector.asnumpy(), net), dump(net)
    results, parts = {"read": read, "logits": logits}, {"weights": passed, "gradients": gradients}
    for recipe in recipes:
        load_weights(net, moved, "moved")
        results[f"{recipe.name}/loss"] = update(recipe, net, scale, vector)
        parts[f"{recipe.name}/updated"] = dump(net)
    np.savez(found, **results, **{f"{part}/{name}": a for part, named in parts.items() for name, a in named.items()})


def differentiate(
    objective: Objective, scale: LossScale, tensors: Tensors, images: np.ndarray, targets: Targets
) -> tuple[ms.Tensor, np.ndarray]:
    """Return what Gradients makes, by the cells that training compiles, and the logits."""
    arrays = tensors_of((Batch(images=images, labels=[]), targets))
    made: list[np.ndarray] = []
    if ms.get_context("mode") == ms.PYNATIVE_MODE:
        objective.register_forward_hook(lambda cell, given, results: made.append(results[1].asnumpy()))
    else:  # a graph tells of nothing within it
        made.append(objective.set_train()(*arrays)[1].asnumpy())
        load_weights(objective.net, tensors, "given")  # that pass has moved the running statistics
    ones = ms.Tensor([1.0], ms.float32)
    return Gradients(objective, scale).set_train()(ones, ones, ms.Tensor([0, 0], ms.float32), *arrays), made[0]


def update(recipe: Recipe, net: Recogniser, scale: LossScale, vector: ms.Tensor) -> np.ndarray:
    """Make a recipe's update by what Gradients has made; return the loss."""
    cell = Update(net, build_optimiser(net, recipe.train), scale, recipe.train.clip_norm, parts=1, processes=1)
    return cell(vector, ms.Tensor(recipe.train.lr, ms.float32)).asnumpy()[0]


def split(vector: np.ndarray, net: Recogniser) -> Tensors:
    """Return the gradients by name that Gradients has put one behind the other."""
    weights = {name: array for name, array in dump(net).items() if ".running_" not in name}
    parts = np.split(vector, np.cumsum([array.size for array in weights.values()]))
    return {name: part.reshape(array.shape) for (name, array), part in zip(weights.items(), parts, strict=False)}


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("given", "found"):
        parser.add_argument(name, type=Path)
    parser.add_argument("recipes", nargs="+", type=Path)
    parser.add_argument("--compiled", action="store_true")
    return parser


def do_in_a_copy(line: str) -> int:
    """Do what a line asks for in a copy of this process; return its exit code."""
    copy = os.fork()
    if copy:
        return os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1])
    try:
        told = arguments().parse_args(shlex.split(line))
        main([load_recipe(path) for path in told.recipes], told.given, told.found, told.compiled)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    gc.freeze()  # nothing of this is garbage, which MindSpore looks for at every graph
    for line in sys.stdin:
        print(do_in_a_copy(line), flush=True)
