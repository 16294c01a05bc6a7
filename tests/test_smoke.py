import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import pytest

from components.export import stage as export
from components.recognition import card
from components.recognition.artifacts import Manifest, read_manifest
from components.recognition.charset import load_charset
from components.recognition.checkpoint import Checkpoint
from components.recognition.decoding import codec_of
from components.recognition.pt.export import export_onnx
from components.recognition.pt.model import build
from components.recognition.pt.weights import dump
from components.recognition.recipe import Export, Model, to_json
from components.recognition.runtimes import INSTALL
from components.recognition.stages import Made, find_or_make
from components.recognition.storage import Store
from components.smoke import launch, stage
from components.smoke.parity import Agreement, agreement, logit_tolerance
from tests import ascend_doubles
from tests.trained import DATA, MODEL, lively, put_checkpoint, put_trained, write_manifest

SETTINGS = Export(formats=("onnx", "mindir"))
CODEC = codec_of(MODEL, DATA)
RARE = Model(name="rare", backbone="compact", neck="bilstm", hidden=16, layers=1, max_length=8, decoder_hidden=16)
STEPS = 25
FEW = 20  # pictures, for what takes no more


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "MEASURE_S", 0.01)


def put(store: Store, seed: int) -> Manifest:
    return put_checkpoint(store, lively(seed), FEW)


def described(export_format: str) -> dict[str, Any]:
    return card.describe(DATA, MODEL, CODEC.charset, STEPS, decoded=export_format == "onnx")


def put_files(
    store: Store,
    trained: Manifest,
    export_format: str,
    files: dict[str, tuple[str, bytes]],
    *,
    told: dict[str, Any] | None = None,
    **facts: Any,
) -> Manifest:
    """Store a manifest of export with files by size of batch, each a name and its content, and a card."""
    digests = [{"name": name, "sha256": hashlib.sha256(content).hexdigest(), "batch": size}
               for size, (name, content) in files.items()]  # fmt: skip
    told = {"files": {export_format: digests}, "device": "cpu", **(told or described(export_format))}

    def make(folder: Path) -> Made:
        (folder / card.CARD).write_text(json.dumps(told), encoding="utf-8")
        for name, content in files.values():
            (folder / name).write_bytes(content)
        known = {"format": export_format, "made": True, "precision": "fp32",
                 "data": to_json(DATA), "model": to_json(MODEL),
                 "files": {size: name for size, (name, _) in files.items()}, **facts}  # fmt: skip
        return Made(files={path.name: path for path in folder.iterdir()}, facts=known)

    inputs = {"model": trained.reference, "of": str(files), "told": told}
    return find_or_make(store, "export", export_format, inputs, make)[0]


def put_onnx(store: Store, trained: Manifest, content: bytes, **facts: Any) -> Manifest:
    return put_files(store, trained, "onnx", {"any": ("model.onnx", content)}, **facts)


@cache
def onnx_of(
    seed: int = 1, change: Callable[[Checkpoint], Checkpoint] | None = None, batch: int | None = None,
    decoded: bool = True,
) -> bytes:  # fmt: skip
    """Return the content of an ONNX file of the weights of a seed, changed or as they are."""
    saved = change(lively(seed)) if change else lively(seed)
    with TemporaryDirectory() as folder:
        export_onnx(saved, Path(folder) / "model.onnx", batch=batch, decoded=decoded)
        return (Path(folder) / "model.onnx").read_bytes()


def smoke(exported: Manifest, trained: Manifest, folder: Path, settings: Export = SETTINGS) -> Manifest:
    output = folder / "smoke.json"
    stage.run(
        export=to_json(settings),
        exported=write_manifest(folder / "export.json", exported),
        model=write_manifest(folder / "train.json", trained),
        run_tag="r1",
        output=str(output),
    )
    return read_manifest(output)


def failure(exported: Manifest, trained: Manifest, folder: Path) -> str:
    with pytest.raises(SystemExit):
        smoke(exported, trained, folder)
    return str(json.loads((folder / "error.json").read_text())["error"])


