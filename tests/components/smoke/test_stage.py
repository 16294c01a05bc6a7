import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest

from components.export import stage as export
from components.smoke import stage
from tests.components.smoke import ascend_doubles
from tests.components.smoke.smoked import FEW, SETTINGS, described, failure, onnx_of, put, put_files, put_onnx, smoke
from tests.components.train.trained import lively, put_checkpoint, put_trained, write_manifest
from wordmill.inference import card
from wordmill.inference.runtimes import INSTALL
from wordmill.recipe.parsing import to_json
from wordmill.recipe.sections import Export, Model
from wordmill.store.artifacts import Manifest, read_manifest
from wordmill.store.stages import StageResult, find_or_make
from wordmill.store.storage import Store

RARE = Model(name="rare", backbone="compact", neck="bilstm", hidden=16, layers=1, max_length=8, decoder_hidden=16)


def write(export_format: str, trained: Manifest, folder: Path, settings: Export) -> Manifest:
    """Write a format by the export stage."""
    written = folder / "written.json"
    export.run(export_format=export_format, export=to_json(settings), run_tag="r1", output=str(written),
               model=write_manifest(folder / "train.json", trained))  # fmt: skip
    return read_manifest(written)


def test_an_onnx_file_is_proven_and_measured(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained = put_checkpoint(store, lively(1), 64)
    exported = put_onnx(store, trained, onnx_of())
    made = smoke(exported, trained, tmp_path)
    facts = made.facts
    assert (facts["format"], facts["made"], facts["precision"]) == ("onnx", True, "fp32")
    assert (facts["samples"], facts["texts_equal"], facts["texts_needed"]) == (64, 64, 64)
    assert facts["batches"] == [1, 16, 64]
    assert facts["max_logit_difference"] <= facts["tolerance"] == 1e-3
    assert facts["max_confidence_difference"] <= 1e-5
    assert facts["runtime"].startswith("onnxruntime 1.")
    assert facts["file_bytes"] == exported.object("model.onnx").bytes
    assert 0 < facts["latency_ms_batch1"] <= facts["latency_p99_ms_batch1"]
    assert 2**20 < facts["memory_bytes"] < 2**30
    assert set(made.metrics) == {f"onnx/{name}" for name in stage.MEASURED}
    assert made.metrics["onnx/images_per_s_batch16"] == facts["images_per_s_batch16"] > 0
    assert made.metrics["onnx/images_per_s_batch64"] == facts["images_per_s_batch64"] > 0
    capsys.readouterr()
    assert smoke(exported, trained, tmp_path) == made
    assert "found finished" in capsys.readouterr().out


def test_files_of_fixed_batches_are_each_proven_on_every_image(store: Store, tmp_path: Path) -> None:
    trained = put(store, 1)
    # 20 images are two batches of 8 and one of 4, which is filled up.
    files = {str(size): (f"model_b{size}.onnx", onnx_of(batch=size)) for size in (1, 8)}
    facts = smoke(put_files(store, trained, "onnx", files), trained, tmp_path).facts
    assert (facts["batches"], facts["texts_equal"], facts["texts_needed"]) == ([1, 8], FEW, FEW)
    assert facts["file_bytes"] == sum(len(content) for _, content in files.values())


def test_a_mindir_file_of_weights_trained_in_pytorch_is_proven(store: Store, tmp_path: Path) -> None:
    trained = put(store, 1)
    path = tmp_path / "model.mindir"
    stored = store.fetch(trained.object("model.safetensors"))
    code = (
        "import sys; from pathlib import Path; from wordmill.models import checkpoint;"
        "from wordmill.recipe import frameworks;"
        "weights, path = map(Path, sys.argv[1:]);"
        "frameworks.twin('mindspore', 'models.export').export_mindir(checkpoint.load(weights), path)"
    )
    subprocess.run([sys.executable, "-c", code, str(stored), str(path)], check=True, capture_output=True)
    exported = put_files(store, trained, "mindir", {"any": (path.name, path.read_bytes())})
    facts = smoke(exported, trained, tmp_path).facts
    assert (facts["texts_equal"], facts["texts_needed"]) == (FEW, FEW)
    assert facts["runtime"].startswith("mindspore 2.")


@pytest.mark.parametrize(
    ("settings", "precision", "needed", "batches"),
    [
        (Export(formats=("onnx",)), "fp32", 64, [1, 16, 64]),
        # 90 % of 64 are 57.6
        pytest.param(Export(formats=("onnx_int8",)), "int8", 58, [1, 16, 64], marks=pytest.mark.slow),
        (Export(formats=("om",), batches=(1, 8, 64), gears=True, aipp=True), "fp16", 64, [1, 8, 64]),
        pytest.param(Export(formats=("lite",), lite_device="ascend"), "fp16", 64, [1, 16, 64], marks=pytest.mark.slow),
    ],
    ids=["onnx", "onnx_int8", "om", "lite"],
)
def test_what_export_writes_is_proven(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: Export, precision: str, needed: int,
    batches: list[int],
) -> None:  # fmt: skip
    ascend_doubles.install_converters(monkeypatch, tmp_path)
    log = ascend_doubles.install(monkeypatch, tmp_path)
    trained = put_trained(store, seed=1)
    [export_format] = settings.formats
    facts = smoke(write(export_format, trained, tmp_path, settings), trained, tmp_path, settings).facts
    assert (facts["precision"], facts["texts_needed"], facts["batches"]) == (precision, needed, batches)
    assert facts["texts_equal"] >= needed
    if export_format == "om":  # with aipp it takes bytes, with gears in their sizes alone
        assert {line for line in log.read_text().splitlines() if "infer" in line} == {
            f"infer dymbatch ({size}, 32, 100, 1)" for size in batches
        }


def test_a_file_with_a_decoder_is_proven_in_what_it_decodes_itself(store: Store, tmp_path: Path) -> None:
    trained = put_checkpoint(store, lively(11, RARE), FEW)
    exported = write("onnx", trained, tmp_path, SETTINGS)
    facts = smoke(exported, trained, tmp_path).facts
    assert (facts["texts_equal"], facts["tolerance"]) == (FEW, 1e-3)
    assert facts["max_confidence_difference"] <= 1e-5
    assert "pair_texts_equal" not in facts


def with_step_of(store: Store, one: Manifest, other: Manifest) -> Manifest:
    """Store one manifest's files with the other's decoder, and a card that knows it."""

    def make(folder: Path) -> StageResult:
        for entry in one.objects:
            of = other if entry.name == "decoder_step.onnx" else one
            shutil.copyfile(store.fetch(of.object(entry.name)), folder / entry.name)
        told = json.loads((folder / card.CARD).read_text(encoding="utf-8"))
        told["beam"]["step"]["file"]["sha256"] = other.object("decoder_step.onnx").sha256
        (folder / card.CARD).write_text(json.dumps(told), encoding="utf-8")
        return StageResult(files={path.name: path for path in folder.iterdir()}, facts=one.facts)

    return find_or_make(store, "export", "onnx", {**one.inputs, "step_of": other.reference}, make)[0]


def test_an_encoder_and_a_decoder_for_a_beam_search_are_proven_too(store: Store, tmp_path: Path) -> None:
    settings = Export(formats=("onnx",), beam=True)
    one, other = (put_checkpoint(store, lively(seed, RARE), FEW) for seed in (11, 12))
    exported = write("onnx", one, tmp_path, settings)
    assert smoke(exported, one, tmp_path, settings).facts["pair_texts_equal"] == FEW
    spoilt = with_step_of(store, exported, write("onnx", other, tmp_path, settings))
    assert re.fullmatch(
        r"format onnx: encoder.onnx and decoder_step.onnx do not agree with the trained recogniser: 1?\d of 20 texts "
        r"are equal, all must be",
        failure(spoilt, one, tmp_path),
    )


def test_what_export_could_not_make_is_passed_on_with_its_reason(store: Store, tmp_path: Path) -> None:
    trained = put(store, 1)
    facts = {"format": "om", "made": False, "reason": "CANN's atc is not on PATH"}
    exported = find_or_make(
        store, "export", "om", {"model": trained.reference}, lambda _: StageResult(files={}, facts=facts)
    )
    made = smoke(exported[0], trained, tmp_path)
    assert (made.facts, made.metrics, made.objects) == (facts, {}, ())


@pytest.mark.parametrize(("export_format", "package"), [("lite", "mindspore_lite"), ("om", "ais_bench")])
def test_a_runtime_that_is_not_installed_is_named_with_what_brings_it(
    store: Store, tmp_path: Path, export_format: str, package: str
) -> None:
    trained = put(store, 1)
    told = failure(put_files(store, trained, export_format, {"1": ("model", b"a file")}), trained, tmp_path)
    assert told.startswith(f"format {export_format}: its runtime is not here, No module named '{package}'")
    assert INSTALL[export_format] in told


@pytest.mark.parametrize("device", [pytest.param("cpu", marks=pytest.mark.slow), "ascend"])
def test_a_lite_file_is_run_on_its_device(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: Literal["cpu", "ascend"]
) -> None:
    log = ascend_doubles.install(monkeypatch, tmp_path)
    trained = put(store, 1)
    content = onnx_of(decoded=False)
    files = {"any": ("model_lite.mindir", content)}
    exported = put_files(store, trained, "lite", files, told=described("lite") | {"device": device})
    facts = smoke(exported, trained, tmp_path).facts
    assert (facts["texts_equal"], facts["runtime"]) == (FEW, f"mindspore_lite 2.9.0, {device}")
    said = log.read_text().splitlines()
    assert said[0] == f"build model_lite.mindir MINDIR on ['{device}'] {0 if device == 'ascend' else None}"
    # The file stands at batch 1; other sizes come in the order in which they are tried.
    assert said[1:3] == ["resize [[16, 1, 32, 100]]", "resize [[64, 1, 32, 100]]"]


def test_om_files_of_fixed_batches_are_run_in_sessions_of_their_own(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = ascend_doubles.install(monkeypatch, tmp_path)
    trained = put(store, 1)
    files = {str(size): (f"model_b{size}.om", onnx_of(batch=size, decoded=False)) for size in (1, 8)}
    exported = put_files(store, trained, "om", files)
    facts = smoke(exported, trained, tmp_path).facts
    assert (facts["texts_equal"], facts["batches"], facts["runtime"]) == (FEW, [1, 8], "ais_bench, ascend")
    said = log.read_text().splitlines()
    assert said[:2] == ["open 0 model_b1.om", "open 0 model_b8.om"]
    assert set(said[2:]) == {"infer static (1, 1, 32, 100)", "infer static (8, 1, 32, 100)"}


def test_an_om_file_with_gears_is_run_in_no_other_batch(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = ascend_doubles.install(monkeypatch, tmp_path)
    trained = put(store, 1)
    content = onnx_of(decoded=False)
    files = {"any": ("model.om", content)}
    exported = put_files(store, trained, "om", files, told=described("om") | {"gears": [1, 8]})
    facts = smoke(exported, trained, tmp_path).facts
    assert (facts["texts_equal"], facts["batches"]) == (FEW, [1, 8])
    said = log.read_text().splitlines()
    assert said[0] == "open 0 model.om"
    assert set(said[1:]) == {"infer dymbatch (1, 1, 32, 100)", "infer dymbatch (8, 1, 32, 100)"}
