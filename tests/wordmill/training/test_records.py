import errno
import io
import json
import os
import time
from pathlib import Path

import numpy as np
import pytest

from tests.wordmill.training.test_targets import CTC
from tests.wordmill.training.tiny import TRAIN, make_job
from wordmill.recipe.schedule import make_plan
from wordmill.shards.loader import Batch
from wordmill.training import records
from wordmill.training.records import Metrics, Notice, Pulse, keep_nonfinite, read_notice, read_pulse
from wordmill.training.stream import MicroBatch
from wordmill.training.targets import encode_labels


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that is told, in seconds."""
    now = [50.0]
    monkeypatch.setattr(records.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(records.time, "time", lambda: 1e9 + now[0])
    return now


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_line_is_the_mean_of_the_steps_since_the_last_one(tmp_path: Path, clock: list[float]) -> None:
    metrics = Metrics(make_job(tmp_path), make_plan(TRAIN, 64, 1), 0)
    metrics.losses += [4.0, 3.0]
    metrics.waited_s = 0.5
    clock[0] += 2.0
    metrics.training(2, 3 << 29)
    (line,) = lines(tmp_path)
    rate = line["metrics"].pop("train/lr")
    assert rate == pytest.approx(1e-3 * (1 + np.cos(np.pi / 4)))  # step 2 of 4 on half a cosine from 2e-3
    assert line == {"step": 2, "steps": 4, "images": 32, "time": 1e9 + 52, "metrics": {
        "train/loss": 3.5, "train/images_per_s": 16.0, "train/step_ms": 1000.0, "train/data_wait": 0.25,
        "train/memory_gib": 1.5,
    }}  # fmt: skip
    metrics.losses.append(1.0)
    clock[0] += 0.5
    metrics.training(3, 0)
    assert lines(tmp_path)[1]["metrics"]["train/loss"] == 1.0
    assert lines(tmp_path)[1]["metrics"]["train/images_per_s"] == 32.0
    assert lines(tmp_path)[1]["metrics"]["train/data_wait"] == 0.0


def test_a_line_is_due_after_some_time_where_there_is_something_to_tell(tmp_path: Path, clock: list[float]) -> None:
    metrics = Metrics(make_job(tmp_path), make_plan(TRAIN, 64, 1), 0)
    clock[0] += 10
    assert not metrics.due()
    metrics.losses.append(1.0)
    assert metrics.due()
    metrics.begin(1)
    clock[0] += records.RECORD_EVERY_S - 0.01
    assert not metrics.due()
    clock[0] += 0.02
    assert metrics.due()


def test_lines_of_a_long_run_lie_farther_apart(tmp_path: Path, clock: list[float]) -> None:
    metrics = Metrics(make_job(tmp_path), make_plan(TRAIN, 64, 1), 0)
    metrics.losses.append(1.0)
    clock[0] += 100_000
    metrics.begin(1)
    clock[0] += 9.9
    assert not metrics.due()
    clock[0] += 0.2
    assert metrics.due()


def test_time_that_went_into_something_else_is_left_out(tmp_path: Path, clock: list[float]) -> None:
    metrics = Metrics(make_job(tmp_path), make_plan(TRAIN, 64, 1), 1)
    clock[0] += 100  # a validation
    metrics.begin(1)
    metrics.losses += [1.0, 1.0]
    clock[0] += 1
    metrics.training(3, 0)
    assert lines(tmp_path)[0]["metrics"]["train/step_ms"] == 500.0


def test_values_that_are_no_number_are_left_out(tmp_path: Path) -> None:
    metrics = Metrics(make_job(tmp_path), make_plan(TRAIN, 64, 1), 0)
    metrics.write(1, {"train/loss": float("nan"), "val/loss": float("inf"), "val/accuracy": 0.5})
    assert lines(tmp_path)[0]["metrics"] == {"val/accuracy": 0.5}


def test_lines_go_behind_those_that_are_there(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n')
    Metrics(make_job(tmp_path), make_plan(TRAIN, 64, 1), 1).write(2, {})
    assert [line["step"] for line in lines(tmp_path)] == [1, 2]


class FullFile(io.FileIO):
    """A file on a disk that has room for seven bytes more."""

    def write(self, content: bytes) -> int:  # type: ignore[override]
        return super().write(content[:7])


class FullerFile(io.FileIO):
    """A file on a disk that has no room."""

    def write(self, content: bytes) -> int:  # type: ignore[override]
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_line_that_the_disk_has_no_room_for_is_left_out_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = Metrics(make_job(tmp_path), make_plan(TRAIN, 64, 1), 0)
    metrics.write(1, {})
    for kind in (FullFile, FullerFile):
        with monkeypatch.context() as full:
            full.setattr(Path, "open", lambda path, mode, buffering, kind=kind: kind(path, mode))
            metrics.write(2, {"train/loss": 3.5})
    metrics.write(3, {})
    assert [line["step"] for line in lines(tmp_path)] == [1, 3]


def test_a_notice_is_the_last_word_and_needs_no_room(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert read_notice(tmp_path) == ""
    notice = Notice(tmp_path)
    assert read_notice(tmp_path) == ""
    size = (tmp_path / "notice").stat().st_size
    for text in ("no checkpoint of step 41", "naïve " * 300, "no checkpoint"):
        notice.tell(text)
        assert text.startswith(read_notice(tmp_path)[:12])
        assert (tmp_path / "notice").stat().st_size == size
    assert read_notice(tmp_path) == "no checkpoint"
    assert capsys.readouterr().out.splitlines()[0] == "warning: no checkpoint of step 41"


def test_a_pulse_tells_steps_and_the_time_since(tmp_path: Path) -> None:
    assert read_pulse(tmp_path, 3) is None
    pulse = Pulse(tmp_path, 3)
    assert read_pulse(tmp_path, 3) is None  # the process has begun and done nothing yet
    for step in (1, 12_345, 7):
        pulse.beat(step)
        assert read_pulse(tmp_path, 3) == (step, pytest.approx(0, abs=5))
    past = time.time() - 1000
    os.utime(tmp_path / "pulse.3", (past, past))
    read = read_pulse(tmp_path, 3)
    assert read == (7, pytest.approx(1000, abs=5))
    pulse.beat(7)
    assert read_pulse(tmp_path, 3) == (7, pytest.approx(0, abs=5))
    Pulse(tmp_path, 3)  # of another attempt
    assert read_pulse(tmp_path, 3) is None


def part(level: int, labels: list[str]) -> MicroBatch:
    images = np.full((len(labels), 2, 3, 1), level, dtype=np.uint8)
    return Batch(images=images, labels=labels), encode_labels(labels, CTC, 3, "ctc")


def test_a_batch_that_is_kept_holds_pictures_and_labels_of_all_parts(tmp_path: Path) -> None:
    keep_nonfinite(tmp_path, 12, 1, [part(7, ["a", "ab"]), part(9, ["", "c"])])
    (path,) = (tmp_path / "nonfinite").iterdir()
    assert path.name == "step-00000012.rank-1.npz"
    with np.load(path, allow_pickle=False) as kept:
        assert kept["labels"].tolist() == ["a", "ab", "", "c"]
        assert kept["images"].dtype == np.uint8
        assert kept["images"][:, 0, 0, 0].tolist() == [7, 7, 9, 9]


def test_each_process_keeps_its_first_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "NONFINITE_KEPT", 2)
    for step in (1, 2, 3):
        for rank in (1, 11):
            keep_nonfinite(tmp_path, step, rank, [part(step, ["a"])])
    assert {path.name for path in (tmp_path / "nonfinite").iterdir()} == {
        f"step-{step:08}.rank-{rank}.npz" for step in (1, 2) for rank in (1, 11)
    }


def test_a_batch_that_the_disk_has_no_room_for_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: object, **arrays: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(records.np, "savez_compressed", full)
    keep_nonfinite(tmp_path, 1, 0, [part(1, ["a"])])
    assert list((tmp_path / "nonfinite").iterdir()) == []


def test_a_batch_that_is_half_written_has_another_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(file: object, **arrays: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(records.np, "savez_compressed", killed)
    with pytest.raises(KeyboardInterrupt):
        keep_nonfinite(tmp_path, 1, 0, [part(1, ["a"])])
    assert list((tmp_path / "nonfinite").glob("*.npz")) == []
