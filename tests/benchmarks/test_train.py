import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from benchmarks import train, train_bare, train_runs
from benchmarks.peers import dtrb_training, loaders
from benchmarks.train_runs import Beat, Ran, Turn
from tests.benchmarks.test_data import made, pictures, png
from wordmill.training.records import Pulse, read_pulse

ROOT = Path(__file__).resolve().parents[2]
KEYS = {"name", "value", "unit", "peer", "ratio", "goal", "met"}


def test_ratios_are_how_much_faster_ours_is_and_every_run_has_its_start_and_its_waiting() -> None:
    found = {
        train.PEER: Ran(rate=20.0, cpu_ms=48.0),
        "pytorch, 1 process": Ran(rate=50.0, cpu_ms=20.0, start_s=6.0, wait=0.001),
        "pytorch, 2 processes": Ran(rate=85.0, cpu_ms=25.0, start_s=16.0, wait=0.03),
        "mindspore, 1 process": Ran(rate=16.0, cpu_ms=60.0, start_s=12.0, wait=0.0),
        "mindspore, 2 processes": Ran(rate=30.0, cpu_ms=60.0, start_s=14.0, wait=0.0),
    }
    rows = train.rows_of(found, Turn(loop_ms=100.0, loop_cpu_ms=80.0, bare_ms=94.0, bare_cpu_ms=80.0))
    assert all(set(row) == KEYS for row in rows)
    assert [(row["value"], row["ratio"], row["goal"], row["met"]) for row in rows] == [
        (50.0, None, None, None), (85.0, 1.7, 1.8, False), (25.0, 0.8, None, None),
        (16.0, None, None, None), (30.0, 1.88, 1.8, True), (60.0, 1.0, None, None),
        (20.0, None, None, None), (50.0, 2.5, 2.0, True), (20.0, 2.4, None, None),
        (100.0, 0.94, 0.95, False), (80.0, 1.0, None, None),
        (6.0, None, 15.0, True), (16.0, None, 15.0, False), (12.0, None, 15.0, True), (14.0, None, 15.0, True),
        (0.1, None, 2.0, True), (3.0, None, 2.0, False), (0.0, None, 2.0, True), (0.0, None, 2.0, True),
    ]  # fmt: skip


def test_the_first_steps_are_not_timed() -> None:
    beats = [
        Beat(step=1, wall_s=0.0, cpu_s=0.0),
        Beat(step=4, wall_s=10.0, cpu_s=7.0),
        Beat(step=6, wall_s=14.0, cpu_s=8.0),
    ]
    # Two steps of 8 pictures in 4 s by the clock and 1 s of the processor.
    assert train_runs.ran(beats, 8) == Ran(rate=4.0, cpu_ms=62.5)
    with pytest.raises(RuntimeError, match=r"only the steps \[1, 4\] were seen"):
        train_runs.ran(beats[:2], 8)


def test_medians_are_of_each_field() -> None:
    runs = [Ran(rate=rate, cpu_ms=cpu) for rate, cpu in ((1.0, 9.0), (5.0, 2.0), (3.0, 4.0))]
    assert train.median(runs) == Ran(rate=3.0, cpu_ms=4.0)


def test_dtrb_counts_classes_from_one_and_pads_with_the_blank() -> None:
    classes, lengths = dtrb_training.Converter().encode(("0az", "9"))
    assert classes.shape == (2, loaders.DTRB_LONGEST)
    assert (classes[0, :4].tolist(), classes[1, :2].tolist(), lengths.tolist()) == ([1, 11, 36, 0], [10, 0], [3, 1])


def test_dtrb_learns_over_more_than_an_epoch_and_tells_its_steps(tmp_path: Path) -> None:
    made(tmp_path, [(png(picture), label) for picture, label in zip(pictures(4), "abcd", strict=True)]).close()
    torch.set_num_threads(1)
    losses = dtrb_training.train(tmp_path / "lmdb", 2, 9, Pulse(tmp_path, 0))
    assert len(losses) == 9
    assert sum(losses[-3:]) < 0.5 * sum(losses[:3])
    assert read_pulse(tmp_path, 0)[0] == 9  # type: ignore[index]


def test_loop_and_bare_step_take_turns_of_as_many_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    monkeypatch.setattr(train_bare, "training_stream", lambda *_: iter(["parts"]))
    monkeypatch.setattr(
        train_bare, "bare_step", lambda *_: lambda: SimpleNamespace(asnumpy=lambda: done.append("wait"))
    )
    loop = SimpleNamespace(
        trainer=None, context=None, plan=SimpleNamespace(steps=12),
        step=lambda step: done.append(f"loop {step}"), settle=lambda: done.append("settle"),
    )  # fmt: skip
    turns = train_bare.take_turns(loop)
    assert [entry for entry in done if entry.startswith("loop")] == [f"loop {step}" for step in range(1, 12)]
    assert (done.count("wait"), done.count("settle")) == (3, 3)
    assert [set(turn) for turn in turns] == [{"loop_ms", "loop_cpu_ms", "bare_ms", "bare_cpu_ms"}] * 2


@pytest.mark.slow
def test_every_run_is_measured() -> None:
    command = [sys.executable, "-m", "benchmarks.train", "--quick", "--json"]
    printed = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    rows = json.loads(printed)
    assert len(rows) == 19
    assert all(set(row) == KEYS and row["value"] >= 0 for row in rows)
    assert len({(row["name"], row["unit"], row["peer"]) for row in rows}) == len(rows)
