import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from components.fetch.stage import run
from components.recognition.artifacts import Manifest, find_manifest, read_manifest
from components.recognition.storage import Store

RENDERED = {
    "source": "synth://words?seed=7&count=9&fonts=train&words=train&difficulty=easy",
    "reader": "synth",
    "samples": 9,
    "licence": "Apache-2.0",
}


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
    assert store.fetch(words.object("archive")).read_bytes() == b"any bytes"
    assert (words.facts["sha256"], words.facts["bytes"], words.facts["file"]) == (digest, 9, "words.tar")
    drawn = find_manifest(store, combined.facts["datasets"]["drawn"])
    assert drawn
    assert drawn.objects == ()


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


def test_changed_content_is_fetched_anew(store: Store, tmp_path: Path) -> None:
    archive = tmp_path / "words.tar"
    archive.write_bytes(b"one")
    first = fetch(tmp_path, words=local(archive))
    archive.write_bytes(b"two")
    assert fetch(tmp_path, words=local(archive)).facts["datasets"] != first.facts["datasets"]


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
    assert "get it from https://example.org" in refusal(tmp_path, capsys, words=local(archive), SVT=manual)
    assert list(store.keys("objects/")) == []


def test_one_failure_does_not_stop_the_other_data_sets(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = tmp_path / "words.tar"
    archive.write_bytes(b"any bytes")
    sets = {"words": local(archive), "lost": local(tmp_path / "a"), "gone": local(tmp_path / "b")}
    out = refusal(tmp_path, capsys, **sets)
    assert "2 data sets could not be fetched" in out
    assert "'lost'" in out
    assert "'gone'" in out
    assert len(list(store.keys("objects/"))) == 1
    record = store.get_json("runs/r1/stages/fetch.datasets.json")
    assert record["ok"] is False


def test_it_is_a_program(store: Store, tmp_path: Path) -> None:
    output = tmp_path / "manifest"
    command = [sys.executable, "-m", "components.fetch", "--sources", json.dumps({"drawn": RENDERED})]
    done = subprocess.run(
        [*command, "--run-tag", "r2", "--output", str(output)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == read_manifest(output).reference
