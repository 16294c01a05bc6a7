import hashlib
import json
import multiprocessing
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from components.fetch import stage as fetch_stage
from components.recognition.artifacts import Manifest, find_manifest, read_manifest
from components.recognition.catalogue import Entry
from components.recognition.charset import load_charset
from components.recognition.image import fit_picture
from components.recognition.recipe import Data, from_json
from components.recognition.shards import ShardSet, open_dataset
from components.recognition.storage import Store
from components.recognition.synth import SynthSpec, render
from components.shard import stage
from components.shard.packing import Rules, Task, pack

LOWER = load_charset("lower36")


def section(**fields: Any) -> str:
    data = {"train": [], "val": [], "charset": "lower36", "height": 32, "width": 100, "channels": 1}
    return json.dumps(data | fields)


def drawn(count: int, seed: int = 7) -> dict[str, Any]:
    source = f"synth://words?seed={seed}&count={count}&fonts=train&words=train&difficulty=easy"
    return {"source": source, "reader": "synth", "samples": count, "licence": "Apache-2.0"}


def photos(path: Path, samples: dict[str, bytes | None]) -> dict[str, Any]:
    """A zip of pictures, named by their labels' numbers, with a label file; None: the picture is missing."""
    with zipfile.ZipFile(path, "w") as file:
        names = {f"{number}.png": label for number, label in enumerate(samples)}
        file.writestr("labels.txt", "".join(f"{name} {label}\n" for name, label in names.items()))
        for name, label in names.items():
            if (picture := samples[label]) is not None:
                file.writestr(name, picture)
    entry = {"source": f"file://{path}", "reader": "label_file", "labels": "labels.txt", "licence": "CC0"}
    return entry | {"samples": len(samples)}


def png(value: int) -> bytes:
    return bytes(cv2.imencode(".png", np.full((20, 50, 3), value, dtype=np.uint8))[1].tobytes())


def shard(tmp_path: Path, sources: dict[str, Any], data: str) -> Manifest:
    fetched, output = tmp_path / "fetched", tmp_path / "out" / "manifest"
    fetch_stage.run(sources=json.dumps(sources), run_tag="r1", output=str(fetched))
    stage.run(data=data, sources=str(fetched), run_tag="r1", output=str(output))
    return read_manifest(output)


def one(store: Store, combined: Manifest, name: str = "words") -> Manifest:
    manifest = find_manifest(store, combined.facts["datasets"][name])
    assert manifest
    return manifest


def labels(shards: ShardSet) -> list[str]:
    return [label for index in range(shards.blocks) for label in shards.block(index).labels]


def test_photographs_become_shards(store: Store, tmp_path: Path) -> None:
    sources = {"words": photos(tmp_path / "w.zip", {"Word": png(10), "it's": png(200)})}
    combined = shard(tmp_path, sources, section(height=8, width=16, channels=3))
    shards = open_dataset(store, combined, "words")
    assert (shards.samples, shards.shape) == (2, (8, 16, 3))
    assert labels(shards) == ["Word", "it's"]
    assert [np.unique(image).tolist() for image in shards.block(0).images] == [[10], [200]]
    facts = one(store, combined).facts
    assert facts["samples"] == facts["read"] == 2
    assert facts["shards"] == [{"object": "00000.lmdb", "samples": 2, "blocks": 1}]
    assert (facts["dropped"], facts["changed"]) == ({}, {"case folded": 1, "characters deleted": 1})
    sheet = store.fetch(one(store, combined).object("contact_sheet.png")).read_bytes()
    assert cv2.imdecode(np.frombuffer(sheet, dtype=np.uint8), cv2.IMREAD_GRAYSCALE) is not None


SAMPLES: dict[str, bytes | None] = {"Word": png(1), "it's": png(2), "!?": png(3), "übel": png(4)}


@pytest.mark.parametrize(
    ("policy", "kept", "dropped"),
    [
        ("delete", ["Word", "it's", "übel"], {"no character of the charset": 1}),
        ("drop", ["Word"], {"no character of the charset": 1, "character outside the charset": 2}),
    ],
)
def test_training_sets_go_without_some_labels(
    policy: str, kept: list[str], dropped: dict[str, int], store: Store, tmp_path: Path
) -> None:
    sources = {"words": photos(tmp_path / "w.zip", SAMPLES)}
    combined = shard(tmp_path, sources, section(train=["words"], label_policy=policy))
    assert labels(open_dataset(store, combined, "words")) == kept
    assert one(store, combined).facts["dropped"] == dropped


