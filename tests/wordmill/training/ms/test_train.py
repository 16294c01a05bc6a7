import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.wordmill.models.ms import COMPACT, DATA  # isort: skip  # before anything imports MindSpore
from tests.waiting import LIMIT_S
from tests.wordmill.models.ms.bars import make_job, some_parts
from wordmill.models import checkpoint
from wordmill.models.checkpoint import Tensors
from wordmill.models.ms.model import build
from wordmill.models.ms.weights import dump
from wordmill.recipe import frameworks
from wordmill.training.job import write_job
from wordmill.training.ms.train import Trainer
from wordmill.training.validation import score

pytestmark = pytest.mark.usefixtures("_shallow")
NOTHING = (False, False)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Trainer, Tensors]:
    """One trainer for all tests, whose graphs are compiled once, and what it starts from."""
    job = make_job(tmp_path_factory.mktemp("job"), 1)
    train = dataclasses.replace(job.train, ema_decay=0.9, freeze={"backbone": 1}, lr_factors={"neck": 0.5})
    trainer = Trainer(dataclasses.replace(job, train=train), 0)
    return trainer, trainer.state()


@pytest.fixture
def trainer(compiled: tuple[Trainer, Tensors]) -> Iterator[Trainer]:
    compiled[0].restore(compiled[1])
    return compiled[0]


def different(one: Tensors, other: Tensors) -> set[str]:
    assert set(one) == set(other)
    return {name for name, tensor in one.items() if tensor.tobytes() != other[name].tobytes()}


def test_a_restored_state_makes_the_same_steps_bit_for_bit(trainer: Trainer) -> None:
    parts = some_parts(8)
    first = trainer.result(trainer.step(1, parts, 0.01, NOTHING))
    kept = trainer.state()
    second = trainer.result(trainer.step(2, parts, 0.01, NOTHING))
    after = trainer.state()
    changed = different(kept, after)
    assert {name.partition("/")[0] for name in changed} == {"model", "optimizer", "average", "statistics"}
    assert len(changed) == len(kept) - 2  # all but the loss scale
    assert second.loss != first.loss
    trainer.restore(trainer.share(kept))
    assert different(trainer.state(), kept) == set()
    assert trainer.result(trainer.step(2, parts, 0.01, NOTHING)) == second
    assert different(trainer.state(), after) == set()


def test_a_frozen_part_stays_as_it_is_for_its_steps_and_then_learns(
    trainer: Trainer, compiled: tuple[Trainer, Tensors]
) -> None:
    trainer.result(trainer.step(1, some_parts(8), 0.01, NOTHING))
    start, state = compiled[1], trainer.state()
    names = {name for name in start if name.startswith(("model/", "statistics/"))}
    learnt = {name for name in names if "backbone." not in name}
    assert different(start, state) & names == learnt
    trainer.result(trainer.step(2, some_parts(8), 0.01, NOTHING))
    assert different(state, trainer.state()) & names == names


def test_a_state_of_another_network_is_refused(trainer: Trainer) -> None:
    state = trainer.state()
    del state["optimizer/first/head.bias"]
    with pytest.raises(ValueError, match=r"training state: .* missing \['optimizer/first/head.bias'\]"):
        trainer.restore(state)


def test_a_step_of_a_loss_that_is_not_finite_changes_nothing(trainer: Trainer) -> None:
    trainer.step(1, some_parts(8), 0.01, NOTHING)
    kept = trainer.state()
    ((batch, targets),) = some_parts(8)
    broken = [(batch, dataclasses.replace(targets, weights=np.full_like(targets.weights, np.inf)))]
    result = trainer.result(trainer.step(2, broken, 0.01, (True, False)))
    assert not np.isfinite(result.norm)
    assert (result.save, result.stop) == (True, False)
    assert different(trainer.state(), kept) == set()


