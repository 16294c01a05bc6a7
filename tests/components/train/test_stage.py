import dataclasses
import json
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.train import stage, start
from components.train.memory import Machine
from components.train.start import find_start, fitted_start, start_without
from components.train.watch import Sender
from tests.components.train.trained import lively, put_trained
from tests.mlflow_server import mlflow_uri  # noqa: F401 (a fixture)
from tests.wordmill.training.tiny import DATA, MODEL, TRAIN, write_set
from wordmill.models import checkpoint
from wordmill.models.pretrained import WEIGHTS
from wordmill.recipe.memory import MIB, NEED, SHARE
from wordmill.recipe.parsing import to_json
from wordmill.recipe.sections import OPERATION, Data, Train
from wordmill.shards.index import INDEX
from wordmill.store import tracking
from wordmill.store.artifacts import Manifest, read_manifest, to_document
from wordmill.store.storage import Store


def combined_manifest(store: Store, folder: Path) -> Path:
    """Store two data sets as the shard stage does and write its combined manifest."""
    references, indices = {}, {}
    for name, samples in (("t", 64), ("v", 20)):
        index = write_set(folder / name, samples)
        objects = store.put_file(folder / name, name), store.put_file(index, INDEX)
        manifest = Manifest(stage="shard", name=name, key=f"key-{name}", inputs={}, git_commit="", objects=objects)
        store.put_json(f"manifests/{manifest.reference}.json", to_document(manifest))
        references[name], indices[name] = manifest.reference, objects[1].sha256
    facts = {"datasets": references, "indices": indices}
    both = Manifest(stage="shard", name="all", key="all", inputs={}, git_commit="", facts=facts)
    path = folder / "shards.json"
    path.write_text(json.dumps(to_document(both)))
    return path


def run(manifest: Path, output: Path, processes: int = 2, train: Train = TRAIN, gang: str = "") -> str:
    sections = {"data": to_json(DATA), "model": to_json(MODEL), "train": to_json(train)}
    return stage.run(
        recipe="tiny",
        **sections,
        shards=str(manifest),
        device="cpu",
        processes=processes,
        gang=gang,
        run_tag="tag",
        output=str(output),
    )