@pytest.mark.parametrize("val", [["words"], []])
def test_validation_sets_and_benchmarks_keep_every_sample(val: list[str], store: Store, tmp_path: Path) -> None:
    sources = {"words": photos(tmp_path / "w.zip", SAMPLES)}
    combined = shard(tmp_path, sources, section(val=val, label_policy="drop", limit=2))
    assert labels(open_dataset(store, combined, "words")) == list(SAMPLES)


def test_the_limit_is_for_training_sets(store: Store, tmp_path: Path) -> None:
    sources = {"words": photos(tmp_path / "w.zip", SAMPLES), "more": photos(tmp_path / "m.zip", SAMPLES)}
    combined = shard(tmp_path, sources, section(train=["words"], val=["more"], limit=2))
    assert labels(open_dataset(store, combined, "words")) == ["Word", "it's"]
    assert one(store, combined).facts["read"] == 2
    assert open_dataset(store, combined, "more").samples == 4


def test_bad_samples_are_put_aside_with_place_and_reason(store: Store, tmp_path: Path) -> None:
    samples = {"good": png(1), "bad": b"no picture", "lost": None, "x" * 4097: png(2), "fine": png(3), "well": png(4)}
    combined = shard(tmp_path, {"words": photos(tmp_path / "w.zip", samples)}, section())
    assert labels(open_dataset(store, combined, "words")) == ["good", "fine", "well"]
    manifest = one(store, combined)
    assert (manifest.facts["read"], manifest.facts["samples"], manifest.facts["quarantined"]) == (6, 3, 3)
    expected = ["not a whole picture: 10 bytes", "picture file missing", "label of 4097 bytes, expected at most 4096"]
    for item, number, reason in zip(manifest.facts["quarantine"], (2, 3, 4), expected, strict=True):
        assert item["where"] == f"labels.txt, line {number}: {number - 1}.png"
        assert item["reason"].startswith(reason)
    listed = json.loads(store.fetch(manifest.object("quarantine.json")).read_text())
    assert listed == manifest.facts["quarantine"]


def refusal(tmp_path: Path, capsys: pytest.CaptureFixture[str], sources: dict[str, Any], data: str) -> str:
    with pytest.raises(SystemExit):
        shard(tmp_path, sources, data)
    return capsys.readouterr().out


