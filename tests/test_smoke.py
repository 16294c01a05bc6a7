import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from components.recognition.artifacts import Manifest, read_manifest
from components.recognition.checkpoint import load
from components.recognition.decoding import codec_of
from components.recognition.pt.export import export_onnx
from components.recognition.recipe import Export, to_json
from components.recognition.stages import Made, find_or_make
from components.recognition.storage import Store
from components.smoke import stage
from tests.trained import DATA, MODEL, put_trained, write_manifest

SETTINGS = Export(formats=("onnx", "mindir"))
CODEC = codec_of(MODEL, DATA)


def put_file(store: Store, content: bytes, trained: Manifest, export_format: str = "onnx") -> Manifest:
    """Store a manifest of export whose file has this content."""

    def make(folder: Path) -> Made:
        path = folder / f"model.{export_format}"
        path.write_bytes(content)
        facts = {"format": export_format, "data": to_json(DATA), "model": to_json(MODEL)}
        return Made(files={path.name: path}, facts=facts)

    return find_or_make(store, "export", export_format, {"model": trained.reference, "of": str(content[:99])}, make)[0]


def onnx_of(store: Store, trained: Manifest, folder: Path) -> bytes:
    path = folder / "some.onnx"
    export_onnx(load(store.fetch(trained.object("model.safetensors"))), path)
    return path.read_bytes()


def smoke(exported: Manifest, trained: Manifest, folder: Path, tolerance: float = 1e-3) -> Manifest:
    output = folder / "smoke.json"
    stage.run(
        export=to_json(replace(SETTINGS, logit_tolerance=tolerance)),
        exported=write_manifest(folder / "export.json", exported),
        model=write_manifest(folder / "train.json", trained),
        run_tag="r1",
        output=str(output),
    )
    return read_manifest(output)


def failure(exported: Manifest, trained: Manifest, folder: Path, tolerance: float = 1e-3) -> str:
    with pytest.raises(SystemExit):
        smoke(exported, trained, folder, tolerance)
    return str(json.loads((folder / "error.json").read_text())["error"])