def test_an_onnx_file_is_proven_and_measured(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained = put_checkpoint(store, lively(1), 64)
    exported = put_onnx(store, trained, onnx_of())
    made = smoke(exported, trained, tmp_path)
    facts = made.facts
    assert (facts["format"], facts["made"], facts["ok"], facts["precision"]) == ("onnx", True, True, "fp32")
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
    assert (facts["batches"], facts["texts_equal"], facts["ok"]) == ([1, 8], FEW, True)
    assert facts["file_bytes"] == sum(len(content) for _, content in files.values())


def test_one_wrong_file_among_those_of_fixed_batches_is_named(store: Store, tmp_path: Path) -> None:
    trained = put(store, 1)
    files = {
        "1": ("model_b1.onnx", onnx_of(batch=1)),
        "16": ("model_b16.onnx", onnx_of(2, batch=16)),
    }
    told = failure(put_files(store, trained, "onnx", files), trained, tmp_path)
    assert told.startswith("format onnx, batch 16 does not agree with the trained recogniser: ")


def test_a_mindir_file_of_weights_trained_in_pytorch_is_proven(store: Store, tmp_path: Path) -> None:
    trained = put(store, 1)
    path = tmp_path / "model.mindir"
    stored = store.fetch(trained.object("model.safetensors"))
    code = (
        "import sys; from pathlib import Path; from components.recognition import checkpoint, frameworks;"
        "weights, path = map(Path, sys.argv[1:]);"
        "frameworks.twin('mindspore', 'export').export_mindir(checkpoint.load(weights), path)"
    )
    subprocess.run([sys.executable, "-c", code, str(stored), str(path)], check=True, capture_output=True)
    exported = put_files(store, trained, "mindir", {"any": (path.name, path.read_bytes())})
    facts = smoke(exported, trained, tmp_path).facts
    assert (facts["texts_equal"], facts["ok"]) == (FEW, True)
    assert facts["runtime"].startswith("mindspore 2.")


def write(export_format: str, trained: Manifest, folder: Path, settings: Export) -> Manifest:
    """Write a format by the export stage."""
    written = folder / "written.json"
    export.run(export_format=export_format, export=to_json(settings), run_tag="r1", output=str(written),
               model=write_manifest(folder / "train.json", trained))  # fmt: skip
    return read_manifest(written)


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

    def make(folder: Path) -> Made:
        for entry in one.objects:
            of = other if entry.name == "decoder_step.onnx" else one
            shutil.copyfile(store.fetch(of.object(entry.name)), folder / entry.name)
        told = json.loads((folder / card.CARD).read_text(encoding="utf-8"))
        told["beam"]["step"]["file"]["sha256"] = other.object("decoder_step.onnx").sha256
        (folder / card.CARD).write_text(json.dumps(told), encoding="utf-8")
        return Made(files={path.name: path for path in folder.iterdir()}, facts=one.facts)

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


def other_weights(saved: Checkpoint) -> Checkpoint:
    return replace(saved, tensors={name: values[::-1].copy() for name, values in saved.tensors.items()})


def not_finite(saved: Checkpoint) -> Checkpoint:
    return replace(saved, tensors=saved.tensors | {"head.bias": np.full_like(saved.tensors["head.bias"], np.nan)})


def more_characters(saved: Checkpoint) -> Checkpoint:
    data = replace(DATA, charset="english94")
    return replace(saved, data=data, tensors=dump(build(MODEL, data, codec_of(MODEL, data).classes)))


def characters_in_another_order(saved: Checkpoint) -> Checkpoint:
    """The same network with its head's rows as a charset from z to 0 would have them."""
    order = [0, *range(36, 0, -1)]
    heads = {name: saved.tensors[name][order] for name in ("head.weight", "head.bias")}
    return replace(saved, tensors=saved.tensors | heads)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (other_weights, "format onnx, batch 1 does not agree with the trained recogniser: "),
        (not_finite, "format onnx, batch 1: 18500 of 18500 logits are not finite"),  # 20 x 25 x 37
        (more_characters, "format onnx, batch 1: logits have 95 classes, charset lower36 needs 37"),
        (characters_in_another_order, "format onnx, batch 1 does not agree with the trained recogniser: "),
    ],
)
def test_a_wrong_network_is_caught(
    store: Store, tmp_path: Path, change: Callable[[Checkpoint], Checkpoint], said: str
) -> None:
    trained = put(store, 1)
    told = failure(put_onnx(store, trained, onnx_of(change=change)), trained, tmp_path)
    assert told.startswith(said)
    assert "20 of 20 texts" not in told


