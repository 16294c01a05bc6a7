"""Golden curves: the losses of the first steps of training in float64, and how far float32 may be from each.

`python -m tests.wordmill.training.curves` accepts them as the code makes them now, in tests/golden/curves.txt.
"""

import dataclasses
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import numpy as np
import torch

from tests.rounding import DRAWS, Float64, one_thread
from tests.wordmill.training.tiny import write_index
from wordmill.models.architectures import SVTR_STAGES
from wordmill.models.checkpoint import Checkpoint, save
from wordmill.models.pt.weights import dump
from wordmill.pictures.image import fit_picture
from wordmill.recipe.loading import load_recipe
from wordmill.shards.blocks import ShardWriter
from wordmill.synth.renderer import SynthSpec, render
from wordmill.training.job import Job
from wordmill.training.pt.train import Trainer
from wordmill.training.stream import training_stream

ROOT = Path(__file__).resolve().parents[3]
GOLDEN = ROOT / "tests" / "golden" / "curves.txt"
STEPS, BATCH = 20, 8
# The least network with a recipe's own neck, decoder, loss, optimiser and teacher forcing.
SMALL = ("model.backbone=compact", "model.hidden=32", "data.height=32", "data.width=100", "data.charset=lower36")
# Each step of a decoder is compiled: here it has 10 or 9, so that of more words enough are short enough.
NARROW = "data.width=40"
MORE = {"rare_r34": 2, "seq2seq_fsns": 2, "svtr_tiny": 3}
WRITES = (*SMALL, "model.layers=1", "model.decoder_hidden=32", NARROW)
RECIPES: dict[str, tuple[str, ...]] = {
    "quickstart": (),
    "crnn_npu": SMALL,
    "rare_r34": (*WRITES, "model.max_length=8"),
    "seq2seq_fsns": (*WRITES, "train.augment=none"),
    "svtr_tiny": ("model.rectification=none", "data.height=32", NARROW, "data.stored=decoded", "train.augment=none",
                  "train.ema_decay=0.0"),
}  # fmt: skip
# Graphs take their time by the number of layers: of SVTR's one block a stage is left, the first of which mixes near.
FEWER: dict[str, dict[str, Any]] = {
    "svtr_tiny": {"SVTR_STAGES": tuple((channels, 1, heads) for channels, _, heads in SVTR_STAGES), "SVTR_LOCAL": 1}
}
FIXED = ("train.amp=O0", "train.epochs=1", f"train.global_batch={BATCH}", "train.warmup_epochs=0")


def make_job(name: str, folder: Path) -> Job:
    """Return a job of STEPS steps on rendered words, with the same weights to start from in every framework."""
    recipe = load_recipe(ROOT / "pipelines" / "recipes" / f"{name}.yaml", (*RECIPES[name], *FIXED))
    data, colour = recipe.data, int(recipe.data.channels == 3)
    count = STEPS * BATCH * MORE.get(name, 1)
    address = f"synth://words?seed=5&count={count}&fonts=train&words=train&difficulty=mixed&colour={colour}"
    with ShardWriter(folder / "words.shard", (data.height, data.width, data.channels), count) as writer:
        for image, label in render(SynthSpec.parse(address), 0, count):
            writer.add(fit_picture(image, data), label)
    index = write_index(folder / "words.shard")
    job = Job(data=data, model=recipe.model, train=recipe.train, train_sets=(index,), val_sets=(index,), start=None,
              device="cpu", processes=1, folder=folder)  # fmt: skip
    fresh = dump(Trainer(job, torch.device("cpu"), 0).net)
    start = Checkpoint(tensors=fresh, data=data, model=recipe.model, train=recipe.train, step=0)
    save(folder / "start.safetensors", start)
    return dataclasses.replace(job, start=folder / "start.safetensors")


@contextmanager
def fewer_layers(name: str) -> Iterator[None]:
    """Have both frameworks' networks of a recipe be built, and compute, with the layers that FEWER leaves."""
    models = [module for named, module in sys.modules.items() if named.startswith("wordmill.models.")]
    with ExitStack() as stack:
        for constant, value in FEWER.get(name, {}).items():
            for module in filter(lambda one: hasattr(one, constant), models):
                stack.enter_context(mock.patch.object(module, constant, value))
        yield


def losses(trainer: Any) -> Iterator[float]:
    """Give the loss of each step of a framework's trainer."""
    rates = trainer.context.plan.rates
    for number, parts in enumerate(islice(training_stream(trainer.context), STEPS), start=1):
        yield trainer.result(trainer.step(number, parts, float(rates[number - 1]), (False, False))).loss


def measure(job: Job) -> tuple[list[float], list[float]]:
    """Return the losses in float64, and how far rounding may move each: what the draws moved any up to it, doubled."""
    exact, *draws = (in_float64(job, seed) for seed in range(1 + DRAWS))
    moved = np.abs(np.subtract(draws, exact)).max(axis=0)
    return exact, (2 * np.maximum.accumulate(moved)).tolist()


def in_float64(job: Job, seed: int) -> list[float]:
    trainer = Trainer(job, torch.device("cpu"), 0)
    trainer.net.double()
    trainer.scaler = Unscaled()  # type: ignore[assignment]
    for group in trainer.optimizer.param_groups:  # whose fused kernels count their steps in float32
        group |= {"fused": False, "foreach": False}
    for state in trainer.optimizer.state.values():
        state |= {name: value.double() for name, value in state.items()}
    with one_thread(), Float64(seed):
        return list(losses(trainer))


class Unscaled:
    """Stands for the loss scale, 1 in float32, whose kernels take nothing else."""

    def scale(self, loss: torch.Tensor) -> torch.Tensor:
        return loss

    def unscale_(self, optimizer: torch.optim.Optimizer) -> None:
        pass

    def decide(self, optimizer: torch.optim.Optimizer, finite: torch.Tensor) -> None:
        pass

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        optimizer.step()

    def renew(self) -> None:
        pass


def read() -> dict[str, list[tuple[float, float]]]:
    """Return each recipe's expected losses, each with the difference that rounding may make."""
    curves: dict[str, list[tuple[float, float]]] = {}
    for line in GOLDEN.read_text(encoding="ascii").splitlines()[1:]:
        name, _, loss, rounding = line.split()
        curves.setdefault(name, []).append((float(loss), float(rounding)))
    return curves


def main() -> None:
    """Write the golden curves anew."""
    lines = [f"{'recipe':14} {'step':>4} {'loss':>12} {'rounding':>9}"]
    for name in RECIPES:
        with TemporaryDirectory() as folder, fewer_layers(name):
            rows = zip(*measure(make_job(name, Path(folder))), strict=True)
        lines += [f"{name:14} {step:4} {loss:12.7f} {moved:9.1e}" for step, (loss, moved) in enumerate(rows, start=1)]
        print(f"{name}: {STEPS} steps", file=sys.stderr)
    GOLDEN.write_text("\n".join(lines) + "\n", encoding="ascii")


if __name__ == "__main__":
    main()
