"""What is shown of training while it runs, and what is stored of it afterwards."""

import json
from pathlib import Path
from typing import Any

import pytest

from components.train import outcome
from components.train.watch import Sender, Watch, curves
from tests.components.train.test_attempts import Silent
from tests.wordmill.training.tiny import make_job
from wordmill.store.stages import StageResult
from wordmill.store.storage import Store
from wordmill.training.records import Notice

FIRST = '{"step": 2, "steps": 4, "images": 32, "time": 7.0, "metrics": {"train/loss": 3.25, "train/lr": 0.5}}\n'
LAST = '{"step": 4, "steps": 4, "images": 64, "time": 9.0, "metrics": {"val/accuracy": 0.125}}\n'


def test_watch_takes_whole_lines_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sender = Silent()
    watch = Watch(make_job(tmp_path), sender)
    watch.look()
    file = tmp_path / "metrics.jsonl"
    file.write_text(FIRST + LAST[:20])
    watch.look()
    assert sender.points == [("train/loss", 3.25, 2, 7.0), ("train/lr", 0.5, 2, 7.0)]
    file.write_text(FIRST + LAST)
    watch.look()
    watch.look()
    assert sender.points[2:] == [("val/accuracy", 0.125, 4, 9.0)]
    assert curves(tmp_path) == {
        "train/loss": [(2, 3.25, 7.0)], "train/lr": [(2, 0.5, 7.0)], "val/accuracy": [(4, 0.125, 9.0)],
    }  # fmt: skip
    assert "64/64 images  100.0 %" in capsys.readouterr().out
    assert watch.note() == "loss 3.250  validation accuracy 12.5 %"


@pytest.mark.parametrize(("unfit", "sent"), [(0, []), (3, [("train/unfit_labels", 3, 0, 7.0)])])
def test_that_no_label_is_left_out_is_no_metric(tmp_path: Path, unfit: int, sent: list[Any]) -> None:
    watch = Watch(make_job(tmp_path), sender := Silent())
    line = {"step": 0, "steps": 4, "images": 0, "time": 7.0, "metrics": {"train/unfit_labels": unfit}}
    (tmp_path / "metrics.jsonl").write_text(f"{json.dumps(line)}\n")
    watch.look()
    assert sender.points == sent


def test_the_trainers_last_word_is_shown_at_once_and_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    watch, notice = Watch(make_job(tmp_path), Silent()), Notice(tmp_path)
    watch.look()
    for word in ("no checkpoint of step 41, 1 missed so far", "no checkpoint of step 60, 2 missed so far"):
        notice.tell(word)
        capsys.readouterr()  # the trainer's own log
        watch.look()
        watch.look()
        assert capsys.readouterr().out == f"warning: {word}\n"