def test_training_is_stored_once_and_found_afterwards(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shard_manifest = combined_manifest(store, tmp_path)
    reference = run(shard_manifest, tmp_path / "first.json")
    manifest = read_manifest(tmp_path / "first.json")
    assert reference == manifest.reference
    assert (manifest.facts["train_sets"], manifest.facts["val_sets"]) == (["shard/key-t"], ["shard/key-v"])
    indices = json.loads(shard_manifest.read_text())["facts"]["indices"]
    assert (manifest.inputs["train_sets"], manifest.inputs["val_sets"]) == ([indices["t"]], [indices["v"]])
    assert manifest.inputs["data"] == {
        "charset": "lower36", "space": False, "height": 32, "width": 100, "channels": 1, "middle": 127.5,
        "shares": {}, "fractions": {}, "epoch_samples": 0,
    }  # fmt: skip
    assert manifest.inputs["start"] is None
    assert [entry.name for entry in manifest.objects] == [
        "model.safetensors", "last.safetensors", "reference.npz", "log.txt",
    ]  # fmt: skip
    assert checkpoint.load(store.fetch(manifest.object("model.safetensors"))).model == MODEL
    with np.load(store.fetch(manifest.object("reference.npz")), allow_pickle=False) as reference_arrays:
        assert reference_arrays["images"].shape == (20, 32, 100, 1)
    assert (manifest.facts["framework"], manifest.facts["processes"], manifest.facts["images"]) == ("pytorch", 2, 64)
    assert set(manifest.curves) == {
        "train/loss", "train/lr", "train/images_per_s", "train/step_ms", "train/data_wait", "train/memory_gib",
        "train/unfit_labels", "val/accuracy", "val/loss",
    }  # fmt: skip
    assert not set(OPERATION) & set(manifest.inputs["train"])
    assert manifest.curves["val/loss"][-1][0] == 4
    assert manifest.facts["val_accuracy"] == max(value for _, value, _ in manifest.curves["val/accuracy"])
    printed = capsys.readouterr().out
    assert "train  64/64 images  100.0 %" in printed
    assert printed.count("warning: training goes on without live metrics: MLFLOW_TRACKING_URI is not set") == 1
    for folder in ("work", "training"):
        assert not list((store.cache / folder).iterdir())
    assert list(store.keys("checkpoints/")) == []

    monkeypatch.setattr(subprocess, "Popen", None)  # nothing may be started again
    assert run(shard_manifest, tmp_path / "second.json") == reference
    assert json.loads((tmp_path / "second.json").read_text()) == json.loads((tmp_path / "first.json").read_text())
    other = dataclasses.replace(TRAIN, checkpoint_minutes=1.0, step_timeout_minutes=1.0)  # no result depends on these
    assert run(shard_manifest, tmp_path / "second.json", train=other) == reference


def test_parts_that_memory_asks_for_are_in_the_key_and_recorded(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shard_manifest = combined_manifest(store, tmp_path)
    whole = run(shard_manifest, tmp_path / "whole.json", processes=1)
    process_mib, pixel_kib = NEED["pytorch"]["crnn/compact"]
    small = (process_mib * MIB + 8 * 32 * 100 * pixel_kib * 1024) / SHARE  # room for half of a batch of 16
    monkeypatch.setattr(Machine, "memory_bytes", lambda machine: int(small) + 8)
    assert run(shard_manifest, tmp_path / "parts.json", processes=1) != whole
    manifest = read_manifest(tmp_path / "parts.json")
    assert manifest.inputs["train"]["accumulation"] == 2
    assert read_manifest(tmp_path / "whole.json").inputs["train"]["accumulation"] == 1
    assert checkpoint.load(store.fetch(manifest.object("model.safetensors"))).train.accumulation == 2
    assert "a process's batch goes in 2 parts of 8 pictures" in capsys.readouterr().out


def test_the_stage_itself_imports_no_framework() -> None:
    code = "import sys, components.train.stage; print({'torch', 'mindspore', 'mlflow'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"


def test_what_the_user_got_wrong_is_said_before_anything_starts(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shard_manifest = combined_manifest(store, tmp_path)
    monkeypatch.setattr(subprocess, "Popen", None)
    with pytest.raises(SystemExit):
        run(shard_manifest, tmp_path / "out.json", processes=3)
    error = json.loads((tmp_path / "error.json").read_text())["error"]
    assert error == (
        "train.global_batch is 16, which 3 processes cannot share equally: the nearest that they can is 15"
    )
    assert f"error: train crnn: {error}" in capsys.readouterr().out


def promote(store: Store, recipe: str, seed: int) -> Manifest:
    """Store a trained recogniser and make it the recipe's champion."""
    trained = put_trained(store, seed)
    run_id = tracking.open_run(store, f"{recipe}-{seed}", recipe).run_id
    name = f"wordmill-{recipe}"
    version = tracking.register(
        name, model=trained.reference, source="s3://x/y", run_id=run_id, description=""
    )  # fmt: skip
    tracking.set_alias(name, "champion", version)
    return trained


@pytest.mark.usefixtures("mlflow_uri")
def test_training_starts_from_a_recipes_champion_and_anew_from_another(store: Store, tmp_path: Path) -> None:
    shard_manifest, recipe = combined_manifest(store, tmp_path), f"r{uuid.uuid4().hex[:8]}"
    still = dataclasses.replace(TRAIN, start_from=recipe, lr=0.0)
    references = []
    for seed in (1, 2):
        champion = promote(store, recipe, seed).object("model.safetensors")
        references.append(run(shard_manifest, tmp_path / "out.json", processes=1, train=still))
        manifest = read_manifest(tmp_path / "out.json")
        assert manifest.inputs["start"] == manifest.facts["start_weights"]["sha256"] == champion.sha256
        ours, theirs = (
            checkpoint.load(store.fetch(entry)).tensors for entry in (manifest.object("last.safetensors"), champion)
        )
        assert all(np.array_equal(ours[name], theirs[name]) for name in theirs if ".running_" not in name)
    assert references[0] != references[1]
    assert run(shard_manifest, tmp_path / "again.json", processes=1, train=still) == references[1]


@pytest.mark.usefixtures("mlflow_uri")
def test_a_recipe_without_a_champion_is_refused(store: Store) -> None:
    with pytest.raises(ValueError, match=r"train.start_from: recipe 'nobody' has no champion .* train it first"):
        find_start(store, "nobody")
    assert find_start(store, "small") == WEIGHTS  # they come with the project


def test_a_champion_that_has_learnt_a_set_gives_way_to_what_it_started_from(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = tmp_path / "first.safetensors"
    checkpoint.save(first, lively(1))
    facts = {"start_weights": dataclasses.asdict(store.put_file(first, "start.safetensors"))}
    champion = put_trained(store, 2)  # which has learnt the set a
    own = store.fetch(champion.object("model.safetensors"))
    monkeypatch.setattr(start, "find_champion", lambda store, recipe: dataclasses.replace(champion, facts=facts))
    assert start_without(store, "r", "b") == own
    again = start_without(store, "r", "a")
    assert again is not None
    assert again.read_bytes() == first.read_bytes()
    monkeypatch.setattr(start, "find_champion", lambda store, recipe: champion)  # of which that is not known
    assert start_without(store, "r", "a") == own
    monkeypatch.setattr(start, "find_champion", lambda store, recipe: None)
    assert start_without(store, "r", "a") is None


def test_mlflow_is_not_told_of_a_training_of_no_recipe(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    Sender(store, "tag", "").send([("train/loss", 1.0, 1, 0.0)])
    assert capsys.readouterr().out == ""
    Sender(store, "tag", "tiny").send([("train/loss", 1.0, 1, 0.0)])
    assert "warning: training goes on without live metrics" in capsys.readouterr().out


def test_the_manifest_says_what_is_new_of_weights_for_other_characters(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, train = (
        tmp_path / "w.safetensors",
        dataclasses.replace(TRAIN, start_from="w.safetensors", start_charset="union"),
    )
    checkpoint.save(path, lively(1))
    assert fitted_start(None, DATA, MODEL, TRAIN) == {}
    spaced = dataclasses.replace(DATA, space=True)
    assert fitted_start(path, spaced, MODEL, train) == {"start": {"kept": 36, "new": " ", "forgotten": ""}}
    told = "train: starts from w.safetensors: 36 characters keep their weights; 1 new: U+0020"
    assert capsys.readouterr().out == f"{told}\n"
    assert fitted_start(path, DATA, MODEL, TRAIN) == {"start": {"kept": 36, "new": "", "forgotten": ""}}
    assert capsys.readouterr().out == ""


def test_training_starts_from_a_file_or_says_that_there_is_none(store: Store, tmp_path: Path) -> None:
    assert find_start(store, "") is None
    path = tmp_path / "weights.safetensors"
    with pytest.raises(ValueError, match=rf"train.start_from: {path}: no such file"):
        find_start(store, str(path))
    path.write_bytes(b"weights")
    assert find_start(store, str(path)) == path


def test_what_is_left_out_of_training_is_in_the_key_and_the_job_where_the_recipe_says_so(
    store: Store, tmp_path: Path
) -> None:
    shards = read_manifest(combined_manifest(store, tmp_path))
    np.save(tmp_path / "t.npy", np.array([3], dtype=np.int64))
    entry = store.put_file(tmp_path / "t.npy", "t.npy")
    leaks = Manifest(stage="shard", name="leaks", key="leaks", inputs={}, git_commit="", objects=(entry,))
    store.put_json(f"manifests/{leaks.reference}.json", to_document(leaks))
    found = {"manifest": leaks.reference, "sets": {"t": {"found": 1, "of": {"b": 1}, "digest": entry.sha256}}}
    told = dataclasses.replace(shards, facts=shards.facts | {"leaks": found})
    out = dataclasses.replace(DATA, leave_out_leaks=True)

    def inputs(data: Data, shards: Manifest) -> dict[str, Any]:
        return stage.training_inputs(data, MODEL, TRAIN, shards, None, "cpu")

    assert inputs(DATA, told) == inputs(DATA, shards)
    assert inputs(out, told) == inputs(DATA, shards) | {"left_out": [entry.sha256]}
    assert inputs(out, shards)["left_out"] == [None]
    jobs = [stage.make_job(store, data, MODEL, TRAIN, told, None, "cpu", 1, tmp_path, "") for data in (DATA, out)]
    assert jobs[0].left_out == ()
    assert [np.load(path).tolist() for path in jobs[1].left_out] == [[3]]
