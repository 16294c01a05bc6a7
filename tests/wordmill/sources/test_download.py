"""Downloads that are killed: what was whole is kept, what was not is fetched again, and the bytes are the same."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from threading import Event

import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.wordmill.sources.web_site import BODY, Site, open_site
from wordmill.recipe.catalogue import Entry
from wordmill.sources import download as sources_download
from wordmill.sources.download import Part, download
from wordmill.sources.locating import locate
from wordmill.sources.patience import patiently
from wordmill.sources.remote import Remote, web_file
from wordmill.store.storage import Store

SMALL_BODY = BODY[:200_000]
PIECE = 16_384


class Killed(BaseException):
    """The process ends here."""


def remote(read: Callable[[int, int | None], Iterator[bytes]], size: int = len(SMALL_BODY)) -> Remote:
    return Remote(address="mem", version="v1", size=size, ranged=lambda: True, read=read)


class Memory:
    """A remote file in memory: it kills its reader after so many bytes, and counts what it sends."""

    def __init__(self, kill_after: int) -> None:
        self.left = kill_after
        self.asked: list[tuple[int, int]] = []

    def read(self, start: int, stop: int | None) -> Iterator[bytes]:
        assert stop
        self.asked.append((start, stop))
        for at in range(start, stop, 5000):
            chunk = SMALL_BODY[at : min(at + 5000, stop)]
            if self.left < len(chunk):
                if self.left:
                    yield chunk[: self.left]
                raise Killed
            self.left -= len(chunk)
            yield chunk


@pytest.fixture
def pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources_download, "PIECE", PIECE)
    monkeypatch.setattr(sources_download, "SMALL", 1000)


def whole(folder: Path) -> set[tuple[int, int]]:
    """Return the pieces that the journal lists, by the file format's description."""
    journal = folder / "00000.part.journal"
    lines = journal.read_text().split("\n")[1:-1] if journal.exists() else []
    return {(int(line.split()[0]), int(line.split()[1])) for line in lines}


@settings(max_examples=60, deadline=None)
@given(kills=st.lists(st.integers(0, len(SMALL_BODY)), max_size=4), connections=st.integers(1, 4))
def test_killed_at_any_bytes_it_ends_with_the_same_bytes(kills: list[int], connections: int) -> None:
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(sources_download, "PIECE", PIECE)
        patch.setattr(sources_download, "SMALL", 1000)
        patch.setattr(sources_download, "CONNECTIONS", connections)
        done: set[tuple[int, int]] = set()
        for kill in kills:
            memory = Memory(kill)
            try:
                download("fetch words", {"a": remote(memory.read)}, Path(folder), Event())
            except Killed:
                assert not done & set(memory.asked)
                done = whole(Path(folder))
        memory = Memory(len(SMALL_BODY))
        files = download("fetch words", {"a": remote(memory.read)}, Path(folder), Event())
        assert files["a"].read_bytes() == SMALL_BODY
        assert not done & set(memory.asked)


@settings(max_examples=12, deadline=None)
@given(breaks=st.lists(st.integers(0, 40_000), max_size=6), connections=st.integers(1, 3))
def test_a_site_may_close_at_any_byte(breaks: list[int], connections: int) -> None:
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(sources_download, "PIECE", 2 * PIECE)
        patch.setattr(sources_download, "SMALL", 1000)
        patch.setattr(sources_download, "CONNECTIONS", connections)
        patch.setattr("wordmill.sources.patience.BACKOFF_S", 0.0)
        patch.setattr("wordmill.sources.patience.ATTEMPTS", 2)
        patch.setenv("NO_PROXY", "127.0.0.1")
        with open_site(Site(SMALL_BODY)) as site:
            site.breaks_after = breaks
            for _ in range(len(breaks) + 1):
                try:
                    # A connection that was kept may be closed by the time that the next request takes it.
                    file = patiently(site.address, Event(), partial(web_file, site.address))
                    files = download("fetch words", {"a": file}, Path(folder), Event())
                    break
                except RuntimeError:
                    site.seen.clear()
        assert files["a"].read_bytes() == SMALL_BODY


def kept(folder: Path, change: Callable[[Path, Path], None]) -> list[tuple[int, int]]:
    """Download, change what lies on the disk, and return what a second download asks for."""
    memory = Memory(len(SMALL_BODY))
    download("fetch words", {"a": remote(memory.read)}, folder, Event())
    change(folder / "00000.part", folder / "00000.part.journal")
    memory = Memory(len(SMALL_BODY))
    files = download("fetch words", {"a": remote(memory.read)}, folder, Event())
    assert files["a"].read_bytes() == SMALL_BODY
    return sorted(memory.asked)