def test_what_another_attempt_has_told_is_not_told_again(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(FIRST)
    sender = Silent()
    watch = Watch(make_job(tmp_path), sender)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(LAST)
    watch.look()
    assert sender.points == [("val/accuracy", 0.125, 4, 9.0)]


def test_how_long_training_will_take_is_foretold_once_by_the_steps_after_the_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    watch = Watch(make_job(tmp_path), Silent())
    lines = [(1, 20.0), (3, 25.0), (6, 30.0), (8, 50.0)]  # 5 steps of 16 images in 10 s; 94 steps are left
    (tmp_path / "metrics.jsonl").write_text(
        "".join(
            f'{{"step": {step}, "steps": 100, "images": {16 * step}, "time": {seconds}, '
            '"metrics": {"train/images_per_s": 1.0}}\n'
            for step, seconds in lines
        )
    )
    watch.look()
    told = [line for line in capsys.readouterr().out.splitlines() if "on this machine" in line]
    assert told == ["train: about 3:08 from here on this machine, at 8 images/s, and validation"]


def test_the_line_of_progress_says_what_slows_training_down(tmp_path: Path) -> None:
    watch = Watch(make_job(tmp_path), Silent())
    watch.latest = {"val/accuracy": 0.5, "train/memory_gib": 12.34, "train/data_wait": 0.0123, "train/loss": 1.0}
    assert watch.note() == "loss 1.000  waiting for data 1.2 %  memory 12.3 GiB  validation accuracy 50.0 %"


def test_a_trace_goes_to_the_run_as_it_is(store: Store, tmp_path: Path) -> None:
    class Run:
        def log_artifact(self, path: Path, folder: str) -> None:
            sent.append((path, folder))

    sent: list[tuple[Path, str]] = []
    sender = Sender(store, "tag", "tiny")
    sender.run = Run()  # type: ignore[assignment]
    sender.send_folder(tmp_path / "trace")
    (tmp_path / "trace").mkdir()
    sender.send_folder(tmp_path / "trace")
    assert sent == [(tmp_path / "trace", "trace")]


class Stored:
    """An MLflow run that keeps what is logged."""

    def __init__(self) -> None:
        self.points: list[tuple[str, float, int, float]] = []

    def log_metrics(self, points: list[tuple[str, float, int, float]]) -> None:
        self.points += points


def test_a_step_that_a_lost_attempt_has_sent_is_not_sent_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Stored()
    monkeypatch.setattr("wordmill.store.tracking.open_run", lambda *given: run)
    monkeypatch.setattr("wordmill.store.experiments.latest_steps", lambda given: {"train/loss": 40})
    sender = Sender(store, "tag", "tiny")
    sender.send([("train/loss", 3.0, 30, 1.0), ("val/loss", 2.0, 30, 1.0), ("train/loss", 2.5, 41, 2.0)])
    assert run.points == [("val/loss", 2.0, 30, 1.0), ("train/loss", 2.5, 41, 2.0)]
    sender.send([("train/loss", 2.6, 38, 3.0), ("train/loss", 2.4, 41, 3.0), ("train/loss", 2.0, 50, 4.0)])
    assert run.points[2:] == [("train/loss", 2.0, 50, 4.0)]


def test_what_the_machine_does_is_sent_as_mlflows_system_metrics(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # nothing is asked
    run = Stored()
    run.run_id = "r"  # type: ignore[attr-defined]
    sender = Sender(store, "tag", "tiny")
    sender.run, sender.sent = run, {"system/cpu_utilization_percentage": 7, "train/loss": 99}  # type: ignore[assignment]
    sender.send_usage()
    assert run.points == []  # it is not time yet
    monkeypatch.setattr("components.train.watch.USAGE_EVERY_S", 0.0)
    sender.send_usage()
    found = {name: (value, step) for name, value, step, _ in run.points}
    assert {step for _, step in found.values()} == {8}
    assert 0 < found["system/system_memory_usage_percentage"][0] <= 100
    assert {"system/cpu_utilization_percentage", "system/disk_usage_percentage"} <= set(found)


def test_results_wait_for_a_store_that_is_away_and_not_for_ever(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a").write_bytes(b"weights")
    answers = iter([False, False, True])
    put_file = store.put_file

    def put(path: Path, name: str) -> object:
        if not next(answers, False):
            raise RuntimeError("cannot write s3://bucket/a")
        return put_file(path, name)

    monkeypatch.setattr(store, "put_file", put)
    monkeypatch.setattr(outcome, "RETRY_S", 0.01)
    made = outcome.store_results(store, StageResult(files={"a": tmp_path / "a"}, facts={"f": 1}))
    assert (made.files, made.facts, [(entry.name, entry.bytes) for entry in made.stored]) == ({}, {"f": 1}, [("a", 7)])
    assert capsys.readouterr().out.count("its results wait for the store: cannot write s3://bucket/a") == 1
    monkeypatch.setattr(outcome, "AWAY_S", 0.05)
    with pytest.raises(RuntimeError, match=rf"its results are in {tmp_path}: run it again on this machine"):
        outcome.store_results(store, StageResult(files={"a": tmp_path / "a"}, facts={}))
