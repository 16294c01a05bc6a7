import errno
import hashlib
import shutil
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path
from threading import Event
from typing import NamedTuple

import pytest

from tests.wordmill.sources.web_site import BODY, Site, open_site
from wordmill.recipe.catalogue import Entry
from wordmill.sources import download as sources_download
from wordmill.sources import patience as sources_patience
from wordmill.sources.locating import Located, locate
from wordmill.sources.remote import Remote
from wordmill.store import files as disk
from wordmill.store.storage import Store

MIB = 1 << 20
FIRST, SECOND, THIRD = "bytes=0-1048575", "bytes=1048576-2097151", "bytes=2097152-3145727"
PROBE = "bytes=0-0"


class Pauses(Event):
    """A stop that nobody sets; it waits for nothing and remembers how long it should have."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.asked.append(timeout or 0.0)
        return False


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(sources_download, "PIECE", MIB)
    monkeypatch.setattr(sources_download, "CONNECTIONS", 1)  # so that the order of requests is known
    with open_site(Site()) as site:
        yield site


def entry(source: str, sha256: str = "") -> Entry:
    return Entry(source=source, reader="lmdb", samples=1, licence="CC0", sha256=sha256)


def find(store: Store, wanted: Entry) -> Located:
    return locate(store, "words", wanted, Pauses())


def bring(located: Located) -> bytes:
    files = located.bring(Pauses())
    assert list(files) == ["words.tar"]
    return files["words.tar"].read_bytes()


def test_a_file_comes_in_pieces(site: Site, store: Store) -> None:
    located = find(store, entry(site.address))
    assert site.seen == [("HEAD", None)]
    assert bring(located) == BODY
    assert site.seen[1:] == [("GET", PROBE), ("GET", FIRST), ("GET", SECOND), ("GET", THIRD)]
    assert site.served == len(BODY) + 1


def test_several_connections_bring_the_same_bytes(site: Site, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources_download, "CONNECTIONS", 4)
    monkeypatch.setattr(sources_download, "PIECE", 100_000)
    assert bring(find(store, entry(site.address))) == BODY
    assert len(site.gets()) == 1 + 32
    assert site.served == len(BODY) + 1


def test_a_broken_connection_goes_on_where_it_broke(site: Site, store: Store) -> None:
    site.breaks_after = [1, 400_000, 100_000]  # of the question for ranges, and of the first piece twice
    assert bring(find(store, entry(site.address))) == BODY
    assert site.seen[2:5] == [("GET", FIRST), ("GET", "bytes=400000-1048575"), ("GET", "bytes=500000-1048575")]


def test_a_download_goes_on_in_another_process(site: Site, store: Store) -> None:
    site.breaks_after = [1, MIB, 300_000] + [0] * sources_patience.ATTEMPTS
    with pytest.raises(RuntimeError, match=r"mirror=1: gave up after 6 attempts: .*: check the network"):
        bring(find(store, entry(site.address)))
    site.breaks_after.clear()
    site.seen.clear()
    assert bring(find(store, entry(site.address))) == BODY
    assert site.gets() == [PROBE, SECOND, THIRD]


def test_a_server_without_ranges_starts_again(site: Site, store: Store) -> None:
    site.breaks_after, site.ranges = [0, 1_000_000], False
    assert bring(find(store, entry(site.address))) == BODY
    assert site.gets() == [None, None, PROBE]


def test_a_server_that_breaks_at_the_same_byte_for_ever_is_given_up(site: Site, store: Store) -> None:
    site.breaks_after, site.ranges = [0] + [1_000_000] * 100, False
    with pytest.raises(RuntimeError, match="gave up after 6 attempts"):
        bring(find(store, entry(site.address)))
    assert len(site.breaks_after) == 100 - sources_patience.ATTEMPTS


def test_a_file_that_changes_before_its_download_is_refused_and_then_brought(site: Site, store: Store) -> None:
    located = find(store, entry(site.address))
    site.tag, site.body = '"v2"', BODY[::-1]
    with pytest.raises(RuntimeError, match=r"words\.tar\?mirror=1: changed while it was downloaded: .*run again"):
        located.bring(Pauses())
    assert bring(find(store, entry(site.address))) == BODY[::-1]


def test_a_file_that_changes_halfway_is_not_mixed(site: Site, store: Store) -> None:
    located = find(store, entry(site.address))
    site.breaks_after = [1, MIB] + [0] * sources_patience.ATTEMPTS
    with pytest.raises(RuntimeError, match="gave up"):
        located.bring(Pauses())
    site.breaks_after.clear()
    site.body += b"more"  # under the same tag
    with pytest.raises(RuntimeError, match="its size is 3145732 now, it was 3145728"):
        located.bring(Pauses())
    assert not located.downloads.exists()
    assert bring(find(store, entry(site.address))) == BODY + b"more"


def test_a_file_that_shrinks_has_changed(site: Site, store: Store) -> None:
    located = find(store, entry(site.address))
    for size in (2 * MIB, 5):  # at the start of the third piece, within the first
        site.body = BODY[:size]
        with pytest.raises(RuntimeError, match="changed while it was downloaded"):
            located.bring(Pauses())


def test_pieces_of_another_version_are_not_used_under_a_known_digest(site: Site, store: Store) -> None:
    known = entry(site.address, hashlib.sha256(BODY).hexdigest())
    site.body = BODY[::-1]
    site.breaks_after = [1, MIB] + [0] * sources_patience.ATTEMPTS
    with pytest.raises(RuntimeError, match="gave up"):
        bring(find(store, known))
    site.breaks_after.clear()
    site.body, site.tag = BODY, '"v2"'
    assert bring(find(store, known)) == BODY


def test_a_server_that_announces_too_much_is_given_up(site: Site, store: Store) -> None:
    site.ranges, site.announces = False, len(BODY) + 10
    with pytest.raises(RuntimeError, match=r"gave up after 6 attempts: .*10 more expected"):
        bring(find(store, entry(site.address)))


def test_a_server_that_sends_another_range_is_given_up(site: Site, store: Store) -> None:
    located = find(store, entry(site.address))
    site.shifts = 5
    with pytest.raises(RuntimeError, match=r"asked for the bytes 0 to 1048576, it sent 'bytes 5-1048575/3145728'"):
        bring(located)


def test_a_server_that_stops_sending_ranges_is_read_from_the_start(site: Site, store: Store) -> None:
    located = find(store, entry(site.address))
    site.breaks_after = [1, MIB] + [0] * sources_patience.ATTEMPTS
    with pytest.raises(RuntimeError, match="gave up"):
        bring(located)
    site.breaks_after.clear()
    site.ranges = False
    assert bring(located) == BODY


def test_passing_refusals_are_waited_out(site: Site, store: Store) -> None:
    site.refuses = [503, 429, 500]
    assert bring(find(store, entry(site.address))) == BODY


@pytest.mark.parametrize(
    ("header", "pauses"),
    [("", [1.0, 2.0]), ("7", [7.0, 7.0]), ("nonsense", [1.0, 2.0]), (formatdate(usegmt=True), [1.0, 2.0])],
    ids=["nothing", "seconds", "nonsense", "a time that has passed"],
)
def test_a_server_says_how_long_to_wait(header: str, pauses: list[float], site: Site, store: Store) -> None:
    site.refuses, site.retry_after = [503, 503], header
    stop = Pauses()
    locate(store, "words", entry(site.address), stop)
    assert stop.asked == pauses


def test_who_asks_for_too_long_a_wait_is_not_waited_for(site: Site, store: Store) -> None:
    site.refuses, site.retry_after = [503], "3600"
    with pytest.raises(RuntimeError, match="it asks to come back in 3600 s: run again then"):
        find(store, entry(site.address))


@pytest.mark.parametrize("code", [401, 404, 410])
def test_final_refusals_are_not_repeated(code: int, site: Site, store: Store) -> None:
    site.refuses = [code]
    with pytest.raises(ValueError, match=rf"words\.tar\?mirror=1: refused with {code} .*: check the address"):
        find(store, entry(site.address))
    assert len(site.seen) == 1


def test_a_server_that_does_not_answer_head_is_asked_for_a_byte(site: Site, store: Store) -> None:
    site.heads = False
    located = find(store, entry(site.address))
    assert site.seen == [("HEAD", None), ("GET", PROBE)]
    assert located.identity["files"] == [["words.tar", '"v1"', len(BODY)]]
    assert bring(located) == BODY


def test_a_server_that_tells_nothing_needs_a_digest(site: Site, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wordmill.sources.locating.web_file", lambda address: silent(address, b"abc"))
    with pytest.raises(ValueError, match="tells neither size nor version: add the file's sha256"):
        find(store, entry(site.address))
    located = find(store, entry(site.address, hashlib.sha256(b"abc").hexdigest()))
    assert bring(located) == b"abc"
    assert bring(located) == b"abc"


def silent(address: str, content: bytes) -> Remote:
    return Remote(
        address=address, version="", size=None, ranged=lambda: False, read=lambda start, stop: iter([content])
    )


def test_an_empty_file_is_brought(site: Site, store: Store) -> None:
    site.body = b""
    assert bring(find(store, entry(site.address))) == b""


def test_a_server_that_is_not_there_ends_the_patience(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    stop = Pauses()
    with pytest.raises(RuntimeError, match="http://127.0.0.1:9/x: gave up after 6 attempts: .*refused"):
        locate(store, "words", entry("http://127.0.0.1:9/x"), stop)
    assert stop.asked == [1.0, 2.0, 4.0, 8.0, 16.0]
    assert capsys.readouterr().out.count("again in") == 5


def test_identity_follows_version_and_address(site: Site, store: Store) -> None:
    first = find(store, entry(site.address))
    assert find(store, entry(site.address)).identity == first.identity
    site.tag = '"v2"'
    assert find(store, entry(site.address)).identity != first.identity
    assert find(store, entry(site.address + "&b=2")).identity != first.identity


def test_with_a_known_digest_nothing_is_asked_before(site: Site, store: Store) -> None:
    sha256 = hashlib.sha256(BODY).hexdigest()
    located = find(store, entry(site.address, sha256))
    assert located.identity == {"sha256": sha256}
    assert site.seen == []
    assert bring(located) == BODY


def test_numbered_files_come_under_their_names(site: Site, store: Store) -> None:
    address = site.address.replace("words.tar", "train-{08..11}-of-12")
    files = find(store, entry(address)).bring(Pauses())
    assert list(files) == ["train-08-of-12", "train-09-of-12", "train-10-of-12", "train-11-of-12"]
    assert {path.read_bytes() == BODY for path in files.values()} == {True}


def test_redirections_are_followed(site: Site, store: Store) -> None:
    assert bring(find(store, entry(site.address.replace("/folder/", "/old/")))) == BODY


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def free_bytes(number: int) -> Callable[[Path], Usage]:
    return lambda path: Usage(1 << 40, 0, number)


def test_what_does_not_fit_is_not_begun(site: Site, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", free_bytes(len(BODY) + disk.RESERVE - 1))
    with pytest.raises(RuntimeError, match=r"words: 3,145,728 bytes do not fit on .*70,254,591 are free: make room"):
        bring(find(store, entry(site.address)))
    assert site.gets() == [PROBE]


def test_a_disk_that_fills_up_is_said_clearly_and_freed(
    site: Site, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    located = find(store, entry(site.address))

    def fill(*args: object) -> None:
        monkeypatch.setattr(shutil, "disk_usage", free_bytes(0))
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sources_download._Tally, "add", fill)
    with pytest.raises(RuntimeError, match="fetch words: no space left on"):
        located.bring(Pauses())
    assert not located.downloads.exists()


def test_the_caller_can_stop_it(site: Site, store: Store) -> None:
    located, stop = find(store, entry(site.address)), Event()
    stop.set()
    with pytest.raises(sources_patience.CancelledError):
        located.bring(stop)