def overwritten(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def overwrite(path: Path, at: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(content)


@pytest.mark.usefixtures("pieces")
def test_what_is_whole_is_not_asked_for_again(tmp_path: Path) -> None:
    assert kept(tmp_path, lambda part, journal: None) == []


@pytest.mark.usefixtures("pieces")
def test_a_piece_that_the_disk_lost_is_fetched_again(tmp_path: Path) -> None:
    change = lambda part, journal: overwrite(part, PIECE + 7, bytes(100))  # noqa: E731
    assert kept(tmp_path, change) == [(PIECE, 2 * PIECE)]


@pytest.mark.usefixtures("pieces")
def test_a_part_that_is_shorter_than_its_journal_says_is_filled_up(tmp_path: Path) -> None:
    change = lambda part, journal: os.truncate(part, 12 * PIECE + 1)  # noqa: E731
    assert kept(tmp_path, change) == [(12 * PIECE, len(SMALL_BODY))]


@pytest.mark.usefixtures("pieces")
def test_bytes_behind_the_end_are_cut_off(tmp_path: Path) -> None:
    change = lambda part, journal: overwrite(part, len(SMALL_BODY), b"more")  # noqa: E731
    assert kept(tmp_path, change) == []


@pytest.mark.usefixtures("pieces")
def test_a_torn_line_of_the_journal_costs_its_piece(tmp_path: Path) -> None:
    change = lambda part, journal: os.truncate(journal, journal.stat().st_size - 5)  # noqa: E731
    assert len(kept(tmp_path, change)) == 1


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize("content", [b"", b"\xff\xfe\0", b"no journal\n"])
def test_a_journal_of_rubbish_begins_anew(content: bytes, tmp_path: Path) -> None:
    assert len(kept(tmp_path, lambda part, journal: overwritten(journal, content))) == 13


@pytest.mark.usefixtures("pieces")
def test_another_version_begins_anew(tmp_path: Path) -> None:
    memory = Memory(len(SMALL_BODY))
    part = Part(remote(memory.read), tmp_path / "x.part")
    assert part.whole() == set()
    part.path.write_bytes(b"abcdef")
    part.note(0, 3, xxhash.xxh3_64(b"abc").hexdigest())
    assert part.whole() == {(0, 3)}
    changed = Remote(address="mem", version="v2", size=len(SMALL_BODY), ranged=lambda: True, read=memory.read)
    assert Part(changed, part.path).whole() == set()
    assert part.path.read_bytes() == b""


@pytest.mark.usefixtures("pieces")
def test_a_server_that_sends_too_much_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wordmill.sources.patience.BACKOFF_S", 0.0)
    endless = remote(lambda start, stop: iter([bytes(PIECE)] * 2), 4 * PIECE)  # no piece is smaller than the others
    with pytest.raises(RuntimeError, match="it sent more than the 16384 bytes that it announced"):
        download("fetch words", {"a": endless}, tmp_path, Event())


def test_many_small_files_come_at_once(tmp_path: Path) -> None:
    names = [f"train-{number:05}" for number in range(700)]  # more than files that a process may have open by twos
    remotes = {name: remote(lambda start, stop, name=name: iter([name.encode()]), 11) for name in names}
    files = download("fetch words", remotes, tmp_path, Event())
    assert [path.read_text() for path in files.values()] == names


FETCH = """
import sys
from wordmill.sources import download as sources_download
sources_download.PIECE = 1 << 18
sources_download.CONNECTIONS = 3
from components.fetch.stage import run
run(sources=sys.argv[1], run_tag="r1", output=sys.argv[2])
"""


def test_a_killed_fetch_goes_on_and_fetches_no_whole_piece_again(store: Store, tmp_path: Path) -> None:
    chance = random.Random(4)
    with open_site(Site()) as site:
        site.slice_s = 0.01
        entry = {"source": site.address, "reader": "lmdb", "samples": 1, "licence": "CC0"}
        command = [sys.executable, "-c", FETCH, json.dumps({"words": entry}), str(tmp_path / "manifest")]
        environment = os.environ | {"NO_PROXY": "127.0.0.1"}
        (folder,) = {locate(store, "words", Entry(**entry), Event()).downloads}  # type: ignore[arg-type]
        done: set[tuple[int, int]] = set()
        for reach in (4, 8):  # pieces that the site sends whole
            site.stalls_at = (reach << 18) + chance.randrange(1 << 18)
            pieces = len(done) + chance.randrange(1, 4)
            process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
            while len(whole(folder)) < pieces and process.poll() is None:
                time.sleep(0.002)
            time.sleep(chance.random() / 20)
            process.send_signal(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
            done |= whole(folder)
            site.seen.clear()
        assert 2 <= len(done) <= 8
        site.stalls_at = None
        last = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert last.returncode == 0, last.stdout
        asked = {(int(a), int(b) + 1) for _, wanted in site.seen for a, b in re.findall(r"=(\d+)-(\d+)", wanted or "")}
        assert not done & asked
        assert asked - {(0, 1)} | done == {(at, at + (1 << 18)) for at in range(0, len(BODY), 1 << 18)}
    assert [body for body in stored(store) if body == BODY]
    assert not folder.exists()


def stored(store: Store) -> Iterator[bytes]:
    for key in store.keys("objects/"):
        yield store.get_bytes(key) or b""
