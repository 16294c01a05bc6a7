import dataclasses
import json
import resource
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import SafetensorError

from tests.waiting import LIMIT_S
from tests.wordmill.training.tiny import DATA, MODEL, TRAIN, best_of
from wordmill.models import checkpoint
from wordmill.models.checkpoint import Checkpoint, save
from wordmill.recipe.parsing import to_json
from wordmill.training import state as training_state
from wordmill.training.state import (
    KEPT,
    RunProgress,
    Saver,
    Scored,
    State,
    best_path,
    check_state,
    read_record,
    read_state,
    records,
    trim,
    undo,
    write_state,
)

SECTIONS = (DATA, MODEL, TRAIN)


class KilledError(BaseException):
    """The process is gone."""


def state(step: int, best_step: int = 0) -> State:
    """Return a state whose every value tells its step."""
    tensors = {"model/w": np.full((2, 3), step, np.float32), "statistics/m": np.full((2, 3), step + 0.5, np.float32)}
    return State(tensors=tensors, progress=RunProgress(step=step, best=best_of(best_step)), processes=2)


def write(folder: Path, step: int, best_step: int = 0) -> Path:
    """Write best weights where they are of this very step, then a checkpoint; old ones are trimmed."""
    if step == best_step:
        save(best_path(folder, step), Checkpoint(tensors={"w": np.full(3, step, np.float32)}, data=DATA, model=MODEL,
                                                 train=TRAIN, step=step))  # fmt: skip
    record = write_state(folder, state(step, best_step), b"lines up to %d" % step, SECTIONS)
    trim(folder)
    return record


def usable(folder: Path) -> list[int]:
    """Return the steps of the checkpoints that are whole, the newest first; what they hold is checked."""
    found = []
    for record in records(folder):
        try:
            check_state(record)
        except ValueError:
            continue
        read = read_state(record)
        assert read.tensors["model/w"].tolist() == [[read.progress.step] * 3] * 2
        lines = record.with_name(f"metrics-{read.progress.step:08}.jsonl").read_bytes()
        assert lines == b"lines up to %d" % read.progress.step
        found.append(read.progress.step)
    return found


def test_a_checkpoint_reads_back_bit_for_bit(tmp_path: Path) -> None:
    values = np.random.default_rng(1).normal(size=(2, 3, 4)).astype(np.float32)
    odd = np.array([np.nan, np.inf, -0.0, 1e-45], np.float32)
    tensors = {"model/w": values.transpose(2, 0, 1), "odd": odd, "scaler/scale": np.array(512, np.float32)}
    progress = RunProgress(step=120, nonfinite=3, nonfinite_in_a_row=1, seconds=60.5, worse=2,
                           best=(Scored(step=100, accuracy=0.75, loss=1.5),),
                           attempts=({"step": 0, "processes": 2, "git_commit": "c"},))  # fmt: skip
    best_path(tmp_path, 100).write_bytes(b"best")
    record = write_state(tmp_path, State(tensors=tensors, progress=progress, processes=2), b"lines", SECTIONS)
    assert len({path.stat().st_mode for path in tmp_path.iterdir()}) == 1  # safetensors' file as all others
    check_state(record)
    read = read_state(record)
    assert (read.progress, read.processes) == (progress, 2)
    assert {name: (tensor.shape, tensor.tobytes()) for name, tensor in read.tensors.items()} == {
        name: (tensor.shape, tensor.tobytes()) for name, tensor in tensors.items()
    }
    assert [entry["name"] for entry in read_record(record)["files"]] == [
        "step-00000120.safetensors", "metrics-00000120.jsonl", "best-00000100.safetensors"
    ]  # fmt: skip
    assert json.loads(record.read_text())["recipe"]["train"] == json.loads(to_json(TRAIN))


@pytest.mark.parametrize("damage", ["step-00000020.safetensors", "metrics-00000020.jsonl", "best-00000010.safetensors"])
def test_a_file_with_other_bytes_or_none_is_refused_by_name(damage: str, tmp_path: Path) -> None:
    write(tmp_path, 10, 10)
    record = write(tmp_path, 20, 10)
    check_state(record)
    path = tmp_path / damage
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(
        ValueError, match=rf"{damage}: {len(content)} bytes with sha256 \w+, expected {len(content)} with"
    ):
        check_state(record)
    path.unlink()
    with pytest.raises(ValueError, match=f"{damage}: it is missing"):
        check_state(record)


@pytest.mark.parametrize("text", ["", "{}", '{"processes": 1', "[]"])
def test_a_record_that_is_not_whole_is_refused(text: str, tmp_path: Path) -> None:
    record = tmp_path / "step-00000001.json"
    record.write_text(text)
    for read in (read_record, check_state, read_state):
        with pytest.raises(ValueError, match=r"step-00000001.json: not a checkpoint's record"):
            read(record)


