import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from components.fetch.lock import accept
from components.fetch.stage import LEFT_DAYS, run
from tests.wordmill.sources.web_site import Site, open_site
from wordmill.sources import locating
from wordmill.store import stages
from wordmill.store.artifacts import Manifest, find_manifest, read_manifest
from wordmill.store.runs import records_prefix
from wordmill.store.storage import Store

RENDERED = {
    "source": "synth://words?seed=7&count=9&fonts=train&words=train&difficulty=easy",
    "reader": "synth",
    "samples": 9,
    "licence": "Apache-2.0",
}


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def local(path: Path, **fields: Any) -> dict[str, Any]:
    return {"source": f"file://{path}", "reader": "lmdb", "samples": 1, "licence": "CC0", **fields}


def fetch(tmp_path: Path, **sources: dict[str, Any]) -> Manifest:
    run(sources=json.dumps(sources), run_tag="r1", output=str(tmp_path / "out" / "manifest"))
    return read_manifest(tmp_path / "out" / "manifest")


def refusal(tmp_path: Path, capsys: pytest.CaptureFixture[str], **sources: dict[str, Any]) -> str:
    with pytest.raises(SystemExit):
        fetch(tmp_path, **sources)
    assert (tmp_path / "out" / "error.json").is_file()
    return capsys.readouterr().out


def test_data_sets_become_objects_and_manifests(store: Store, tmp_path: Path) -> None:
    archive = tmp_path / "words.tar"
    archive.write_bytes(b"any bytes")
    digest = hashlib.sha256(b"any bytes").hexdigest()
    combined = fetch(tmp_path, words=local(archive, sha256=digest), drawn=RENDERED)
    assert set(combined.facts["datasets"]) == {"words", "drawn"}
    assert combined.facts["entries"]["words"]["source"] == f"file://{archive}"
    words = find_manifest(store, combined.facts["datasets"]["words"])
    assert words
    assert store.fetch(words.object("words.tar")).read_bytes() == b"any bytes"
    assert (words.facts["sha256"], words.facts["bytes"]) == (digest, 9)
    drawn = find_manifest(store, combined.facts["datasets"]["drawn"])
    assert drawn
    assert drawn.objects == ()


