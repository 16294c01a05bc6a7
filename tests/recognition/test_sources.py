import errno
import hashlib
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import pytest

from components.recognition import sources
from components.recognition.archives import unpack
from components.recognition.catalogue import Entry
from components.recognition.sources import check_source, locate
from components.recognition.storage import Store
from tests.recognition.web_site import BODY, Handler, Site


def entry(source: str, sha256: str = "") -> Entry:
    return Entry(source=source, reader="lmdb", samples=1, licence="CC0", sha256=sha256)


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(sources, "BACKOFF_S", 0.0)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    site = Site()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("OwnHandler", (Handler,), {"site": site}))
    site.address = f"http://127.0.0.1:{server.server_port}/folder/words.tar?mirror=1"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield site
    server.shutdown()
    thread.join()
    server.server_close()


def bring(store: Store, wanted: Entry, target: Path) -> bytes:
    located = locate(store, "words", wanted)
    assert located.bring
    located.bring(target)
    return target.read_bytes()


def parts(store: Store) -> list[Path]:
    return list((store.cache / "downloads").glob("*"))


def test_a_file_is_downloaded_whole(site: Site, store: Store, tmp_path: Path) -> None:
    assert bring(store, entry(site.address), tmp_path / "x") == BODY
    assert site.seen == [("HEAD", None), ("GET", None)]
    assert parts(store) == []


def test_a_broken_download_goes_on_where_it_broke(site: Site, store: Store, tmp_path: Path) -> None:
    site.breaks_after = [1_000_000, 500_000]
    assert bring(store, entry(site.address), tmp_path / "x") == BODY
    assert site.seen[1:] == [("GET", None), ("GET", "bytes=1000000-"), ("GET", "bytes=1500000-")]


def test_a_download_goes_on_in_another_process(site: Site, store: Store, tmp_path: Path) -> None:
    site.breaks_after = [700_000] + [0] * sources.ATTEMPTS
    with pytest.raises(RuntimeError, match=r"gave up after 6 attempts: .*700000 of 3145728 bytes"):
        bring(store, entry(site.address), tmp_path / "x")
    assert [part.stat().st_size for part in parts(store)] == [700_000]
    site.breaks_after.clear()
    site.seen.clear()
    assert bring(store, entry(site.address), tmp_path / "x") == BODY
    assert site.seen == [("HEAD", None), ("GET", "bytes=700000-")]


def test_a_server_without_ranges_starts_again(site: Site, store: Store, tmp_path: Path) -> None:
    site.breaks_after, site.ranges = [1_000_000], False
    assert bring(store, entry(site.address), tmp_path / "x") == BODY


