import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.wordmill.training.tiny import MODEL, NARROW, TRAIN, make_job
from wordmill.models.checkpoint import Tensors
from wordmill.training.pt.train import Trainer
from wordmill.training.stream import training_stream
from wordmill.training.validation import score

CPU = torch.device("cpu")
NO = (False, False)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def steps_of(trainer: Trainer, first: int, last: int) -> None:
    """Do steps first..last of a run."""
    stream = training_stream(trainer.context, first - 1)
    for step in range(first, last + 1):
        trainer.result(trainer.step(step, next(stream), float(trainer.context.plan.rates[step - 1]), NO))


def equal(one: Tensors, other: Tensors) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], tensor) for name, tensor in other.items())


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "adadelta", "lion", "muon"])
def test_another_trainer_goes_on_bit_for_bit(optimizer: str, tmp_path: Path) -> None:
    train = dataclasses.replace(TRAIN, optimizer=optimizer, ema_decay=0.9)
    one = Trainer(make_job(tmp_path, train=train, data=NARROW), CPU, 0)
    steps_of(one, 1, 2)
    taken = one.state()
    kept = {name: tensor.copy() for name, tensor in taken.items()}
    steps_of(one, 3, 4)
    assert equal(taken, kept)  # copies
    other = Trainer(make_job(tmp_path, train=dataclasses.replace(train, seed=8), data=NARROW), CPU, 0)
    other.context = one.context
    assert not equal(other.state(), taken)
    other.restore(taken)
    assert equal(other.state(), taken)
    steps_of(other, 3, 4)
    assert equal(other.state(), one.state())
    assert equal(other.weights(), one.weights())


def test_a_frozen_part_stays_as_it_is_for_its_steps_and_then_learns(tmp_path: Path) -> None:
    train = dataclasses.replace(TRAIN, freeze={"backbone": 2}, lr_factors={"head": 0.5}, ema_decay=0.9)
    one = Trainer(make_job(tmp_path, train=train, data=NARROW), CPU, 0)
    states = [one.state()]
    for first, last in ((1, 2), (3, 3)):
        steps_of(one, first, last)
        states.append(one.state())
    start, frozen, free = states
    names = [name for name in start if name.startswith(("model/", "statistics/"))]
    changed = {name for name in names if not np.array_equal(start[name], frozen[name])}
    assert changed == {name for name in names if "backbone." not in name}
    assert any(np.any(frozen[f"optimizer/exp_avg/{name}"]) for name in ("backbone.conv1.weight",))
    moved = [name for name in names if not np.array_equal(frozen[name], free[name])]
    assert moved == names
    other = Trainer(make_job(tmp_path, train=train, data=NARROW), CPU, 0)
    other.context = one.context
    other.restore(states[0])
    steps_of(other, 1, 3)
    assert equal(other.state(), free)


def test_names_are_those_of_the_weights_and_types_are_float32(tmp_path: Path) -> None:
    trainer = Trainer(make_job(tmp_path, train=dataclasses.replace(TRAIN, ema_decay=0.9)), CPU, 0)
    state, weights = trainer.state(), trainer.weights()
    running = {name for name in weights if ".running_" in name}
    expected = {f"statistics/{name}" for name in running} | {"scaler/scale", "scaler/finite_steps"}
    for name in weights.keys() - running:
        kinds = ("model", "average", "optimizer/exp_avg", "optimizer/exp_avg_sq", "optimizer/step")
        expected |= {f"{kind}/{name}" for kind in kinds}
    assert set(state) == expected
    assert {tensor.dtype for tensor in state.values()} == {np.dtype(np.float32)}
    assert state["statistics/backbone.bn1.running_mean"].shape == (1, 32)
    assert state["optimizer/step/head.bias"].shape == ()
    assert trainer.share(state) is state


def test_no_step_draws_from_the_frameworks_generator(tmp_path: Path) -> None:
    """Not even with dropout, teacher forcing and validation: nothing of a generator would have to be kept."""
    train = dataclasses.replace(TRAIN, loss="cross_entropy", teacher_forcing=0.5)
    model = dataclasses.replace(MODEL, name="seq2seq", decoder_hidden=16)
    trainer = Trainer(dataclasses.replace(make_job(tmp_path, train=train, data=NARROW), model=model), CPU, 0)
    before = torch.get_rng_state()
    steps_of(trainer, 1, 2)
    score(trainer, trainer.weights(), lambda: None)
    assert torch.equal(torch.get_rng_state(), before)