def test_a_local_archive_is_read_twice_and_its_copy_but_to_be_sent(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To know it, and to copy it as it was known; then the copy is sent, which boto3 opens by itself."""
    read: Counter[str] = Counter()
    opened = Path.open

    def counted(path: Path, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        if mode == "rb" and path.is_relative_to(tmp_path) and path.stat().st_size == 200_000:
            read["the archive" if path.name == "words.tar" else "the copy"] += 1
        return opened(path, mode, *arguments, **options)

    (tmp_path / "words.tar").write_bytes(bytes(200_000))
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", counted)
        fetch(tmp_path, words=local(tmp_path / "words.tar"))
    assert read == {"the archive": 2}


def test_an_archive_that_changes_while_it_is_copied_is_not_taken_for_another(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = tmp_path / "words.tar"
    archive.write_bytes(b"any bytes")
    copy = locating.copy_file

    def changed(source: Path, target: Path) -> str:
        archive.write_bytes(b"other bytes")
        return copy(source, target)

    monkeypatch.setattr(locating, "copy_file", changed)
    assert f"{archive} changed while it was read: its sha256 is" in refusal(tmp_path, capsys, words=local(archive))


def test_a_continued_run_forgets_what_the_one_before_recorded_but_this_ones_look(store: Store, tmp_path: Path) -> None:
    for name in ("fresh.tiny", "train.crnn"):
        store.put_json(f"{records_prefix('r1')}{name}.json", {"ok": False})
    (tmp_path / "words.txt").write_bytes(b"words of r1")
    fetch(tmp_path, words=local(tmp_path / "words.txt"))
    names = [key.removeprefix(records_prefix("r1")) for key in store.keys(records_prefix("r1"))]
    assert sorted(names) == ["fetch.datasets.json", "fresh.tiny.json"]


def test_a_second_run_moves_nothing(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive = tmp_path / "words.tar"
    archive.write_bytes(b"any bytes")
    first = fetch(tmp_path, words=local(archive))
    before = list(store.keys("objects/"))
    capsys.readouterr()
    moved = archive.rename(tmp_path / "elsewhere.tar")
    second = fetch(tmp_path, words=local(moved))
    assert second.facts["datasets"] == first.facts["datasets"]
    assert list(store.keys("objects/")) == before
    assert "fetch words: found finished" in capsys.readouterr().out
    record = store.get_json("runs/r1/stages/fetch.datasets.json")
    assert (record["ok"], record["found"]) == (True, True)


def test_a_source_without_a_digest_is_held_to_its_first_use(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = tmp_path / "words.tar"
    archive.write_bytes(b"one")
    first = fetch(tmp_path, words=local(archive))
    assert f"first use of file://{archive}: recorded sha256 {sha256(b'one')}" in capsys.readouterr().out
    archive.write_bytes(b"two")
    out = refusal(tmp_path, capsys, words=local(archive))
    assert f"file://{archive} has changed: sha256 is {sha256(b'two')}, it was {sha256(b'one')} when run r1" in out
    assert f"python -m pipelines accept 'file://{archive}'" in out
    assert accept(store, f"file://{archive}")["sha256"] == sha256(b"one")
    assert fetch(tmp_path, words=local(archive)).facts["datasets"] != first.facts["datasets"]
    archive.write_bytes(b"one")
    assert "has changed" in refusal(tmp_path, capsys, words=local(archive))


def test_a_digest_in_the_catalogue_overrules_the_first_use(store: Store, tmp_path: Path) -> None:
    archive = tmp_path / "words.tar"
    archive.write_bytes(b"one")
    fetch(tmp_path, words=local(archive))
    archive.write_bytes(b"two")
    fetch(tmp_path, words=local(archive, sha256=sha256(b"two")))


def test_what_was_never_used_cannot_be_accepted(store: Store) -> None:
    with pytest.raises(ValueError, match=r"file:///x: no use of this source is recorded in s3://bucket-"):
        accept(store, "file:///x")


def test_the_digest_of_several_files_is_what_sha256sum_gives(store: Store, tmp_path: Path) -> None:
    (tmp_path / "set" / "sub").mkdir(parents=True)
    (tmp_path / "set" / "a").write_bytes(b"1")
    (tmp_path / "set" / "sub" / "b").write_bytes(b"2")
    command = "sha256sum a sub/b | sha256sum"
    printed = subprocess.run(command, shell=True, cwd=tmp_path / "set", capture_output=True, text=True, check=True)  # noqa: S602
    fetch(tmp_path, words=local(tmp_path / "set", sha256=printed.stdout.split()[0]))


def test_data_sets_of_one_archive_move_it_once(store: Store, tmp_path: Path) -> None:
    with open_site(Site(b"an archive")) as site:
        shared = {"reader": "lmdb", "samples": 1, "licence": "CC0", "source": site.address}
        one, two = {**shared, "inside": "a"}, {**shared, "inside": "b"}
        first = fetch(tmp_path, one=one, two=two)
        manifests = [find_manifest(store, first.facts["datasets"][name]) for name in ("one", "two")]
        assert len({manifest.objects for manifest in manifests if manifest}) == 1
        assert all(manifests)
        assert site.served == len(b"an archive")
        fetch(tmp_path, three={**shared, "inside": "c"})  # of another recipe
        assert site.served == len(b"an archive")


def test_parts_of_one_folder_are_held_to_their_own_first_use(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b"):
        (tmp_path / "all" / "sets" / name).mkdir(parents=True)
        (tmp_path / "all" / "sets" / name / "data.mdb").write_bytes(name.encode())
    one, two = local(tmp_path / "all", inside="sets/a"), local(tmp_path / "all", inside="sets/b")
    references = fetch(tmp_path, one=one, two=two).facts["datasets"]
    manifest = find_manifest(store, references["two"])
    assert manifest
    assert store.fetch(manifest.object("sets/b/data.mdb")).read_bytes() == b"b"
    (tmp_path / "all" / "sets" / "b" / "data.mdb").write_bytes(b"c")
    out = refusal(tmp_path, capsys, one=one, two=two)
    assert f"data set 'two': file://{tmp_path}/all#sets/b has changed" in out


def test_a_second_fetch_moves_nothing_even_by_another_version_of_the_code(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_site(Site()) as site:
        words = {"source": site.address, "reader": "lmdb", "samples": 1, "licence": "CC0"}
        fetch(tmp_path, words=words)
        before, served = list(store.keys("objects/")), site.served
        fetch(tmp_path, words=words)
        monkeypatch.setattr(stages, "_key", lambda stage, name, inputs, made_by: f"of-other-code-{name}")
        shutil.rmtree(store.cache)
        fetch(tmp_path, words=words)
        assert (list(store.keys("objects/")), site.served) == (before, served)
        assert not list((store.cache / "downloads").glob("*"))


def test_half_a_download_that_nobody_has_gone_on_with_for_weeks_is_removed(store: Store, tmp_path: Path) -> None:
    words, parent = tmp_path / "words.tar", store.cache / "downloads"
    words.write_bytes(b"any bytes")
    for name, days in (("old", LEFT_DAYS + 1), ("young", LEFT_DAYS - 1)):
        (parent / name).mkdir(parents=True)
        (parent / f"{name}.lock").touch()  # which a killed process leaves
        (parent / name / "00000.part").touch()
        for path in (parent / name / "00000.part", parent / name, parent / f"{name}.lock"):
            os.utime(path, (time.time() - 86400 * days,) * 2)
    fetch(tmp_path, words=local(words))
    assert sorted(path.name for path in parent.iterdir()) == ["young", "young.lock"]


def test_a_wrong_digest_stores_nothing(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive = tmp_path / "words.tar"
    archive.write_bytes(b"any bytes")
    out = refusal(tmp_path, capsys, words=local(archive, sha256="0" * 64))
    found = hashlib.sha256(b"any bytes").hexdigest()
    assert f"data set 'words': file://{archive} has sha256 {found}, expected {'0' * 64}" in out
    assert list(store.keys("objects/")) == list(store.keys("manifests/")) == []
    assert not any((store.cache / "work").iterdir())


def test_manual_data_stops_the_stage_before_anything_moves(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = tmp_path / "words.tar"
    archive.write_bytes(b"any bytes")
    manual = {"source": "manual:", "reader": "lmdb", "samples": 647, "licence": "x", "homepage": "https://example.org"}
    assert "SVT: get it from https://example.org, then run with --from SVT=PLACE" in refusal(
        tmp_path, capsys, words=local(archive), SVT=manual
    )
    assert list(store.keys("objects/")) == []


def test_one_failure_does_not_stop_the_other_data_sets(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = tmp_path / "words.tar"
    archive.write_bytes(b"any bytes")
    sets = {"words": local(archive), "lost": local(tmp_path / "a"), "gone": local(tmp_path / "b")}
    out = refusal(tmp_path, capsys, **sets)
    assert "2 sources could not be fetched" in out
    assert "'lost'" in out
    assert "'gone'" in out
    assert len(list(store.keys("objects/"))) == 1
    record = store.get_json("runs/r1/stages/fetch.datasets.json")
    assert record["ok"] is False


def test_it_is_a_program_that_takes_sources_from_elsewhere(store: Store, tmp_path: Path) -> None:
    (tmp_path / "all.zip").write_bytes(b"any bytes")
    manual = {"source": "manual:all.zip", "reader": "lmdb", "samples": 1, "licence": "x", "inside": "a"}
    sources, output = json.dumps({"drawn": RENDERED, "words": manual}), tmp_path / "manifest"
    command = [sys.executable, "-m", "components.fetch", "--sources", sources, "--from", "all.zip=all.zip"]
    done = subprocess.run(
        [*command, "--run-tag", "r2", "--output", str(output)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[3])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    manifest = read_manifest(output)
    assert done.stdout.splitlines()[-1] == manifest.reference
    fetched = manifest.facts["entries"]["words"]
    assert (fetched["source"], fetched["inside"]) == (f"file://{tmp_path}/all.zip", "a")
