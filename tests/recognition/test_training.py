import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from components.recognition import checkpoint, training
from components.recognition.charset import Charset, load_charset
from components.recognition.decoding import CtcCodec
from components.recognition.loader import Batch
from components.recognition.schedule import make_plan
from components.recognition.shards import ShardSet, open_sets
from components.recognition.targets import coins
from components.recognition.training import (
    NONFINITE_LIMIT,
    NonfiniteGuard,
    Recorder,
    count_correct,
    failure_told,
    parts_of,
    prefetched,
    read_job,
    training_stream,
    validation_batches,
    write_job,
    write_reference,
)
from tests.recognition.tiny import TRAIN, make_job, picture, write_shard

LETTERS = CtcCodec(charset=Charset(name="abc", symbols="abc"))
LOWER = CtcCodec(charset=load_charset("lower36"))


def test_a_job_reads_back_as_it_was_written(tmp_path: Path) -> None:
    job = make_job(tmp_path, processes=2)
    for start in (None, tmp_path / "start.safetensors"):
        started = dataclasses.replace(job, start=start)
        write_job(tmp_path / "job.json", started)
        assert read_job(tmp_path / "job.json") == started


def test_correct_are_those_whose_best_path_reads_as_the_label() -> None:
    paths = [[1, 1, 0, 2], [3, 0, 3, 3], [0, 0, 0, 0]]  # ab, cc, nothing
    logits = np.eye(4, dtype=np.float32)[np.array(paths)]
    assert count_correct(logits, ["A b!", "c", ""], LETTERS) == 2


def test_stream_gives_each_process_its_rows_of_every_epoch(tmp_path: Path) -> None:
    job = make_job(tmp_path, train=dataclasses.replace(TRAIN, epochs=2), processes=2)
    shards = open_sets(job.train_sets)
    whole = dataclasses.replace(job, processes=1)
    streams = []
    for at, rank in ((whole, 0), (job, 0), (job, 1)):
        plan = make_plan(at.train, 64, at.processes)
        stream = training_stream(at, plan, shards, LOWER, 25, rank)
        streams.append([batch.labels for ((batch, _),) in stream])
    assert [len(stream) for stream in streams] == [8, 8, 8]
    assert streams[0] == [left + right for left, right in zip(streams[1], streams[2], strict=True)]
    assert streams[0][:4] != streams[0][4:]


def test_parts_are_equal_and_each_is_packed_by_itself() -> None:
    batch = Batch(images=np.arange(4 * 6, dtype=np.uint8).reshape(4, 1, 2, 3), labels=["a", "?", "abc", "ab"])
    forced = np.array([1.0, 0.0, 0.0, 1.0], dtype=np.float32)
    train = dataclasses.replace(TRAIN, accumulation=2)
    parts = parts_of(batch, train, LETTERS, 3, forced)
    assert [part.labels for part, _ in parts] == [["a", "?"], ["abc", "ab"]]
    assert np.array_equal(np.concatenate([part.images for part, _ in parts]), batch.images)
    assert [targets.classes.tolist() for _, targets in parts] == [[[1, 0, 0], [1, 0, 0]], [[1, 2, 3], [1, 2, 0]]]
    assert [targets.forced.tolist() for _, targets in parts] == [[1.0, 0.0], [0.0, 1.0]]
    # ctc_by_length: the mean over the part's two samples, not over the batch's four
    assert parts[0][1].weights == pytest.approx([1 / 2, 0.0])
    assert parts[1][1].weights == pytest.approx([1 / 6, 1 / 4])


def test_coins_of_the_stream_are_those_of_each_step(tmp_path: Path) -> None:
    train = dataclasses.replace(TRAIN, epochs=2, accumulation=2, teacher_forcing=0.5)
    job = make_job(tmp_path, train=train, processes=2)
    shards, plan = open_sets(job.train_sets), make_plan(train, 64, 2)
    found = [[targets.forced for _, targets in parts] for parts in training_stream(job, plan, shards, LOWER, 25, 1)]
    assert len(found) == 8
    for step, (first, second) in enumerate(found, start=1):
        assert np.array_equal(np.concatenate([first, second]), coins(train, 8, step, 1))


