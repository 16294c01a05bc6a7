"""Files that appear whole or not at all, and locks, held by threads and by processes that are killed."""

import multiprocessing
import os
import signal
import time
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

from tests.waiting import LIMIT_S
from wordmill.store import files
from wordmill.store.files import atomic_file, atomic_folder, locked, write_arrays, write_atomically

SPAWN = multiprocessing.get_context("spawn")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(("content", "stored"), [("é\n", b"\xc3\xa9\n"), (b"\x00\xff", b"\x00\xff")])
def test_text_and_bytes_are_written_over_what_was_there(tmp_path: Path, content: str | bytes, stored: bytes) -> None:
    path = tmp_path / "new" / "folder" / "file.json"
    for written in ("a longer text before", content):
        write_atomically(path, written)
    assert path.read_bytes() == stored
    assert names(path.parent) == ["file.json"]


def test_a_file_appears_when_it_is_whole_and_under_its_name_alone(tmp_path: Path) -> None:
    path = tmp_path / "index.npz"
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        assert names(tmp_path) == [temporary.name]
        assert (temporary.parent, temporary.suffix) == (tmp_path, ".part")
        np.savez(file, a=np.arange(3))
    assert names(tmp_path) == ["index.npz"]
    assert np.load(path)["a"].tolist() == [0, 1, 2]


def test_what_fails_leaves_the_file_that_was_there_and_no_other(tmp_path: Path) -> None:
    def fail(temporary: Path) -> None:
        temporary.write_text("half")
        raise InterruptedError

    (tmp_path / "a").write_text("before")
    with pytest.raises(InterruptedError), atomic_file(tmp_path / "a") as temporary:
        fail(temporary)
    assert (tmp_path / "a").read_text() == "before"
    with pytest.raises(InterruptedError), atomic_folder(tmp_path / "b") as folder:
        fail(folder / "x")
    assert names(tmp_path) == ["a"]


def test_a_writer_that_wants_its_own_ending_gets_it(tmp_path: Path) -> None:
    with atomic_file(tmp_path / "m.mindir", ending=".mindir") as temporary:
        assert temporary.suffix == ".mindir"
        temporary.touch()
    assert names(tmp_path) == ["m.mindir"]


def test_two_writers_of_one_file_do_not_meet_and_the_last_one_stays(tmp_path: Path) -> None:
    with atomic_file(tmp_path / "a") as one, atomic_file(tmp_path / "a") as other:
        one.write_text("one")
        other.write_text("other")
    assert (tmp_path / "a").read_text() == "one"  # its block is left last


def test_a_folder_appears_with_all_its_files(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "sets" / "a") as folder:
        (folder / "x").touch()
        assert names(tmp_path / "sets") == [folder.name]
    assert names(tmp_path / "sets") == ["a"]
    assert names(tmp_path / "sets" / "a") == ["x"]


def half_written(path: Path, pipe: Connection) -> None:
    with atomic_folder(path / "archive") as folder, atomic_file(path / "a") as one:
        (folder / "x").write_bytes(bytes(3))
        one.with_name(f"{one.name}.9aB0cdEF").write_bytes(bytes(3))  # as boto3 writes what it downloads
        one.write_bytes(bytes(3))
        pipe.send("half")
        pipe.recv()


def test_what_a_killed_process_left_half_written_is_removed_when_it_is_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = SPAWN.Pipe()
    other = SPAWN.Process(target=half_written, args=(tmp_path, there))
    other.start()
    assert here.recv() == "half"
    os.kill(other.pid or 0, signal.SIGKILL)
    other.join(LIMIT_S)
    left = set(names(tmp_path))
    assert len(left) == 3
    for theirs in ("song.part", "a.part", "a.0123456789AB.part"):  # which other programs have written
        (tmp_path / theirs).touch()
        left.add(theirs)
    files._sweep.cache_clear()
    write_atomically(tmp_path / "young", "")
    assert set(names(tmp_path)) == left | {"young"}
    files._sweep.cache_clear()
    monkeypatch.setattr(files, "LEFT_OVER_S", -1.0)
    write_atomically(tmp_path / "old", "")
    assert names(tmp_path) == ["a.0123456789AB.part", "a.part", "old", "song.part", "young"]