def test_a_data_set_that_is_mostly_unusable_is_an_error(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sources = {"words": photos(tmp_path / "w.zip", {"good": png(1), "bad": b"x", "lost": None})}
    assert "): 2 of 3 samples are unusable" in refusal(tmp_path, capsys, sources, section())


def test_the_sample_count_is_verified(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sources = {"words": photos(tmp_path / "w.zip", SAMPLES) | {"samples": 5}}
    assert "w.zip): expected 5 samples, found 4" in refusal(tmp_path, capsys, sources, section())


def test_a_training_set_of_which_nothing_is_left_is_an_error(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sources = {"words": photos(tmp_path / "w.zip", {"!": png(1), "?": png(2)})}
    out = refusal(tmp_path, capsys, sources, section(train=["words"]))
    assert "none of 2 samples is left: dropped {'no character of the charset': 2}" in out


def test_validating_on_training_data_is_refused(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = refusal(tmp_path, capsys, {"words": drawn(2)}, section(train=["words"], val=["words"]))
    assert "data set 'words' is in data.train and in data.val" in out


def test_no_room_is_said_before_starting(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    usage = type("Usage", (), {"free": 10 << 30})
    monkeypatch.setattr(stage.shutil, "disk_usage", lambda path: usage)
    out = refusal(tmp_path, capsys, {"words": drawn(2)}, section(height=100_000, width=100_000))
    assert "shards of 20,000,000,000 bytes do not fit on" in out


def test_only_what_shard_reads_is_in_the_key(store: Store, tmp_path: Path) -> None:
    sources = {"words": drawn(3), "more": drawn(3, seed=8)}

    def references(**fields: Any) -> dict[str, str]:
        found: dict[str, str] = shard(tmp_path, sources, section(**fields)).facts["datasets"]
        return found

    first = references(train=["words"])
    assert references(train=["words"], val=["more"]) == first
    limited = references(train=["words"], limit=2)
    assert limited["words"] != first["words"]
    assert limited["more"] == first["more"]
    for key, value in {
        "width": 99, "height": 31, "channels": 3, "fit": "pad_grey", "interpolation": "bicubic", "turn_tall": True,
        "charset": "english94", "space": True,
    }.items():  # fmt: skip
        changed = references(train=["words"], **{key: value})
        assert all(changed[name] != first[name] for name in sources), key
    assert references(val=["words"])["words"] != first["words"]  # a training set goes without labels that are empty
    dropped = references(train=["words"], label_policy="drop")
    assert dropped["words"] != first["words"]
    assert dropped["more"] == first["more"]
    assert references(train=["words"], middle=127.0) == first


def test_pictures_are_fitted_as_the_recipe_says(store: Store, tmp_path: Path) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (40, 18, 3), dtype=np.uint8)
    source = {"words": photos(tmp_path / "w.zip", {"a": bytes(cv2.imencode(".png", noise[:, :, ::-1])[1].tobytes())})}
    how = section(height=8, width=32, channels=3, fit="pad_black", interpolation="bicubic", turn_tall=True)
    image = open_dataset(store, shard(tmp_path, source, how), "words").block(0).images[0]
    np.testing.assert_array_equal(image, fit_picture(noise, from_json(Data, how)))
    assert image[:, :18].any(axis=(0, 2)).all()  # turned, 18 of 32 columns: 8 * 40 / 18 = 17.8
    assert not image[:, 18:].any()


def test_finished_sets_are_found(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = shard(tmp_path, {"words": drawn(3)}, section())
    capsys.readouterr()
    assert shard(tmp_path, {"words": drawn(3)}, section()) == first
    out = capsys.readouterr().out
    assert "shard words: found finished" in out
    assert "shard datasets: found in" in out
    assert not any((store.cache / "work").iterdir())


def task(path: Path, start: int, stop: int, root: Path) -> Task:
    entry = Entry(**drawn(600))
    rules = Rules(data=from_json(Data, section()), charset=LOWER, training=True)
    return Task(entry=entry, root=root, start=start, stop=stop, path=path, rules=rules)


def digests(tmp_path: Path, name: str, cores: set[int], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    folder = tmp_path / name
    folder.mkdir()
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: cores)
    tasks = [task(folder / f"{start}.lmdb", start, start + 300, tmp_path) for start in (0, 300)]
    assert [packed.samples for packed in stage._packed(tasks)] == [300, 300]
    return [hashlib.sha256(task.path.read_bytes()).hexdigest() for task in tasks]


def test_any_number_of_workers_gives_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = digests(tmp_path, "one", {0}, monkeypatch)
    assert digests(tmp_path, "two", {0, 1}, monkeypatch) == alone


def test_ranges_are_rendered_as_a_whole_would_be(tmp_path: Path) -> None:
    pack(task(tmp_path / "a", 298, 302, tmp_path))
    block = ShardSet.open([tmp_path / "a"]).shards[0].block(0)
    expected = list(render(SynthSpec.parse(drawn(600)["source"]), 298, 302))
    assert block.labels == [label for _, label in expected]
    assert (block.images[:, :, :, 0] == np.stack([image for image, _ in expected])).all()


def test_large_sets_are_split_into_shards(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "SHARD_SAMPLES", 100)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
    combined = shard(tmp_path, {"words": drawn(250)}, section())
    facts = one(store, combined).facts
    assert [entry["samples"] for entry in facts["shards"]] == [100, 100, 50]
    found = labels(open_dataset(store, combined, "words"))
    assert found == [label for _, label in render(SynthSpec.parse(drawn(250)["source"]), 0, 250)]


def test_workers_end_when_their_parent_is_killed() -> None:
    """A killed parent cannot tell its workers, so each watches for its end."""
    script = (
        "import multiprocessing, os, time\n"
        "from components.shard.stage import _end_with_parent\n"
        "def work():\n"
        "    _end_with_parent(); print(os.getpid(), flush=True); time.sleep(60)\n"
        "if __name__ == '__main__':\n"
        "    multiprocessing.get_context('fork').Process(target=work).start(); time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout
    worker = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and Path(f"/proc/{worker}").exists():
        time.sleep(0.05)
    parent.stdout.close()
    assert not Path(f"/proc/{worker}").exists()


def test_this_process_has_no_workers_left() -> None:
    assert multiprocessing.active_children() == []