def test_a_card_of_other_characters_is_caught(store: Store, tmp_path: Path) -> None:
    trained = put(store, 1)
    content = onnx_of()
    right = card.describe(DATA, MODEL, CODEC.charset, STEPS, decoded=True)
    turned = right | {"charset": {"name": "lower36", "symbols": CODEC.charset.symbols[::-1]}}
    told = failure(put_onnx(store, trained, content, told=turned), trained, tmp_path)
    assert told.startswith("format onnx, batch 1 does not agree with the trained recogniser: ")


def test_a_card_of_another_file_is_caught(store: Store, tmp_path: Path) -> None:
    trained = put(store, 1)
    told = {
        **card.describe(DATA, MODEL, CODEC.charset, STEPS),
        "files": {"onnx": [{"name": "model.onnx", "sha256": "a"}]},
    }
    said = failure(put_onnx(store, trained, b"a file", told=told), trained, tmp_path)
    digest = hashlib.sha256(b"a file").hexdigest()
    assert said == (
        f"format onnx: card.json is of other files: found {{'model.onnx': '{digest}'}}, "
        "it tells of {'model.onnx': 'a'}"
    )


def test_a_card_of_other_outputs_than_the_file_has_is_caught(store: Store, tmp_path: Path) -> None:
    trained = put(store, 1)
    content = onnx_of(decoded=False)
    told = failure(put_onnx(store, trained, content), trained, tmp_path)
    assert told.startswith("format onnx: the file does not run: ")
    assert "tokens" in told