def test_a_link_that_is_about_to_get_its_name_is_as_young_as_the_link(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    os.utime(tmp_path / "a", (1, 1))
    with atomic_file(tmp_path / "b") as temporary:
        os.link(tmp_path / "a", temporary)
        files._sweep.cache_clear()
        write_atomically(tmp_path / "c", "")
    assert names(tmp_path) == ["a", "b", "c"]


def hold(path: Path, pipe: Connection) -> None:
    with locked(path, remove=True):
        pipe.send("in")
        pipe.recv()


def test_another_process_is_kept_out_and_the_file_goes_with_its_lock(tmp_path: Path) -> None:
    lock, (here, there) = tmp_path / "locks" / "x.lock", SPAWN.Pipe()
    other = SPAWN.Process(target=hold, args=(lock, there))
    other.start()
    assert here.recv() == "in"
    with pytest.raises(BlockingIOError), locked(lock, wait=False):
        pass
    here.send("out")
    with locked(lock, remove=True):
        assert lock.exists()
    other.join(LIMIT_S)
    assert not lock.exists()


def test_a_killed_process_holds_nothing_any_more(tmp_path: Path) -> None:
    lock, (here, there) = tmp_path / "x.lock", SPAWN.Pipe()
    other = SPAWN.Process(target=hold, args=(lock, there))
    other.start()
    assert here.recv() == "in"
    os.kill(other.pid or 0, signal.SIGKILL)
    other.join(LIMIT_S)
    assert lock.exists()
    with locked(lock, wait=False):
        pass
    assert lock.exists()


def in_and_out(lock: Path, log: Path, seconds: float) -> None:
    with locked(lock, waiting=f"another holds {lock.name}"), log.open("a") as file:
        file.write("in ")
        file.flush()
        time.sleep(seconds)
        file.write("out ")


def test_threads_wait_for_each_other_and_say_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "log"
    threads = [Thread(target=in_and_out, args=(tmp_path / "run.lock", log, 0.3)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT_S)
    assert log.read_text() == "in out in out "
    assert capsys.readouterr().out == "another holds run.lock\n"


def test_a_second_process_waits_for_the_first(tmp_path: Path) -> None:
    lock, log = tmp_path / "run.lock", tmp_path / "log"
    runs = [SPAWN.Process(target=in_and_out, args=(lock, log, 0.3)) for _ in range(2)]
    for run in runs:
        run.start()
    for run in runs:
        run.join(LIMIT_S)
    assert log.read_text() == "in out in out "


def test_who_waited_for_a_file_that_its_owner_removed_takes_the_new_one(tmp_path: Path) -> None:
    """Else a third would hold the new file while the second believes in the old one."""
    lock, log = tmp_path / "k.lock", tmp_path / "log"
    with locked(lock):
        second = Thread(target=in_and_out, args=(lock, log, 1.0))
        second.start()
        time.sleep(0.2)  # it waits
        lock.unlink()
    while not log.exists():
        time.sleep(0.01)
    with pytest.raises(BlockingIOError), locked(lock, wait=False):
        pass
    second.join(LIMIT_S)
    assert log.read_text() == "in out "


def test_arrays_have_the_same_bytes_whoever_writes_them(tmp_path: Path) -> None:
    arrays = {"counts": np.arange(3, dtype=np.uint8), "texts": np.array(["a", "bc"])}
    with (tmp_path / "arrays.npz").open("wb") as file:
        write_arrays(file, arrays)
    content = (tmp_path / "arrays.npz").read_bytes()
    # Version 2.0 of the format, no flags, stored, 1980-01-01, and 128 + 3 bytes: no field of 64 bits.
    assert content[:14] == b"PK\x03\x04\x14\0\0\0\0\0\0\0\x21\0"
    assert content[18:30] == b"\x83\0\0\0\x83\0\0\0\x0a\0\0\0"
    with np.load(tmp_path / "arrays.npz", allow_pickle=False) as found:
        assert {name: array.tolist() for name, array in found.items()} == {"counts": [0, 1, 2], "texts": ["a", "bc"]}