def test_views_are_changed_anew_at_every_step_and_alike_in_every_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def numbered(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return np.full_like(images, rng.integers(256))

    monkeypatch.setattr(training, "augment_views", numbered)
    job = make_job(tmp_path, train=dataclasses.replace(TRAIN, augment="views"), processes=2)
    shards, plan = open_sets(job.train_sets), make_plan(job.train, 64, 2)

    def drawn(rank: int) -> list[int]:
        stream = training_stream(job, plan, shards, LOWER, 25, rank)
        return [int(batch.images[0, 0, 0, 0]) for ((batch, _),) in stream]

    seeds = [np.random.default_rng((job.train.seed, step, 1)) for step in range(1, 5)]
    assert drawn(1) == [rng.integers(256) for rng in seeds]
    assert drawn(0) != drawn(1)


def test_validation_gives_every_sample_to_one_process(tmp_path: Path) -> None:
    shards = ShardSet.open([write_shard(tmp_path / "s", 600, tuple(f"{n}" for n in range(600)))])
    shares = [[label for b in validation_batches(shards, rank, 2) for label in b.labels] for rank in (0, 1)]
    assert [len(share) for share in shares] == [256 + 88, 256]
    assert sorted(shares[0] + shares[1]) == sorted(f"{n}" for n in range(600))


def test_prefetching_keeps_order_and_runs_ahead() -> None:
    taken: list[int] = []

    def source() -> Iterator[int]:
        for number in range(1, 7):
            taken.append(number)
            yield number

    items = prefetched(source(), 3)
    assert next(items) == 1
    deadline = time.monotonic() + 10
    while len(taken) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert taken == [1, 2, 3, 4]
    assert list(items) == [2, 3, 4, 5, 6]
    assert not [thread for thread in threading.enumerate() if "ThreadPool" in thread.name]


def test_prefetching_hands_on_errors() -> None:
    def source() -> Iterator[int]:
        yield 1
        raise ValueError("block 3 is damaged")

    items = prefetched(source(), 2)
    assert next(items) == 1
    with pytest.raises(ValueError, match="block 3"):
        next(items)


def test_guard_counts_and_ends_training_after_too_many_in_a_row() -> None:
    guard = NonfiniteGuard()
    guard.add(1, finite=False)
    guard.add(2, finite=True)
    for step in range(3, 2 + NONFINITE_LIMIT):
        guard.add(step, finite=False)
    assert (guard.total, guard.in_a_row) == (NONFINITE_LIMIT, NONFINITE_LIMIT - 1)
    with pytest.raises(RuntimeError, match=rf"{NONFINITE_LIMIT} steps in a row up to step 22 .*train.lr"):
        guard.add(22, finite=False)


def test_recorder_writes_lines_and_keeps_the_best_and_the_last(tmp_path: Path) -> None:
    job = make_job(tmp_path, samples=64)
    recorder = Recorder(job, make_plan(job.train, 64, 1))
    weights = {"w": np.array([1.0], np.float32)}
    recorder.training(1, 3.5)
    recorder.training(2, float("nan"))
    for step, correct, loss_sum, value in ((1, 5, 9.0, 1.0), (2, 5, 8.0, 2.0), (3, 5, 8.5, 3.0), (4, 4, 1.0, 4.0)):
        weights["w"] = np.array([value], np.float32)
        recorder.validation(step, correct, 20, loss_sum, weights)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line["steps"], line["images"]) for line in lines[:2]] == [(1, 4, 16), (2, 4, 32)]
    assert lines[0]["metrics"]["train/loss"] == 3.5
    assert lines[0]["metrics"]["train/lr"] == pytest.approx(2e-3)
    assert "train/loss" not in lines[1]["metrics"]
    assert lines[2]["metrics"] == {"val/accuracy": 0.25, "val/loss": 0.45}
    best, last = (checkpoint.load(tmp_path / f"{name}.safetensors") for name in ("best", "last"))
    assert (best.step, best.tensors["w"].tolist()) == (2, [2.0])  # the same accuracy with the lower loss
    assert (last.step, last.tensors["w"].tolist()) == (4, [4.0])
    assert best.train == TRAIN


def test_outcome_has_the_common_facts(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    recorder, guard = Recorder(job, make_plan(job.train, 64, 1)), NonfiniteGuard()
    recorder.validation(4, 5, 20, 1.0, {"w": np.zeros(1, np.float32)})
    guard.add(1, finite=False)
    recorder.finish(guard, 3, {"precision": "float32"})
    outcome = json.loads((tmp_path / "outcome.json").read_text())
    assert outcome.pop("images_per_s") > 0
    assert outcome == {
        "framework": "pytorch", "device": "cpu", "processes": 1, "steps": 4, "images": 64, "val_accuracy": 0.25,
        "unfit_labels": 3, "nonfinite_steps": 1, "precision": "float32",
    }  # fmt: skip


def test_reference_holds_the_first_pictures_and_what_the_model_makes_of_them(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    shards = ShardSet.open([write_shard(tmp_path / "s", 70)])
    write_reference(job, shards, lambda images: images.reshape(len(images), 25, -1)[:, :, :37].astype(np.float32))
    with np.load(tmp_path / "reference.npz", allow_pickle=False) as reference:
        images, logits = reference["images"], reference["logits"]
    assert images.shape == (64, 32, 100, 1)
    assert np.array_equal(images[9], picture(1))
    assert logits.shape == (64, 25, 37)
    assert not list(tmp_path.glob("*part*"))


def test_a_worker_leaves_its_error_where_the_stage_looks(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="too wide"), failure_told(tmp_path, 3):
        raise ValueError("picture 7 is too wide")
    assert (tmp_path / "failure.3.txt").read_text() == "ValueError in process 3: picture 7 is too wide"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has PR_SET_PDEATHSIG")
def test_a_worker_in_a_session_of_its_own_dies_with_its_parent() -> None:
    child = (
        "import os, time; from components.recognition.training import die_with_parent; die_with_parent(); "
        "print(os.getpid(), flush=True); time.sleep(60)"
    )
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}], start_new_session=True)"
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    worker = int(process.stdout.readline())
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    deadline = time.monotonic() + 10
    while is_alive(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_alive(worker)


def is_alive(pid: int) -> bool:
    """Tell whether a process runs; one that has ended but was not collected does not."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False