def test_the_newest_checkpoints_are_kept_and_the_best_weights_that_they_name(tmp_path: Path) -> None:
    for step, best in ((5, 5), (10, 5), (15, 15), (20, 15), (25, 15), (30, 15)):
        write(tmp_path, step, best)
    assert KEPT == 3
    kept = [f"{kind}-{step:08}.{ending}" for step in (20, 25, 30)
            for kind, ending in (("step", "json"), ("step", "safetensors"), ("metrics", "jsonl"))]  # fmt: skip
    assert {path.name for path in tmp_path.iterdir()} == {*kept, "best-00000015.safetensors"}


def test_weights_of_a_validation_after_the_checkpoint_stay_for_the_next_one(tmp_path: Path) -> None:
    write(tmp_path, 10, 10)
    save(best_path(tmp_path, 25), Checkpoint(tensors={}, data=DATA, model=MODEL, train=TRAIN, step=25))
    write(tmp_path, 20, 10)
    assert best_path(tmp_path, 25).exists()
    write(tmp_path, 30, 25)
    assert usable(tmp_path) == [30, 20, 10]


def test_a_damaged_record_neither_stays_nor_takes_a_checkpoints_place(tmp_path: Path) -> None:
    for step in (10, 20, 30):
        write(tmp_path, step)
    (tmp_path / "step-00000020.json").write_text("{")
    write(tmp_path, 40)
    assert usable(tmp_path) == [40, 30, 10]
    write(tmp_path, 50)
    assert [path.name for path in sorted(tmp_path.glob("*20*"))] == []


def test_undoing_removes_what_is_newer_and_what_is_half_written(tmp_path: Path) -> None:
    for step in (10, 20, 30):
        write(tmp_path, step, step)
    for name in ("step-00000010.part", "step-00000020.json.77.part", "best-00000010.safetensors.77.part", ".tmpA1b2C3"):
        (tmp_path / name).write_text("half")
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*-000000[12]0.[jms]*[!t]")}
    undo(tmp_path, 20)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert usable(tmp_path) == [20, 10]