def test_the_average_is_what_is_scored_and_kept(trainer: Trainer) -> None:
    start = dump(trainer.net)
    trainer.step(2000, some_parts(8), 0.01, NOTHING)  # decay 0.9 * (1 - exp(-1)) = 0.568908503
    trained, weights = dump(trainer.net), trainer.weights()
    for name, tensor in weights.items():
        expected = 0.568908503 * start[name] + 0.431091497 * trained[name]
        assert np.allclose(tensor, trained[name] if ".running_" in name else expected, atol=1e-6), name
    assert not np.allclose(weights["head.weight"], trained["head.weight"], atol=1e-3)
    beats: list[None] = []
    found = score(trainer, weights, lambda: beats.append(None))
    assert (found.total, found.samples, len(beats)) == (70, 70, 1)
    assert found.loss_sum > 0
    assert different(dump(trainer.scored.net), weights) == set()
    assert different(dump(trainer.net), trained) == set()


def test_a_trace_is_one_that_viewers_open(trainer: Trainer, tmp_path: Path) -> None:
    parts = some_parts(8)
    with trainer.trace(tmp_path):
        for number in (1, 2):
            trainer.result(trainer.step(number, parts, 0.01, NOTHING))
    (path,) = tmp_path.glob("*_ascend_ms/ASCEND_PROFILER_OUTPUT/trace_view.json")
    events = [event for event in json.loads(path.read_text()) if event["ph"] == "X"]
    assert sum("Conv2DBackpropFilter" in event["name"] for event in events) >= 2 * 2  # two steps of two convolutions
    assert all(float(event["dur"]) >= 0 and float(event["ts"]) > 0 for event in events)


def test_memory_is_counted_in_bytes(trainer: Trainer) -> None:
    assert 2**27 < trainer.memory_bytes() < 2**37  # MindSpore alone takes some hundred MiB


def test_the_parts_of_a_batch_make_the_whole_batchs_step(trainer: Trainer) -> None:
    # Batch normalisation by running statistics: by its own ones each part would be normalised by itself.
    trainer.gradients.set_train(False)
    whole, parted = (
        sum(trainer.gradients(*inputs).asnumpy() for inputs in trainer.inputs(some_parts(8, parts), (False, True)))
        for parts in (1, 4)
    )
    trainer.gradients.set_train()
    assert parted[-3] / 4 == pytest.approx(whole[-3], rel=1e-5)
    assert np.allclose(parted[:-2] / 4, whole[:-2], rtol=1e-3, atol=1e-5 * np.abs(whole[:-3]).max())
    assert parted[-2:].tolist() == whole[-2:].tolist() == [0, 1]


def test_training_starts_from_the_weights_of_a_file_or_says_what_does_not_fit(tmp_path: Path) -> None:
    job, path = make_job(tmp_path, 1), tmp_path / "start.safetensors"
    section = dataclasses.replace(job.train, start_from="other")
    tensors = {name: tensor + 1 for name, tensor in dump(build(COMPACT, DATA[1], 37)).items()}
    state = checkpoint.Checkpoint(tensors=tensors, data=job.data, model=job.model, train=job.train, step=1)
    checkpoint.save(path, state)
    job = dataclasses.replace(job, start=path, train=section)
    assert different(dump(Trainer(job, 0).net), tensors) == set()
    union = dataclasses.replace(section, start_charset="union")
    other = dataclasses.replace(job, data=dataclasses.replace(job.data, space=True), train=union)
    grown = dump(Trainer(other, 0).net)
    assert np.array_equal(grown["head.bias"][:37], tensors["head.bias"])
    assert grown["head.bias"][37] == pytest.approx(tensors["head.bias"][1:].mean())

    del tensors["head.bias"]
    checkpoint.save(path, dataclasses.replace(state, tensors=tensors))
    with pytest.raises(ValueError, match=rf"train.start_from other, file {path}: .* missing \['head.bias'\]"):
        Trainer(job, 0)


def test_a_failing_worker_says_why(tmp_path: Path) -> None:
    write_job(tmp_path / "job.json", dataclasses.replace(make_job(tmp_path, 1), device="npu"))
    command = [sys.executable, "-m", "wordmill.training.worker", "ms", str(tmp_path / "job.json")]
    told = os.environ | frameworks.environment("mindspore", "cpu") | {"DEVICE_ID": "0"}
    assert subprocess.run(command, env=told, capture_output=True, check=False, timeout=LIMIT_S).returncode
    failure = (tmp_path / "failure.0.txt").read_text()
    assert failure.startswith("RuntimeError in process 0: device 'npu': MindSpore")
    assert not (tmp_path / "outcome.json").exists()
