"""One bound for objects and blocks: least recently used first, never what somebody uses."""

import fcntl
import multiprocessing
import os
import time
from collections.abc import Callable
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from wordmill.store import cache
from wordmill.store.cache import VARIABLE, ObjectCache, Quota, limit_bytes, mark_used, place_of_note
from wordmill.store.files import atomic_file
from wordmill.store.storage import Object, Store

Add = Callable[..., Path]


@pytest.fixture
def add(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Add:
    """Puts a file into a cache of 1,000 bytes as blocks come there, by default; `used` is when, unix time in s."""
    monkeypatch.setenv(VARIABLE, "1000")

    def added(name: str, size: int, kind: str = "blocks", used: float = 0.0) -> Path:
        path = tmp_path / kind / "ab" / name
        with atomic_file(path) as temporary, Quota(tmp_path).room(size):
            temporary.write_bytes(bytes(size))
        if used:
            os.utime(path, (used, 5.0))
        return path

    return added


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*/ab/*"))


def put(store: Store, folder: Path, content: bytes) -> Object:
    path = folder / "made"
    path.write_bytes(content)
    return store.put_file(path, "made")


def test_objects_and_blocks_have_one_bound_and_what_was_used_longest_ago_goes(add: Add, tmp_path: Path) -> None:
    add("block", 300, used=2.0)
    add("object", 200, "objects", used=1.0)
    older = add("older", 300, used=0.5)
    mark_used(older)
    add("new", 250)  # 50 too many, and an eighth of the bound more is made free: 175, which the oldest has
    assert names(tmp_path) == ["block", "new", "older"]
    assert (tmp_path / "quota" / "used").read_text() == "850 0"


def test_a_use_changes_nothing_else_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.touch()
    os.utime(path, (1.0, 2.0))
    mark_used(path)
    assert path.stat().st_mtime == 2.0
    assert path.stat().st_atime > time.time() - 60


def test_the_note_of_what_goes_goes_too(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "10")
    one = put(store, tmp_path, b"content 1")
    assert place_of_note(store.cache, one.sha256).exists()
    two = put(store, tmp_path, b"content 2")
    assert [store.objects.path(entry.sha256).exists() for entry in (one, two)] == [False, True]
    assert [place_of_note(store.cache, entry.sha256).exists() for entry in (one, two)] == [False, True]


def test_what_another_process_uses_stays_until_that_ends(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "20")
    one = put(store, tmp_path, b"content 1")
    context = multiprocessing.get_context("fork")

    def use(got: Event) -> None:
        other = Store.from_environment()
        other.fetch(one)
        got.set()
        context.Event().wait()

    got = context.Event()
    child = context.Process(target=use, args=(got,))
    child.start()
    assert got.wait(60)
    put(store, tmp_path, b"content 2")
    put(store, tmp_path, b"content 3")
    assert store.objects.path(one.sha256).exists()
    child.kill()
    child.join()
    put(store, tmp_path, b"content 4")
    assert not store.objects.path(one.sha256).exists()


def test_an_object_that_was_asked_for_stays_while_its_store_is_used(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "20")
    one = put(store, tmp_path, b"content 1")
    store.objects.path(one.sha256).unlink()
    user = Store.from_environment()
    path = user.fetch(one)  # out of the store
    put(store, tmp_path, b"content 2")
    put(store, tmp_path, b"content 3")
    assert path.read_bytes() == b"content 1"
    del user
    put(store, tmp_path, b"content 4")
    assert not path.exists()


def test_where_more_is_in_use_than_fits_there_is_still_an_eighth_for_the_rest(add: Add, tmp_path: Path) -> None:
    objects = [add(str(number), 400, "objects", used=1.0 + number) for number in range(2)]
    files = [path.open("rb") for path in objects]
    for file in files:
        fcntl.flock(file, fcntl.LOCK_SH)
    add("a", 150, used=10.0)
    for number, name in enumerate("bcd"):  # for c there is no room: 800 bytes are in use, and the rest of 825 is none
        add(name, 50, used=11.0 + number)
    assert names(tmp_path) == ["0", "1", "c", "d"]
    more = add("2", 400, "objects", used=20.0)
    with more.open("rb") as last:
        fcntl.flock(last, fcntl.LOCK_SH)
        for name, left in (("e", "e"), ("f", "ef"), ("g", "g")):  # 1,200 are in use: up to 1,325
            add(name, 60)
            assert names(tmp_path) == ["0", "1", "2", *left]
    for file in files:
        file.close()


def test_what_is_larger_than_the_bound_comes_and_goes(add: Add, tmp_path: Path) -> None:
    add("large", 5000)
    assert names(tmp_path) == ["large"]
    add("small", 10)
    assert names(tmp_path) == ["small"]


def test_room_counts_files_that_others_wrote_and_removes_what_a_killed_process_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "1200")
    folder = tmp_path / "blocks" / "ab"
    folder.mkdir(parents=True)
    for name, size, at in (("old", 600, 1), ("left.1-2.part", 300, 2), ("new.3-4.part", 100, 0)):
        (folder / name).write_bytes(bytes(size))
        if at:
            os.utime(folder / name, (at, at))
    with Quota(tmp_path).room(500):
        (folder / "own").write_bytes(bytes(500))
    assert names(tmp_path) == ["left.1-2.part", "new.3-4.part", "own"]
    assert (tmp_path / "quota" / "used").read_text() == "900 0"
    with Quota(tmp_path).room(400):
        (folder / "more").write_bytes(bytes(400))
    assert names(tmp_path) == ["more", "new.3-4.part", "own"]
    assert (tmp_path / "quota" / "used").read_text() == "1000 0"


@pytest.mark.parametrize("comes_again", [False, True])
def test_a_file_that_goes_while_it_is_taken_is_not_taken(
    comes_again: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = ObjectCache(tmp_path)
    path = objects.path("ab")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"old")
    lock = fcntl.flock

    def late(file: object, how: int) -> None:
        lock(file, how)  # type: ignore[arg-type]
        monkeypatch.setattr(fcntl, "flock", lock)
        path.unlink()
        if comes_again:
            path.write_bytes(b"newer")

    monkeypatch.setattr(fcntl, "flock", late)
    state = objects.take("ab")
    assert (state and state.st_size) == (5 if comes_again else None)


def test_the_bound_is_what_it_is_told_or_what_a_volume_of_its_own_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert limit_bytes(tmp_path) == 32 << 30
    monkeypatch.setattr(Path, "is_mount", lambda path: path == tmp_path)
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda path: Disk)
    assert limit_bytes(tmp_path) == 180
    monkeypatch.setenv(VARIABLE, "70")
    assert limit_bytes(tmp_path) == 70
    monkeypatch.setenv(VARIABLE, "32G")
    with pytest.raises(ValueError, match="WORDMILL_CACHE_BYTES: found '32G', expected a number of bytes"):
        limit_bytes(tmp_path)


class Disk:
    total = 200