def breaking(patch: pytest.MonkeyPatch, at: int) -> list[int]:
    """Have the process killed in the midst of its file operation number `at`, 1..; return the count of operations."""
    done = [0]

    def broken(operation: Callable[..., Any], half: Callable[..., Any] | None) -> Callable[..., Any]:
        def run(*arguments: Any, **options: Any) -> Any:
            done[0] += 1
            if done[0] == at and half:
                half(*arguments, **options)
            if done[0] >= at:  # nothing is tidied up any more
                raise KilledError
            return operation(*arguments, **options)

        return run

    def half_text(path: Path, text: str, **options: Any) -> None:
        path.open("w").write(text[: len(text) // 2])

    def half_bytes(path: Path, content: bytes) -> None:
        path.open("wb").write(content[: len(content) // 2])

    def half_tensors(tensors: object, path: Path, metadata: object) -> None:
        path.open("wb").write(b"half of it")

    patch.setattr(Path, "write_text", broken(Path.write_text, half_text))
    patch.setattr(Path, "write_bytes", broken(Path.write_bytes, half_bytes))
    patch.setattr(checkpoint, "save_file", broken(checkpoint.save_file, half_tensors))
    for name in ("replace", "unlink"):
        patch.setattr(Path, name, broken(getattr(Path, name), None))
    return done


def killed_at(folder: Path, at: int) -> bool:
    """Write the checkpoint of step 50 and be killed at a file operation; tell whether there was one of this number."""
    with pytest.MonkeyPatch.context() as patch:
        done = breaking(patch, at)
        try:
            write_state(folder, state(50, 20), b"lines up to 50", SECTIONS)
            trim(folder)
        except KilledError:
            return True
    assert done[0] < at
    return False


def test_a_process_killed_at_any_file_operation_leaves_a_checkpoint_to_go_on_from(tmp_path: Path) -> None:
    found = []
    for at in range(1, 99):
        folder = tmp_path / str(at)
        folder.mkdir()
        for step, best in ((10, 10), (20, 20), (30, 20), (40, 20)):
            write(folder, step, best)
        killed = killed_at(folder, at)
        left = usable(folder)
        found.append(left[0])
        assert left in ([40, 30, 20], [50, 40, 30, 20], [50, 40, 30])
        undo(folder, left[0])  # the next attempt
        write(folder, 60, 20)
        assert usable(folder) == [60, *left[:2]]
        assert len(list(folder.iterdir())) == 3 * KEPT + 1
        if not killed:
            break
    # tensors written and renamed, lines, the record written and renamed; then an old checkpoint's three files removed
    assert found == [40] * 5 + [50] * 4


@pytest.fixture
def slow_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Nothing is written before the event."""
    event, save_file = threading.Event(), checkpoint.save_file

    def waiting(tensors: Any, path: Path, metadata: dict[str, str] | None) -> None:
        assert event.wait(LIMIT_S)
        save_file(tensors, path, metadata)

    monkeypatch.setattr(checkpoint, "save_file", waiting)
    yield event
    event.set()


def test_a_checkpoint_is_written_while_training_goes_on_and_the_next_waits_for_it(
    tmp_path: Path, slow_disk: threading.Event
) -> None:
    saver = Saver(tmp_path, 0.0, SECTIONS)
    assert saver.due()
    saver.save(state(1), b"lines up to 1")
    assert not saver.due()  # it is being written
    assert records(tmp_path) == []
    slow_disk.set()
    saver.save(state(2), b"lines up to 2")
    assert 1 in usable(tmp_path)
    saver.wait()
    assert usable(tmp_path) == [2, 1]
    assert saver.due()


def test_a_checkpoint_is_due_after_its_time_and_not_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(training_state.time, "monotonic", lambda: now[0])
    saver = Saver(tmp_path, 60.0, SECTIONS)
    for moment, due in ((100.0, False), (159.9, False), (160.0, True), (170.0, True)):
        now[0] = moment
        assert saver.due() == due
    saver.save(state(1), b"lines up to 1")
    saver.wait()
    now[0] = 229.9
    assert not saver.due()
    now[0] = 230.0
    assert saver.due()


def test_a_full_disk_is_told_and_leaves_the_checkpoints_before(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    saver = Saver(tmp_path, 0.0, SECTIONS)
    saver.save(state(1), b"lines up to 1")
    saver.wait()
    large = dataclasses.replace(state(2), tensors={"model/w": np.zeros(1 << 16, np.float32)})
    handler, limits = signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, limits[1]))
        for step, lines in ((2, b"lines"), (3, b"x" * (1 << 17))):  # the tensors; then the lines
            given = large if step == 2 else state(3)
            saver.save(given, lines)
            saver.wait()
            assert f"warning: no checkpoint of step {step} in {tmp_path}: " in capfd.readouterr().out
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert {path.name for path in tmp_path.iterdir()} == {
        "step-00000001.json", "step-00000001.safetensors", "metrics-00000001.jsonl"
    }  # fmt: skip
    saver.save(state(4), b"lines up to 4")
    saver.wait()
    assert usable(tmp_path) == [4, 1]


def full_disk(monkeypatch: pytest.MonkeyPatch, folder: Path, room: int) -> None:
    """Have files written below a folder only as far as all that lies there takes at most so many bytes."""
    whole = checkpoint.save_file

    def save_file(tensors: Any, path: Path, metadata: dict[str, str] | None) -> None:
        taken = sum(other.stat().st_size for other in folder.rglob("*") if other.is_file())
        if taken + sum(values.nbytes for values in tensors.values()) > room:
            raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
        whole(tensors, path, metadata)

    monkeypatch.setattr(checkpoint, "save_file", save_file)


def large(step: int) -> State:
    """A state of 10,000 bytes."""
    return dataclasses.replace(state(step), tensors={"model/w": np.full(2500, step, np.float32)})


def test_a_full_disk_gives_old_checkpoints_room_to_the_newest_and_counts_those_that_are_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    saver = Saver(tmp_path, 0.0, SECTIONS, told.append, missed=4)
    for step in (1, 2, 3):
        saver.save(large(step), b"")
    saver.wait()
    (tmp_path / "before-lunch.safetensors").write_bytes(b"a person's")
    with monkeypatch.context() as patch:
        full_disk(patch, tmp_path, 45_000)
        saver.save(large(4), b"")
        saver.wait()
        assert [int(path.stem[5:]) for path in records(tmp_path)] == [4, 3]  # 1 and 2 made room for 4
    with monkeypatch.context() as patch:
        full_disk(patch, tmp_path, 15_000)  # somebody else has taken what there was
        for step in (5, 6):
            saver.save(large(step), b"")
        saver.wait()
    error = "Error while serializing: I/O error: No space left on device (os error 28)"
    assert told == [f"no checkpoint of step {step} in {tmp_path}: {error}, {missed} missed so far"
                    for step, missed in ((5, 5), (6, 6))]  # fmt: skip
    assert [int(path.stem[5:]) for path in records(tmp_path)] == [4]
    assert (tmp_path / "before-lunch.safetensors").read_bytes() == b"a person's"


def test_final_weights_take_the_place_of_old_checkpoints_or_wait_for_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    for step in (1, 2, 3):
        write_state(tmp_path, large(step), b"", SECTIONS)

    def final() -> None:
        checkpoint.write_tensors(tmp_path / "last", large(9).tensors)

    with monkeypatch.context() as patch:
        full_disk(patch, tmp_path, 30_000)
        training_state.with_room(final, tmp_path, told.append)
        assert (told, [int(path.stem[5:]) for path in records(tmp_path)]) == ([], [3])
        assert (tmp_path / "last").exists()
    with monkeypatch.context() as patch:
        full_disk(patch, tmp_path, 0)
        patch.setattr(training_state, "ROOM_EVERY_S", 0.0)
        moments = iter([0.0, 0.0, 300.0, 601.0])
        patch.setattr(training_state.time, "monotonic", lambda: next(moments))
        with pytest.raises(RuntimeError, match=r"^no room for 10 minutes: results wait for room .* make room and run"):
            training_state.with_room(final, tmp_path, told.append)
    assert len(told) == 1
    with pytest.raises(IsADirectoryError):  # all else is told at once
        training_state.with_room(lambda: tmp_path.write_bytes(b""), tmp_path, told.append)
