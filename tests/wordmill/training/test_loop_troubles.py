import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from tests.wordmill.training.numpy_trainer import NumpyTrainer, Run, on
from tests.wordmill.training.tiny import TRAIN, make_job
from wordmill.training import loop, records
from wordmill.training.job import Job
from wordmill.training.loop import DivergedError
from wordmill.training.state import read_state
from wordmill.training.trainer import StepResult

SGD = dataclasses.replace(TRAIN, epochs=2, accumulation=2, lr=2.0)
WORDS = "synth://words?seed=5&count=48&fonts=train&words=train&difficulty=easy"


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    return make_job(tmp_path_factory.mktemp("sets"), train=SGD)


def kept(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "nonfinite").iterdir())


def test_steps_that_are_not_finite_are_counted_and_every_process_keeps_its_batch(job: Job, tmp_path: Path) -> None:
    given: dict[tuple[int, int], list[str]] = {}
    step = NumpyTrainer.step

    def noted(self: NumpyTrainer, number: int, parts: list, rate: float, asked: tuple[bool, bool]) -> StepResult:
        given[number, self.rank] = [label for batch, _ in parts for label in batch.labels]
        return step(self, number, parts, rate, asked)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(NumpyTrainer, "step", noted)
        run = Run(on(job, tmp_path, 2), bad=frozenset({2, 3, 8}))
    assert run.ended == {0: True, 1: True}
    assert kept(tmp_path) == [f"step-{step:08}.rank-{rank}.npz" for step in (2, 3, 8) for rank in (0, 1)]
    for number, rank in ((2, 0), (8, 1)):
        with np.load(tmp_path / "nonfinite" / f"step-{number:08}.rank-{rank}.npz") as batch:
            assert batch["labels"].tolist() == given[number, rank]
            assert batch["images"].shape == (8, 32, 100, 1)
    assert json.loads((tmp_path / "outcome.json").read_text())["nonfinite_steps"] == 3


def test_too_many_steps_in_a_row_end_training_with_what_to_do(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "NONFINITE_LIMIT", 3)
    assert Run(on(job, tmp_path / "apart"), bad=frozenset({1, 2, 4, 5, 7, 8})).ended == {0: True}
    for processes in (1, 2):
        told = (r"gradients of 3 steps in a row up to step 6 were not finite \(5 skipped in all\): lower train.lr, .*"
                rf"the batches are in {tmp_path}/{processes}/nonfinite")  # fmt: skip
        with pytest.raises(DivergedError, match=told):
            Run(on(job, tmp_path / f"{processes}", processes), bad=frozenset({1, 2, 4, 5, 6}))


def test_steps_in_a_row_are_counted_over_a_restart(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "NONFINITE_LIMIT", 4)
    bad, stop = frozenset({2, 3, 4, 5}), tmp_path / "stop"
    stopped = Run(on(job, tmp_path, 2), bad=bad, begin=lambda step: stop.touch() if step == 2 else None)
    assert stopped.ended == {0: False, 1: False}
    stop.unlink()
    (record,) = (tmp_path / "checkpoints").glob("step-*.json")
    progress = read_state(record).progress
    assert (progress.step, progress.nonfinite, progress.nonfinite_in_a_row) == (4, 3, 3)
    with pytest.raises(DivergedError, match="4 steps in a row up to step 5"):
        Run(on(job, tmp_path, 2, record), bad=bad)


def test_only_so_many_batches_are_kept(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "NONFINITE_KEPT", 2)
    Run(on(job, tmp_path, 2), bad=frozenset({1, 3, 5}))
    assert kept(tmp_path) == [f"step-{step:08}.rank-{rank}.npz" for step in (1, 3) for rank in (0, 1)]


def test_a_run_on_rendered_pictures_goes_on_with_the_next_ones(job: Job, tmp_path: Path) -> None:
    streamed = dataclasses.replace(job, train_sets=(), rendered=WORDS)  # 48 pictures, 3 steps of an epoch
    whole = Run(on(streamed, tmp_path / "whole"))
    folder = tmp_path / "stopped"
    first = Run(on(streamed, folder), begin=lambda step: (folder / "stop").touch() if step == 2 else None)
    assert (first.ended, max(first.trainers[0].losses)) == ({0: False}, 3)  # at the border of two epochs
    (folder / "stop").unlink()
    (record,) = (folder / "checkpoints").glob("step-*.json")
    rest = Run(on(streamed, folder, 1, record))
    assert first.trainers[0].losses | rest.trainers[0].losses == whole.trainers[0].losses
    assert len(set(whole.trainers[0].losses.values())) == 6
    for name in ("best", "last"):
        whole_file = tmp_path / "whole" / f"{name}.safetensors"
        assert (folder / f"{name}.safetensors").read_bytes() == whole_file.read_bytes()


def test_an_error_of_the_data_ends_the_run_and_leaves_no_outcome(job: Job, tmp_path: Path) -> None:
    shard = job.train_sets[0].with_suffix(".shard")
    damaged = tmp_path / "sets" / shard.name
    damaged.parent.mkdir()
    content = bytearray(shard.read_bytes())
    content[-5000] ^= 255
    damaged.write_bytes(content)
    index = damaged.with_suffix(".npz")
    index.write_bytes(job.train_sets[0].read_bytes())
    with pytest.raises(ValueError, match="damaged"):
        Run(on(dataclasses.replace(job, train_sets=(index,)), tmp_path / "run"))
    assert not (tmp_path / "run" / "outcome.json").exists()
