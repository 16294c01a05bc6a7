"""The first steps of training, held to golden curves: a change of arithmetic shows as a readable difference of them."""

from pathlib import Path

import pytest
import torch

from tests.wordmill.models.ms import ms  # isort: skip  # noqa: F401  # before anything imports MindSpore
from tests.rounding import one_thread
from tests.wordmill.training import curves
from wordmill.training.ms import train as ms_train
from wordmill.training.pt import train as pt_train


@pytest.mark.parametrize("name", curves.RECIPES)
def test_the_first_losses_are_the_golden_ones(name: str, tmp_path: Path) -> None:
    golden = curves.read()[name]
    with curves.fewer_layers(name):
        job = curves.make_job(name, tmp_path)
        with one_thread():
            torch_losses = list(curves.losses(pt_train.Trainer(job, torch.device("cpu"), 0)))
        mindspore_losses = list(curves.losses(ms_train.Trainer(job, 0)))
    table = [f"{'step':>4} {'golden':>12} {'PyTorch':>12} {'MindSpore':>12} {'rounding':>9}"]
    wrong = []
    rows = zip(golden, torch_losses, mindspore_losses, strict=True)
    for step, ((loss, rounding), one, other) in enumerate(rows, start=1):
        wrong += [step] if max(abs(one - loss), abs(other - loss)) > rounding else []
        table.append(f"{step:4} {loss:12.7f} {one:12.7f} {other:12.7f} {rounding:9.1e}")
    assert len(golden) == curves.STEPS
    told = "see whether that is meant, then `make golden`"
    assert not wrong, "\n".join([f"{name} differs from step {wrong[0]} on: {told}", *table])
    assert golden[-1][0] < golden[0][0]