def test_a_file_that_changes_meanwhile_is_not_mixed(site: Site, store: Store, tmp_path: Path) -> None:
    located = locate(store, "words", entry(site.address))
    assert located.bring
    site.breaks_after = [1_000_000] + [0] * sources.ATTEMPTS
    with pytest.raises(RuntimeError, match="gave up"):
        located.bring(tmp_path / "x")
    site.breaks_after.clear()
    site.tag, site.body = '"v2"', BODY[::-1]
    located.bring(tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == BODY[::-1]


def test_passing_refusals_are_waited_out(site: Site, store: Store, tmp_path: Path) -> None:
    site.refuses = [503, 429, 500]
    assert bring(store, entry(site.address), tmp_path / "x") == BODY


@pytest.mark.parametrize("code", [401, 403, 404, 410])
def test_final_refusals_are_not_repeated(code: int, site: Site, store: Store) -> None:
    site.refuses = [code]
    with pytest.raises(ValueError, match=rf"words\.tar\?mirror=1: refused with {code}: check the address"):
        locate(store, "words", entry(site.address))
    assert len(site.seen) == 1


def test_a_server_that_is_not_there_ends_the_patience(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sources, "BACKOFF_S", 0.0)
    with pytest.raises(RuntimeError, match="http://127.0.0.1:9/x: gave up after 6 attempts"):
        locate(store, "words", entry("http://127.0.0.1:9/x"))
    assert capsys.readouterr().out.count("again in") == 5


def test_pauses_double(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(sources.time, "sleep", pauses.append)
    with pytest.raises(RuntimeError):
        locate(store, "words", entry("http://127.0.0.1:9/x"))
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0]


def test_with_a_known_digest_no_question_is_asked_before(site: Site, store: Store, tmp_path: Path) -> None:
    known = entry(site.address, hashlib.sha256(BODY).hexdigest())
    site.breaks_after = [1_000_000]
    assert bring(store, known, tmp_path / "x") == BODY
    assert site.seen == [("GET", None), ("GET", "bytes=1000000-")]


def test_a_whole_part_that_the_server_cannot_continue_is_fetched_again(
    site: Site, store: Store, tmp_path: Path
) -> None:
    known = entry(site.address, hashlib.sha256(BODY).hexdigest())
    located = locate(store, "words", known)
    assert located.bring
    part = located.bring.args[2]  # type: ignore[attr-defined]  # a partial
    part.parent.mkdir(parents=True)
    part.write_bytes(BODY)
    located.bring(tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == BODY


def test_identity_follows_version_and_address(site: Site, store: Store) -> None:
    first = locate(store, "words", entry(site.address))
    assert locate(store, "words", entry(site.address)).identity == first.identity
    assert first.file == "words.tar"
    site.tag = '"v2"'
    assert locate(store, "words", entry(site.address)).identity != first.identity
    assert locate(store, "words", entry(site.address + "&b=2")).identity != first.identity


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def free_bytes(number: int) -> Callable[[Path], Usage]:
    return lambda path: Usage(1 << 40, 0, number)


def test_what_does_not_fit_is_not_begun(
    site: Site, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", free_bytes(len(BODY) + sources.RESERVE - 1))
    with pytest.raises(RuntimeError, match=r"'words': 3,145,728 bytes do not fit on .*70,254,591 are free: make room"):
        bring(store, entry(site.address), tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_a_disk_that_fills_up_is_said_clearly_and_freed(
    site: Site, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    located = locate(store, "words", entry(site.address))
    assert located.bring

    def fill(*args: object) -> None:
        monkeypatch.setattr(shutil, "disk_usage", free_bytes(0))
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sources, "_copy_stream", fill)
    with pytest.raises(RuntimeError, match="'words': no space left on"):
        located.bring(tmp_path / "x")
    assert parts(store) == []
    assert not (tmp_path / "x").exists()


def test_a_local_file_is_known_by_its_content(store: Store, tmp_path: Path) -> None:
    (tmp_path / "a b.zip").write_bytes(BODY)
    (tmp_path / "copy").write_bytes(BODY)
    located = locate(store, "words", entry(f"file://{tmp_path}/a%20b.zip"))
    assert located.identity == {"sha256": hashlib.sha256(BODY).hexdigest()}
    assert located.file == "a b.zip"
    assert locate(store, "words", entry(f"file://{tmp_path}/copy")).identity == located.identity
    assert bring(store, entry(f"file://{tmp_path}/copy"), tmp_path / "x") == BODY


def test_a_local_folder_is_known_by_its_contents_and_packed(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "words"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "a").write_bytes(b"1")
    wanted = entry(f"file://{folder}")
    before = locate(store, "words", wanted)
    assert before.file == "words.tar"
    bring(store, wanted, tmp_path / "x")
    unpack(tmp_path / "x", tmp_path / "out")
    assert (tmp_path / "out" / "sub" / "a").read_bytes() == b"1"
    os.utime(folder / "sub" / "a", (0, 0))
    assert locate(store, "words", wanted).identity == before.identity
    (folder / "sub" / "a").write_bytes(b"2")
    assert locate(store, "words", wanted).identity != before.identity


def test_what_is_not_there_or_empty_is_refused(store: Store, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'words': /no/where: no such file or folder"):
        locate(store, "words", entry("file:///no/where"))
    with pytest.raises(ValueError, match="'words': .* holds no file"):
        locate(store, "words", entry(f"file://{tmp_path}"))


def test_an_object_of_s3_is_brought(store: Store, tmp_path: Path) -> None:
    store.client.put_object(Bucket=store.bucket, Key="in/words.tar", Body=BODY)
    wanted = entry(f"s3://{store.bucket}/in/words.tar")
    assert bring(store, wanted, tmp_path / "x") == BODY
    part = locate(store, "words", wanted).bring.args[2]  # type: ignore[union-attr]  # a partial
    part.write_bytes(BODY[:1_000_000])
    assert bring(store, wanted, tmp_path / "x") == BODY  # it goes on behind the first million
    part.write_bytes(b"?" * 1_000_000)
    assert bring(store, wanted, tmp_path / "x") == b"?" * 1_000_000 + BODY[1_000_000:]


def test_an_object_of_s3_that_is_not_there_is_refused(store: Store) -> None:
    with pytest.raises(ValueError, match=r"s3://.*/none: refused with 404"):
        locate(store, "words", entry(f"s3://{store.bucket}/none"))


RENDERED = "synth://words?seed=7&count=9&fonts=train&words=train&difficulty=easy"


def test_rendered_words_need_no_bringing(store: Store) -> None:
    located = locate(store, "words", Entry(source=RENDERED, reader="synth", samples=9, licence="CC0"))
    assert located.bring is None
    assert located.identity["source"] == RENDERED
    assert len(located.identity["atlas"]) == 64


def test_a_rendering_must_have_the_catalogues_count() -> None:
    check_source("words", Entry(source=RENDERED, reader="synth", samples=9, licence="CC0"))
    with pytest.raises(ValueError, match="'words': expected 10 samples"):
        check_source("words", Entry(source=RENDERED, reader="synth", samples=10, licence="CC0"))


def test_manual_data_says_where_to_get_it() -> None:
    wanted = Entry(source="manual:", reader="lmdb", samples=1, licence="x", homepage="https://example.org")
    with pytest.raises(
        ValueError, match=r"'SVT' cannot be downloaded .* https://example\.org, .*`SVT: \{source: file://"
    ):
        check_source("SVT", wanted)