def test_an_onnx_file_is_proven_and_measured(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained = put_trained(store, seed=1)
    exported = put_file(store, onnx_of(store, trained, tmp_path), trained)
    made = smoke(exported, trained, tmp_path)
    facts = made.facts
    assert (facts["format"], facts["samples"], facts["texts_equal"], facts["ok"]) == ("onnx", 64, 64, True)
    assert facts["max_logit_difference"] <= facts["tolerance"] == 1e-3
    assert facts["runtime"].startswith("onnxruntime 1.")
    assert facts["file_bytes"] == exported.object("model.onnx").bytes
    assert facts["latency_ms_batch1"] > 0
    assert made.metrics["onnx/images_per_s_batch64"] == facts["images_per_s_batch64"] > 0
    capsys.readouterr()
    assert smoke(exported, trained, tmp_path) == made
    assert "found finished" in capsys.readouterr().out


def test_a_mindir_file_of_weights_trained_in_pytorch_is_proven(store: Store, tmp_path: Path) -> None:
    trained = put_trained(store, seed=1)
    path = tmp_path / "model.mindir"
    weights = store.fetch(trained.object("model.safetensors"))
    code = (
        "import sys; from pathlib import Path; from components.recognition import checkpoint, frameworks;"
        "weights, path = map(Path, sys.argv[1:]);"
        "frameworks.twin('mindspore', 'export').export_mindir(checkpoint.load(weights), path)"
    )
    subprocess.run([sys.executable, "-c", code, str(weights), str(path)], check=True, capture_output=True)
    facts = smoke(put_file(store, path.read_bytes(), trained, "mindir"), trained, tmp_path).facts
    assert (facts["texts_equal"], facts["ok"]) == (64, True)
    assert facts["runtime"].startswith("mindspore 2.")


def answer_with(monkeypatch: pytest.MonkeyPatch, store: Store, trained: Manifest, change: float) -> None:
    """Have every file give the logits of this training, changed by so much."""
    with np.load(store.fetch(trained.object("reference.npz"))) as reference:
        logits = reference["logits"] + np.float32(change)
    found = {"runtime": "none", "latency_ms_batch1": 1.0, "images_per_s_batch64": 1.0}
    monkeypatch.setattr(stage, "run_probe", lambda *told: (found, logits))


def test_a_file_of_other_weights_does_not_pass(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = put_trained(store, seed=1)
    answer_with(monkeypatch, store, put_trained(store, seed=2), 0.0)
    told = failure(put_file(store, b"any", trained), trained, tmp_path)
    assert told.startswith("format onnx does not agree with the trained recogniser: ")
    assert "64 of 64 texts" not in told


def test_a_difference_above_the_tolerance_does_not_pass_though_texts_are_equal(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = put_trained(store, seed=1)
    answer_with(monkeypatch, store, trained, 0.0625)
    exported = put_file(store, b"any", trained)
    assert "64 of 64 texts are equal, the largest logit difference is 6.25e-02, export.logit_tolerance is 6.00e-02" in (
        failure(exported, trained, tmp_path, tolerance=0.06)
    )
    assert smoke(exported, trained, tmp_path, tolerance=0.07).facts["ok"]


@pytest.mark.parametrize("export_format", ["onnx", "mindir"])
def test_a_damaged_file_is_an_error_that_names_its_format(store: Store, tmp_path: Path, export_format: str) -> None:
    trained = put_trained(store, seed=1)
    told = failure(put_file(store, b"\x08\x08" + b"cut off" * 99, trained, export_format), trained, tmp_path)
    assert told.startswith(f"format {export_format}: the file does not run: ")


def test_a_file_of_another_training_is_refused(store: Store, tmp_path: Path) -> None:
    one, other = put_trained(store, seed=1), put_trained(store, seed=2)
    assert f"was made from {one.reference}, expected {other.reference}" in failure(
        put_file(store, b"anything", one), other, tmp_path
    )


def test_a_format_without_a_runtime_here_is_an_error(store: Store, tmp_path: Path) -> None:
    trained = put_trained(store, seed=1)
    told = failure(put_file(store, b"om", trained, "om"), trained, tmp_path)
    assert told.startswith("format om runs on its own chip alone, runtimes here are for onnx, mindir")


def test_a_runtime_that_crashes_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crashing = tmp_path / "python"
    crashing.write_text("#!/bin/sh\necho broken file >&2\nkill -SEGV $$\n", encoding="utf-8")
    crashing.chmod(0o755)
    (tmp_path / "file").touch()
    monkeypatch.setattr(sys, "executable", str(crashing))
    with pytest.raises(RuntimeError, match="format onnx: its runtime ended with code -11: broken file"):
        stage.run_probe("onnx", tmp_path / "file", tmp_path / "file", 127.5, tmp_path)


def logits_of(texts: list[str]) -> np.ndarray:
    """Return logits (N, 4, 37) that read as the texts of at most two different characters."""
    logits = np.zeros((len(texts), 4, CODEC.classes), dtype=np.float32)
    for row, text in zip(logits, texts, strict=True):
        row[:, 0] = 1
        for place, number in enumerate(CODEC.encode(text)):
            row[place, number] = 5
    return logits


def test_agreement_counts_equal_texts_and_the_largest_difference() -> None:
    expected = logits_of(["a", "bc", "x"])
    found = logits_of(["a", "bd", "x"])
    found[0, 3, 5] += 0.25
    assert stage.agreement(found, expected, CODEC, "here") == (2, 5.0)
    assert stage.agreement(expected + np.float32(0.5), expected, CODEC, "here") == (3, 0.5)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda x: x[:, :, :36], "here: logits have 36 classes, charset lower36 needs 37"),
        (lambda x: x[:, :3], r"here: logits have shape \(1, 3, 37\), the trained recogniser's \(1, 4, 37\)"),
        (lambda x: np.where(np.arange(37) == 1, np.nan, x), "here: 4 of 148 logits are not finite"),
    ],
)
def test_what_is_no_set_of_logits_is_an_error(spoil: object, message: str) -> None:
    expected = logits_of(["a"])
    assert callable(spoil)
    with pytest.raises(RuntimeError, match=message):
        stage.agreement(spoil(expected), expected, CODEC, "here")
