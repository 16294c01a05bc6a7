import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from components.export.stage import run
from components.recognition.artifacts import Manifest, read_manifest
from components.recognition.image import normalise
from components.recognition.storage import Store
from tests.trained import put_trained, write_manifest

# A stand-in for CANN's converter: writes down what it was told, and behaves as ATC_DOES says.
ATC = """#!/bin/sh
echo "$@" >> "$(dirname "$0")/told"
for argument in "$@"; do case "$argument" in --output=*) output="${argument#--output=}";; esac; done
case "$ATC_DOES" in
  fail) echo "ATC run failed, E10001: Value is invalid"; exit 1;;
  nothing) echo "ATC run success"; exit 0;;
  suffix) echo converted > "${output}_linux_aarch64.om";;
  *) echo converted > "$output.om";;
esac
"""


@pytest.fixture
def model(store: Store, tmp_path: Path) -> str:
    return write_manifest(tmp_path / "train.json", put_trained(store, seed=1))


@pytest.fixture
def atc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cann"
    folder.mkdir()
    (folder / "atc").write_text(ATC, encoding="utf-8")
    (folder / "atc").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("WORDMILL_SOC_VERSION", "Ascend910B3")
    return folder / "told"


def export(export_format: str, model: str, folder: Path) -> Manifest:
    output = folder / f"{export_format}.json"
    run(export_format=export_format, model=model, run_tag="r1", output=str(output))
    return read_manifest(output)


def failure(export_format: str, model: str, folder: Path) -> str:
    with pytest.raises(SystemExit):
        export(export_format, model, folder)
    return str(json.loads((folder / "error.json").read_text())["error"])


def test_onnx_says_how_it_is_used_and_reads_as_the_trained_recogniser(
    store: Store, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = export("onnx", model, tmp_path)
    entry = made.object("model.onnx")
    assert made.inputs == {"model": read_manifest(model).reference}
    assert made.facts["bytes"] == entry.bytes
    assert made.facts["input"] == {
        "name": "images", "shape": ["N", 1, 32, 100], "layout": "NCHW", "dtype": "float32", "range": [-1.0, 1.0]
    }  # fmt: skip
    assert (made.facts["charset"], made.facts["decode"]) == ("lower36", "ctc greedy, blank 0")
    assert made.facts["framework_version"].startswith("torch 2.")
    with np.load(store.fetch(read_manifest(model).object("reference.npz"))) as reference:
        session = onnxruntime.InferenceSession(str(store.fetch(entry)), providers=["CPUExecutionProvider"])
        (logits,) = session.run(["logits"], {"images": normalise(reference["images"], 127.5)})
        assert np.abs(logits - reference["logits"]).max() < 1e-4
    capsys.readouterr()
    assert export("onnx", model, tmp_path) == made
    assert "found finished" in capsys.readouterr().out


def test_weights_trained_in_pytorch_become_a_mindir_file(store: Store, model: str, tmp_path: Path) -> None:
    # In a process of its own, for others of these tests have loaded protobuf in a way that MindSpore cannot bear.
    output = tmp_path / "mindir.json"
    told = {"--export-format": "mindir", "--model": model, "--run-tag": "r1", "--output": str(output)}
    command = [sys.executable, "-m", "components.export", *(word for pair in told.items() for word in pair)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    made = read_manifest(output)
    assert done.stdout.splitlines()[-1] == made.reference
    assert made.facts["framework_version"].startswith("mindspore 2.")
    weights = store.fetch(read_manifest(model).object("model.safetensors"))
    assert store.fetch(made.object("model.mindir")).stat().st_size > 0.95 * weights.stat().st_size


def test_om_has_one_file_per_batch_size_made_for_the_named_chip(
    store: Store, model: str, tmp_path: Path, atc: Path
) -> None:
    made = export("om", model, tmp_path)
    assert [entry.name for entry in made.objects] == ["model_b1.om", "model_b16.om", "model_b64.om"]
    assert store.fetch(made.object("model_b16.om")).read_text() == "converted\n"
    assert (made.facts["batches"], made.facts["soc_version"]) == ([1, 16, 64], "Ascend910B3")
    commands = atc.read_text().splitlines()
    assert len(commands) == 3
    for command, batch in zip(commands, (1, 16, 64), strict=True):
        told = command.split()
        assert {"--framework=5", "--soc_version=Ascend910B3", f"--input_shape=images:{batch},1,32,100"} <= set(told)
        assert told[0].startswith("--model=")
        assert told[0].endswith("/model.onnx")


def test_om_for_another_system_is_found_under_its_longer_name(
    model: str, tmp_path: Path, atc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATC_DOES", "suffix")
    names = [entry.name for entry in export("om", model, tmp_path).objects]
    assert names == ["model_b1.om", "model_b16.om", "model_b64.om"]


@pytest.mark.parametrize(
    ("does", "said"),
    [
        ("fail", "ended with code 1: ATC run failed, E10001: Value is invalid"),
        ("nothing", "ended well but wrote no model_b1.om: ATC run success"),
    ],
)
def test_om_fails_with_what_atc_said(
    does: str, said: str, model: str, tmp_path: Path, atc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATC_DOES", does)
    told = failure("om", model, tmp_path)
    assert told.startswith("format om: ")
    assert said in told


def test_om_without_cann_or_chip_says_what_is_missing(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WORDMILL_SOC_VERSION", raising=False)
    assert "WORDMILL_SOC_VERSION is not set" in failure("om", model, tmp_path)
    monkeypatch.setenv("WORDMILL_SOC_VERSION", "Ascend910B3")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert failure("om", model, tmp_path).startswith("format om: CANN's atc is not on PATH")


def test_an_unknown_format_is_refused_with_the_nearest(model: str, tmp_path: Path) -> None:
    assert "export format 'onx': did you mean 'onnx'?" in failure("onx", model, tmp_path)
