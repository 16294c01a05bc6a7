import dataclasses
import errno
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.wordmill.training.numpy_trainer import NumpyTrainer, Run, on
from tests.wordmill.training.tiny import TRAIN, make_job, write_set
from wordmill.models import checkpoint
from wordmill.models.checkpoint import Tensors
from wordmill.recipe.schedule import make_plan
from wordmill.training import loop
from wordmill.training import state as training_state
from wordmill.training.job import Job
from wordmill.training.loop import respread
from wordmill.training.records import read_notice
from wordmill.training.state import Saver, read_state, records
from wordmill.training.validation import ValidationResult

# 8 steps in 2 epochs, in two parts each.
SGD = dataclasses.replace(TRAIN, epochs=2, accumulation=2, lr=2.0, validations_per_epoch=1)


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    return make_job(tmp_path_factory.mktemp("sets"), train=SGD)


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def curve(folder: Path, name: str) -> dict[int, float]:
    return {line["step"]: line["metrics"][name] for line in lines(folder) if name in line["metrics"]}


def record(folder: Path, step: int) -> Path:
    return folder / "checkpoints" / f"step-{step:08}.json"


def taken_up(run: Run, folder: Path, step: int) -> list[Job]:
    """Return the jobs of a run that goes on, in a folder of its own, from one of the run's checkpoints."""
    shutil.copytree(run.jobs[0].folder / "checkpoints", folder / "checkpoints")
    return on(run.jobs[0], folder, len(run.jobs), record(folder, step))


def test_a_run_does_every_step_with_its_rate_and_leaves_weights_reference_and_outcome(job: Job, tmp_path: Path) -> None:
    run = Run(on(job, tmp_path))
    assert run.ended == {0: True}
    plan = make_plan(SGD, 64, 1)
    assert run.trainers[0].rates == {step: float(plan.rates[step - 1]) for step in range(1, 9)}
    best, last = (checkpoint.load(tmp_path / f"{name}.safetensors") for name in ("best", "last"))
    assert (last.step, last.train, last.model) == (8, SGD, job.model)
    assert last.tensors["weight"].tobytes() == run.trainers[0].weight.tobytes()
    accuracy = curve(tmp_path, "val/accuracy")
    assert sorted(accuracy) == [4, 8]
    assert accuracy[best.step] == max(accuracy.values()) > 0
    with np.load(tmp_path / "reference.npz") as reference:
        expected = run.trainers[0].predictor(best)(reference["images"])
        assert np.array_equal(reference["logits"], expected)
    outcome = json.loads((tmp_path / "outcome.json").read_text())
    (found,) = outcome.pop("best")
    assert found == {"step": best.step, "accuracy": accuracy[best.step], "loss": curve(tmp_path, "val/loss")[best.step]}
    assert outcome.pop("images_per_s") > 0
    assert outcome.pop("start_s") > 0
    (attempt,) = outcome.pop("attempts")
    assert (attempt["step"], attempt["processes"]) == (0, 1)
    confidences = outcome["confidences"]
    assert sum(confidences.values()) == run.trainers[0].context.val_set.samples
    assert outcome == {
        "framework": "pytorch", "device": "cpu", "processes": 1, "steps": 8, "images": 128, "unfit_labels": 0,
        "val_accuracy": max(accuracy.values()), "stopped_early": False, "nonfinite_steps": 0,
        "missed_checkpoints": 0, "precision": "float32",
        "temperature": best.temperature, "confidences": confidences,
    }  # fmt: skip


def test_weights_that_are_scored_and_kept_have_a_share_of_those_that_training_started_from(
    job: Job, tmp_path: Path
) -> None:
    plain = Run(on(job, tmp_path / "plain"))
    trained = plain.trainers[0].weights()
    start = checkpoint.Checkpoint(tensors={name: np.ones_like(values) for name, values in trained.items()},
                                  data=job.data, model=job.model, train=SGD, step=1)  # fmt: skip
    checkpoint.save(tmp_path / "start.safetensors", start)
    train = dataclasses.replace(SGD, start_from="start.safetensors", start_share=0.25)
    mixed = Run(on(dataclasses.replace(job, train=train, start=tmp_path / "start.safetensors"), tmp_path / "mixed"))
    assert mixed.trainers[0].losses == plain.trainers[0].losses  # training itself goes on from its own weights
    kept = checkpoint.load(tmp_path / "mixed" / "last.safetensors").tensors
    for name, values in trained.items():
        assert np.array_equal(kept[name], np.float32(0.25) + np.float32(0.75) * values), name
    scores = [curve(run.jobs[0].folder, "val/loss")[8] for run in (plain, mixed)]
    assert scores[0] != scores[1]