@pytest.mark.parametrize("export_format", ["onnx", "mindir"])
def test_a_truncated_file_is_an_error_that_names_its_format(store: Store, tmp_path: Path, export_format: str) -> None:
    trained = put(store, 1)
    half = onnx_of()
    files = {"any": (f"model.{export_format}", half[: len(half) // 2])}
    told = failure(put_files(store, trained, export_format, files), trained, tmp_path)
    assert told.startswith(f"format {export_format}: the file does not run: ")


def test_a_file_of_another_training_is_refused(store: Store, tmp_path: Path) -> None:
    one, other = put(store, 1), put(store, 2)
    assert f"was made from {one.reference}, expected {other.reference}" in failure(
        put_onnx(store, one, b"anything"), other, tmp_path
    )


def test_what_export_could_not_make_is_passed_on_with_its_reason(store: Store, tmp_path: Path) -> None:
    trained = put(store, 1)
    facts = {"format": "om", "made": False, "reason": "CANN's atc is not on PATH"}
    exported = find_or_make(store, "export", "om", {"model": trained.reference}, lambda _: Made(files={}, facts=facts))
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


def test_a_file_that_crashes_its_runtime_is_an_error(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ascend_doubles.install(monkeypatch, tmp_path)
    trained = put(store, 1)
    exported = put_files(store, trained, "lite", {"any": ("model_lite.mindir", b"crash")})
    assert failure(exported, trained, tmp_path) == "format lite: its runtime ended with code -11: bad graph"


def test_a_file_that_hangs_its_runtime_is_an_error(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ascend_doubles.install(monkeypatch, tmp_path)
    monkeypatch.setattr(launch, "PROBE_LIMIT_S", 3)
    trained = put(store, 1)
    exported = put_files(store, trained, "lite", {"any": ("model_lite.mindir", b"hang")})
    assert failure(exported, trained, tmp_path) == "format lite: its runtime did not finish within 3 s"


def logits_of(texts: list[str]) -> np.ndarray:
    """Return logits (N, 4, 37) that read as the texts of at most two different characters."""
    logits = np.zeros((len(texts), 4, CODEC.classes), dtype=np.float32)
    for row, text in zip(logits, texts, strict=True):
        row[:, 0] = 1
        for place, number in enumerate(CODEC.encode(text)):
            row[place, number] = 5
    return logits


CARD = card.describe(DATA, MODEL, CODEC.charset, 4, decoded=True)


def compared(expected: np.ndarray, **outputs: np.ndarray) -> Agreement:
    return agreement(outputs, CARD, expected, CODEC, "here")


def test_agreement_counts_equal_texts_and_the_largest_difference() -> None:
    expected = logits_of(["a", "bc", "x"])
    found = logits_of(["a", "bd", "x"])
    found[0, 3, 5] += 0.25
    assert compared(expected, logits=found) == Agreement(
        samples=3, texts_equal=2, max_logit_difference=5.0, max_confidence_difference=0.0
    )
    moved = compared(expected, logits=expected + np.float32(0.5))
    assert (moved.texts_equal, moved.max_logit_difference) == (3, 0.5)


def test_a_file_that_decodes_by_itself_must_be_right_in_that_too() -> None:
    expected = logits_of(["a", "bc"])
    # Class 11 is a; the confidence is the mean probability of the characters: e^5 / (e^5 + e + 35) each.
    tokens = np.array([[11, 0, 0, 0], [12, 13, 0, 0]])
    sure = np.exp(5) / (np.exp(5) + np.exp(1) + 35)
    right = compared(expected, logits=expected, tokens=tokens, confidence=np.array([sure, sure]))
    assert (right.texts_equal, round(right.max_confidence_difference, 6)) == (2, 0.0)
    for wrong in ([11, 11, 0, 0], [0, 0, 0, 0], [99, 0, 0, 0]):
        spoilt = np.array([wrong, tokens[1]])
        found = compared(expected, logits=expected, tokens=spoilt, confidence=np.array([0.0, sure]))
        assert (found.texts_equal, round(found.max_confidence_difference, 6)) == (1, 0.0)
    unsure = compared(expected, logits=expected, tokens=tokens, confidence=np.array([sure, sure - 0.25]))
    assert (unsure.texts_equal, round(unsure.max_confidence_difference, 6)) == (2, 0.25)


def test_a_card_of_more_characters_than_the_network_has_classes_is_an_error() -> None:
    expected = logits_of(["a"])
    longer = CARD | {"charset": {"name": "english94", "symbols": load_charset("english94").symbols}}
    with pytest.raises(RuntimeError, match="here: the card's charset makes 95 classes, expected 37"):
        agreement({"logits": expected}, longer, expected, CODEC, "here")


def test_lower_precision_may_be_further_off_and_fp32_only_as_far_as_the_recipe_says() -> None:
    expected = logits_of(["a"])  # up to 5
    assert [logit_tolerance(kind, 1e-3, expected) for kind in ("fp32", "fp16", "int8")] == [1e-3, 0.05, 1.0]
    assert logit_tolerance("fp16", 0.25, expected) == 0.25


def test_texts_logits_and_confidences_all_must_be_within_tolerance() -> None:
    found = Agreement(samples=20, texts_equal=18, max_logit_difference=0.5, max_confidence_difference=0.25)
    assert found.within(0.9, 0.5)
    assert not found.within(1.0, 0.5)
    assert not found.within(0.9, 0.49)
    assert not replace(found, max_confidence_difference=0.51).within(0.9, 0.5)


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
        compared(expected, logits=spoil(expected))