def test_a_run_whose_disk_fills_counts_the_checkpoints_that_it_misses_and_ends_with_its_weights(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop.Saver, "due", lambda saver: True)
    folder, save, free = tmp_path / "full", training_state.write_tensors, [2]

    def full(path: Path, tensors: Tensors) -> None:
        if not free[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        free[0] -= 1
        save(path, tensors)

    with monkeypatch.context() as patch:
        patch.setattr(training_state, "write_tensors", full)
        Run(on(job, folder))
    run = Run(on(job, tmp_path / "whole"))
    assert (folder / "last.safetensors").read_bytes() == (run.jobs[0].folder / "last.safetensors").read_bytes()
    missed = json.loads((folder / "outcome.json").read_text())["missed_checkpoints"]
    assert missed > 0
    assert f", {missed} missed so far" in read_notice(folder)
    assert "No space left on device" in read_notice(folder)
    assert len(records(folder / "checkpoints")) == 1
    assert json.loads((run.jobs[0].folder / "outcome.json").read_text())["missed_checkpoints"] == 0


def test_results_after_the_first_are_taken_two_steps_later_and_before_validation(job: Job, tmp_path: Path) -> None:
    run = Run(on(job, tmp_path))
    assert " ".join(f"{what}{step}" for what, step in run.trainers[0].events) == (
        "step1 result1 step2 step3 step4 result2 result3 result4 score4 "
        "step5 step6 step7 result5 step8 result6 result7 result8 score8"
    )


def test_metrics_tell_loss_rate_speed_waiting_and_memory(job: Job, tmp_path: Path) -> None:
    run = Run(on(job, tmp_path))
    first, *rest = lines(tmp_path)
    assert (first["step"], first["images"], first["metrics"]) == (0, 0, {"train/unfit_labels": 0})
    assert [(line["step"], line["steps"], line["images"]) for line in rest] == [(n, 8, 16 * n) for n in (4, 4, 8, 8)]
    losses = run.trainers[0].losses
    assert curve(tmp_path, "train/loss") == pytest.approx(
        {4: np.mean([losses[step] for step in (1, 2, 3, 4)]), 8: np.mean([losses[step] for step in (5, 6, 7, 8)])}
    )
    metrics = rest[0]["metrics"]
    assert set(metrics) == {f"train/{name}" for name in ("loss", "lr", "images_per_s", "step_ms", "data_wait",
                                                         "memory_gib")}  # fmt: skip
    assert metrics["train/images_per_s"] * metrics["train/step_ms"] == pytest.approx(16 * 1000)
    assert 0 <= metrics["train/data_wait"] <= 1
    assert metrics["train/memory_gib"] == 1.0


def test_labels_that_do_not_fit_are_the_first_line(tmp_path: Path) -> None:
    job = make_job(tmp_path, train=SGD)
    long = dataclasses.replace(job, train_sets=(write_set(tmp_path / "long.shard", 96, ("a", "be", "zzzzz")),))
    Run(on(long, tmp_path / "run"))
    assert lines(tmp_path / "run")[0]["metrics"] == {"train/unfit_labels": 32}  # five z and four blanks are 9 steps
    assert json.loads((tmp_path / "run" / "outcome.json").read_text())["unfit_labels"] == 32


@pytest.fixture(scope="module", params=[1, 2])
def whole(job: Job, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that is not disturbed, of 1 process or of 2, with a checkpoint of every step."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Saver, "due", lambda self: True)
        patch.setattr(training_state, "KEPT", 99)
        patch.setattr(loop, "LAG", 0)  # so that the checkpoint is of the very step that it is asked for in
        run = Run(on(job, folder, request.param))
    assert [path.name for path in records(folder / "checkpoints")] == [f"step-{n:08}.json" for n in range(8, 0, -1)]
    return run


@pytest.mark.parametrize("step", range(1, 8))
def test_a_run_goes_on_from_any_step_as_if_it_had_not_been_stopped(whole: Run, step: int, tmp_path: Path) -> None:
    rest = Run(taken_up(whole, tmp_path, step))
    for before, after in zip(whole.trainers.values(), rest.trainers.values(), strict=True):
        assert after.losses == {n: loss for n, loss in before.losses.items() if n > step}
        assert after.seeds == {n: seeds for n, seeds in before.seeds.items() if n > step}
        assert after.mean.tobytes() == before.mean.tobytes()
    undisturbed = whole.jobs[0].folder
    for name in ("best", "last"):
        assert (tmp_path / f"{name}.safetensors").read_bytes() == (undisturbed / f"{name}.safetensors").read_bytes()
    for name in ("val/accuracy", "val/loss"):
        assert curve(tmp_path, name) == curve(undisturbed, name)
    attempts = json.loads((tmp_path / "outcome.json").read_text())["attempts"]
    assert [attempt["step"] for attempt in attempts] == [0, step]


def test_a_finished_run_is_finished_again_without_a_step(whole: Run, tmp_path: Path) -> None:
    again = taken_up(whole, tmp_path, 8)
    kept = {path.name: path.read_bytes() for path in (tmp_path / "checkpoints").iterdir()}
    run = Run(again)
    assert run.ended == dict.fromkeys(range(len(again)), True)
    assert [event for event in run.trainers[0].events if event[0] != "score"] == []
    assert {path.name: path.read_bytes() for path in (tmp_path / "checkpoints").iterdir()} == kept
    for name in ("best.safetensors", "last.safetensors"):
        assert (tmp_path / name).read_bytes() == (whole.jobs[0].folder / name).read_bytes()
    assert json.loads((tmp_path / "outcome.json").read_text())["images_per_s"] > 0


def test_what_lies_ahead_of_a_checkpoint_is_removed_before_the_run_goes_on(whole: Run, tmp_path: Path) -> None:
    jobs = taken_up(whole, tmp_path, 2)
    for leftover in ("best-00000099.safetensors", "best-00000004.safetensors.77.part", ".tmpX1y2Z3"):
        (tmp_path / "checkpoints" / leftover).write_text("of another attempt")
    seen: set[str] = set()

    def look(step: int) -> None:
        if step == 4:  # all processes have done a step, and nobody has scored yet
            seen.update(path.name for path in (tmp_path / "checkpoints").iterdir())

    Run(jobs, begin=look)
    assert {name for name in seen if "00000002" not in name and "00000001" not in name} == set()
    assert "step-00000002.json" in seen


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_a_run_goes_on_with_another_number_of_processes(whole: Run, processes: int, tmp_path: Path) -> None:
    jobs = [dataclasses.replace(job, processes=processes) for job in taken_up(whole, tmp_path, 3)[:1]] * processes
    rest = Run(jobs)
    before = whole.trainers[0].losses
    assert rest.trainers[0].losses == pytest.approx({n: before[n] for n in range(4, 9)}, rel=1e-5)
    together = [[seed for trainer in run.trainers.values() for seed in trainer.seeds[5]] for run in (whole, rest)]
    assert together[0] == together[1]
    weights = {trainer.weight.tobytes() for trainer in rest.trainers.values()}
    assert len(weights) == 1


def test_another_number_of_processes_starts_from_the_mean_of_the_statistics() -> None:
    given = {"statistics/m": np.array([[1, 2], [3, 6]], np.float32), "model/w": np.array([5], np.float32)}
    for processes in (1, 3):
        spread = respread(given, processes)
        assert spread["statistics/m"].tolist() == [[2, 4]] * processes
        assert spread["statistics/m"].dtype == np.float32
        assert spread["model/w"].tolist() == [5]
    assert respread(given, 2)["statistics/m"].tolist() == [[1, 2], [3, 6]]


def test_a_checkpoint_of_another_model_is_refused(job: Job, whole: Run, tmp_path: Path) -> None:
    jobs = taken_up(whole, tmp_path, 2)
    path = record(tmp_path, 2).with_suffix(".safetensors")
    save_file({"model/weight": np.zeros((2, 2), np.float32)}, path)
    with pytest.raises(ValueError, match=r"step-00000002.json: weights do not fit .* missing \['optimizer/velocity'"):
        Run(jobs)


def test_processes_start_from_the_weights_of_the_first(job: Job, tmp_path: Path) -> None:
    run = Run(on(job, tmp_path, 2))
    assert run.trainers[0].weight.tobytes() == run.trainers[1].weight.tobytes()
    assert run.trainers[0].mean.tobytes() != run.trainers[1].mean.tobytes()  # of each one's own pictures


def test_all_stop_at_the_same_step_when_one_is_asked_to(job: Job, tmp_path: Path) -> None:
    jobs = [dataclasses.replace(on(job, tmp_path / f"node{n}")[0], processes=2) for n in (0, 1)]

    def begin(step: int) -> None:
        if step == 4:
            (tmp_path / "node1" / "stop").touch()

    run = Run(jobs, begin=begin)
    assert run.ended == {0: False, 1: False}
    assert [max(trainer.losses) for trainer in run.trainers.values()] == [7, 7]
    assert not (tmp_path / "node0" / "outcome.json").exists()
    assert [path.stem for path in records(tmp_path / "node0" / "checkpoints")] == ["step-00000007"]
    assert records(tmp_path / "node1" / "checkpoints") == []


def test_a_stopped_run_ends_with_a_checkpoint_two_steps_after_it_was_asked_to(job: Job, tmp_path: Path) -> None:
    longer = dataclasses.replace(job, train=dataclasses.replace(SGD, global_batch=8))  # validates after steps 8 and 16
    run = Run(on(longer, tmp_path), begin=lambda step: (tmp_path / "stop").touch() if step == 4 else None)
    assert run.ended == {0: False}
    (kept,) = records(tmp_path / "checkpoints")
    assert read_state(kept).progress.step == 7  # step 5 is the first that asks
    assert curve(tmp_path, "train/loss")[7] == pytest.approx(np.mean(list(run.trainers[0].losses.values())))
    assert kept.with_name("metrics-00000007.jsonl").read_bytes() == (tmp_path / "metrics.jsonl").read_bytes()
    assert json.loads(kept.read_text())["recipe"]["train"]["lr"] == 2.0


@pytest.mark.parametrize("step", [4, 8])
@pytest.mark.parametrize("processes", [1, 2])
def test_a_stop_cuts_a_validation_short_and_the_next_attempt_begins_with_it(
    processes: int, step: int, job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Run(on(job, tmp_path / "whole", processes))
    scorer = NumpyTrainer.scorer

    def stopped(self: NumpyTrainer, weights: Tensors) -> Any:
        if self.rank == 0 and len(self.losses) == step:
            (self.job.folder / "stop").touch()
        return scorer(self, weights)

    with monkeypatch.context() as patch:
        patch.setattr(NumpyTrainer, "scorer", stopped)
        parted = Run(on(job, tmp_path / "parted", processes))
    assert set(parted.ended.values()) == {False}
    newest = records(tmp_path / "parted" / "checkpoints")[0]
    assert (read_state(newest).progress.step, read_state(newest).progress.scored) == (step, step - 4)
    assert step not in curve(tmp_path / "parted", "val/accuracy")
    rest = Run(taken_up(parted, tmp_path / "rest", step))
    assert set(rest.ended.values()) == {True}
    assert rest.trainers[0].events[0] == ("score", 0)
    assert curve(tmp_path / "rest", "val/accuracy") == curve(tmp_path / "whole", "val/accuracy")
    for name in ("last", "best"):
        path = f"{name}.safetensors"
        assert (tmp_path / "rest" / path).read_bytes() == (whole.jobs[0].folder / path).read_bytes()


def test_a_run_that_is_asked_to_stop_before_a_validation_leaves_it_to_the_next(job: Job, tmp_path: Path) -> None:
    run = Run(on(job, tmp_path), begin=lambda step: (tmp_path / "stop").touch() if step == 3 else None)
    assert run.ended == {0: False}
    assert [what for what, _ in run.trainers[0].events].count("score") == 0
    progress = read_state(records(tmp_path / "checkpoints")[0]).progress
    assert (progress.step, progress.scored) == (4, 0)


def test_what_is_traced_are_steps_behind_the_first_ones_or_the_last(job: Job, tmp_path: Path) -> None:
    traced = dataclasses.replace(SGD, epochs=4, profile=3)
    for epochs, steps in ((4, "11 to 13"), (2, "6 to 8")):
        folder = tmp_path / f"{epochs}"
        Run(on(dataclasses.replace(job, train=dataclasses.replace(traced, epochs=epochs)), folder, 2))
        assert (folder / "trace" / "steps").read_text() == steps
    Run(on(dataclasses.replace(job, train=dataclasses.replace(traced, epochs=1, profile=9)), tmp_path / "short"))
    assert (tmp_path / "short" / "trace" / "steps").read_text() == "1 to 4"
    Run(on(job, tmp_path / "none"))
    assert not (tmp_path / "none" / "trace").exists()


def test_the_best_of_equals_has_the_lower_loss_and_a_loss_that_is_no_number_the_highest(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([(5, float("nan")), (5, 40.0), (5, 30.0), (4, 1.0), (5, float("inf")), (5, 30.0)])

    def score(*_: object) -> ValidationResult:
        correct, loss = next(scores)
        return ValidationResult(correct=correct, total=20, samples=20, loss_sum=loss)

    monkeypatch.setattr(loop, "score", score)
    train = dataclasses.replace(SGD, epochs=3, validations_per_epoch=2)
    Run(on(dataclasses.replace(job, train=train), tmp_path))
    assert checkpoint.load(tmp_path / "best.safetensors").step == 6
    assert curve(tmp_path, "val/loss") == {4: 2.0, 6: 1.5, 8: 0.05, 12: 1.5}
    assert json.loads((tmp_path / "outcome.json").read_text())["val_accuracy"] == 0.25


# Of the validations after steps 2, 4, 6 and on: words right of 20, and the loss of each.
FIGURES = {2: (5, 3.0), 4: (7, 2.0), 6: (6, 1.0), 8: (7, 2.5), 10: (4, 0.5), 12: (9, 4.0)}


def scored_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have validation find FIGURES, in any process and however often a run is taken up."""

    def score(trainer: NumpyTrainer, *_: object) -> ValidationResult:
        correct, loss = FIGURES[max(trainer.losses)]
        return ValidationResult(correct=correct, total=20, samples=20, loss_sum=20 * loss)

    monkeypatch.setattr(loop, "score", score)


@pytest.mark.parametrize(
    ("choose_by", "patience", "ranking", "steps"),
    [
        ("accuracy", 0, [12, 4, 8], 12),  # of equals the one with the lower loss
        ("accuracy", 2, [4, 8, 6], 8),  # 6 and 8 are no better than 4
        ("loss", 0, [10, 6, 4], 12),
        ("loss", 1, [6, 4, 8], 8),
        ("accuracy", 9, [12, 4, 8], 12),
    ],
)
def test_training_ends_after_so_many_validations_without_better_weights_and_keeps_the_best(
    choose_by: str, patience: int, ranking: list[int], steps: int, job: Job, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    scored_by_step(monkeypatch)
    train = dataclasses.replace(SGD, epochs=3, validations_per_epoch=2, choose_by=choose_by, patience=patience,
                                keep_best=3)  # fmt: skip
    run = Run(on(dataclasses.replace(job, train=train), tmp_path, 2))
    assert run.ended == {0: True, 1: True}
    assert [max(trainer.losses) for trainer in run.trainers.values()] == [steps, steps]
    outcome = json.loads((tmp_path / "outcome.json").read_text())
    assert (outcome["steps"], outcome["images"], outcome["stopped_early"]) == (steps, 16 * steps, steps < 12)
    assert [(one["step"], one["accuracy"]) for one in outcome["best"]] == [(n, FIGURES[n][0] / 20) for n in ranking]
    names = ["best.safetensors", "best-2.safetensors", "best-3.safetensors"]
    assert [checkpoint.load(tmp_path / name).step for name in names] == ranking
    assert checkpoint.load(tmp_path / "last.safetensors").step == steps


@pytest.mark.parametrize("step", [5, 6, 8])
def test_patience_is_taken_up_where_a_run_goes_on(
    step: int, job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored_by_step(monkeypatch)
    monkeypatch.setattr(Saver, "due", lambda self: True)
    monkeypatch.setattr(training_state, "KEPT", 99)
    monkeypatch.setattr(loop, "LAG", 0)
    train = dataclasses.replace(SGD, epochs=3, validations_per_epoch=2, patience=2, keep_best=2)
    whole = Run(on(dataclasses.replace(job, train=train), tmp_path / "whole", 2))
    rest = Run(taken_up(whole, tmp_path / "rest", step))
    assert sorted(rest.trainers[0].losses) == list(range(step + 1, 9))
    for name in ("best", "best-2", "last"):
        assert len({(tmp_path / part / f"{name}.safetensors").read_bytes() for part in ("whole", "rest")}) == 1
