import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from components.export.formats import Source, Written, write_onnx
from components.export.stage import describe_files, run
from tests.components.export import exported
from tests.components.export.exporting import export, failure, names, text_of
from tests.components.train.trained import put_trained, write_manifest
from tests.wordmill.training.tiny import picture
from wordmill.inference.onnx_runtime import onnxruntime
from wordmill.inference.packaged.pair import PairReader
from wordmill.inference.quantise import least_loss
from wordmill.models.pt.predict import Predictor
from wordmill.pictures.image import normalise
from wordmill.recipe.parsing import to_json
from wordmill.recipe.sections import Export, Model
from wordmill.store.artifacts import Manifest, read_manifest
from wordmill.store.storage import Store, hash_file
from wordmill.text.charset import load_charset


@pytest.fixture
def model(store: Store, tmp_path: Path) -> str:
    return write_manifest(tmp_path / "train.json", put_trained(store, seed=1))


def test_onnx_comes_with_a_card_and_reads_the_reference_as_the_trained_recogniser(
    store: Store, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = export("onnx", model, tmp_path)
    assert names(made) == ["model.onnx", "card.json", "reference.npz"]
    path = store.fetch(made.object("model.onnx"))
    assert (made.facts["format"], made.facts["made"], made.facts["precision"]) == ("onnx", True, "fp32")
    assert (made.facts["bytes"], made.facts["files"]) == (path.stat().st_size, {"any": "model.onnx"})
    card = json.loads(text_of(store, made, "card.json"))
    assert card["file"] == {"name": "model.onnx", "sha256": hash_file(path), "bytes": path.stat().st_size}
    assert card["files"] == {"onnx": [card["file"] | {"batch": "any"}]}
    assert card["made_by"]["manifest"] == read_manifest(model).reference
    assert card["made_by"]["framework_version"].startswith("torch 2.")

    # A reader who knows the card alone, and no code of this project but what makes the input.
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    with np.load(store.fetch(made.object("reference.npz")), allow_pickle=False) as reference:
        given = {card["input"]["name"]: normalise(reference["images"], card["preprocessing"]["middle"])}
        logits, tokens, confidences = session.run([port["name"] for port in card["outputs"]], given)
        assert np.abs(logits - reference["logits"]).max() < 1e-4
        symbols, first = card["charset"]["symbols"], card["decode"]["first"]
        texts = ["".join(symbols[token - first] for token in row if token) for row in tokens]
        assert texts == reference["texts"].tolist()
        assert all(texts)
        assert np.abs(confidences - reference["confidences"]).max() < 1e-5
    with np.load(store.fetch(read_manifest(model).object("reference.npz"))) as trained:
        assert np.array_equal(trained["logits"], np.load(store.fetch(made.object("reference.npz")))["logits"])

    capsys.readouterr()
    assert export("onnx", model, tmp_path, logit_tolerance=0.5) == made
    assert "found finished" in capsys.readouterr().out


def test_static_batches_are_files_of_their_own(store: Store, model: str, tmp_path: Path) -> None:
    made = export("onnx", model, tmp_path, batches=(1, 4), opset=13)
    assert made.facts["files"] == {"1": "model_b1.onnx", "4": "model_b4.onnx"}
    graph = onnx.load(store.fetch(made.object("model_b4.onnx")))
    sizes = [size.dim_value for size in graph.graph.input[0].type.tensor_type.shape.dim]
    assert (sizes, graph.opset_import[0].version) == ([4, 1, 32, 100], 13)
    assert made.facts["bytes"] == sum(made.object(name).bytes for name in ("model_b1.onnx", "model_b4.onnx"))


@pytest.mark.parametrize(
    ("export_format", "expected"),
    [("onnx_int8", {"QuantizeLinear", "DequantizeLinear", "Conv"}), ("onnx_int8_qoperator", {"QLinearConv"})],
)
def test_eight_bit_files_tell_what_they_cost_on_the_validation_set(
    store: Store, model: str, tmp_path: Path, export_format: str, expected: set[str]
) -> None:
    made = export(export_format, model, tmp_path)
    assert (made.facts["precision"], made.facts["files"]) == ("int8", {"any": "model.onnx"})
    assert names(made) == ["model.onnx", "card.json", "reference.npz"]
    cost = made.facts["accuracy"]
    assert set(cost) == {"samples", "texts_equal", "lost", "won", "fp32", "int8"}
    assert cost["samples"] == 20
    whole = export("onnx", model, tmp_path)
    assert made.facts["bytes"] < whole.facts["bytes"]
    graph = onnx.load(store.fetch(made.object("model.onnx"))).graph
    assert expected <= {node.op_type for node in graph.node}
    weights = [numpy_helper.to_array(tensor) for tensor in graph.initializer if tensor.data_type == TensorProto.INT8]
    assert max(np.abs(array.astype(int)).max() for array in weights if array.ndim == 4) in range(63, 66)  # 7 bits


def test_eight_bit_files_that_lose_more_words_than_the_recipe_allows_are_not_made(
    store: Store, model: str, tmp_path: Path
) -> None:
    error = failure("onnx_int8", model, tmp_path, int8_loss=-1.0)
    assert "format onnx_int8: reads 0.00% of 20 validation words right where fp32 reads 0.00%" in error
    assert error.endswith("more than export.int8_loss, -100.00%")
    made = export("onnx_int8", model, tmp_path, formats=(), optional=("onnx_int8",), int8_loss=-1.0)
    assert not made.facts["made"]


def test_the_least_loss_is_the_bound_of_paired_counts() -> None:
    # 30 of 1,000 lost in the net; standard error sqrt(50 - 900 / 1000) / 1000 = 0.007007
    assert least_loss({"samples": 1000, "lost": 40, "won": 10}) == pytest.approx(0.03 - 1.645 * 0.007007, abs=1e-6)
    assert least_loss({"samples": 1000, "lost": 0, "won": 0}) == 0.0


def test_weights_trained_in_pytorch_become_a_mindir_file(store: Store, model: str, tmp_path: Path) -> None:
    # In a process of its own, for others of these tests have loaded protobuf in a way that MindSpore cannot bear.
    output = tmp_path / "mindir.json"
    told = {"--export-format": "mindir", "--export": to_json(Export(formats=("mindir",), batches=(2,))),
            "--model": model, "--run-tag": "r1", "--output": str(output)}  # fmt: skip
    command = [sys.executable, "-m", "components.export", *(word for pair in told.items() for word in pair)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    made = read_manifest(output)
    assert done.stdout.splitlines()[-1] == made.reference
    assert made.facts["framework_version"].startswith("mindspore 2.")
    assert made.facts["files"] == {"2": "model_b2.mindir"}
    weights = store.fetch(read_manifest(model).object("model.safetensors"))
    assert store.fetch(made.object("model_b2.mindir")).stat().st_size > 0.95 * weights.stat().st_size
    assert [port["name"] for port in json.loads(text_of(store, made, "card.json"))["outputs"]] == ["logits"]


@pytest.fixture
def rare(tmp_path: Path) -> Source:
    """A source of an attention recogniser that is to be exported for a beam search."""
    model = Model(name="rare", backbone="compact", neck="bilstm", hidden=16, layers=1, max_length=5, decoder_hidden=16)
    return Source(
        settings=Export(formats=("onnx",), beam=True), saved=exported.checkpoint(model), folder=tmp_path,
        pictures=np.stack([picture(number) for number in range(12)]),
        validation=lambda: pytest.fail("no samples are needed"),
    )  # fmt: skip


def describe_pair(source: Source, written: Written) -> dict[str, Any]:
    trained = Manifest(stage="train", name="rare", key="k", inputs={}, git_commit="c")
    describe_files("onnx", written, source, trained, Predictor(source.saved, "cpu")(source.pictures))
    return dict(json.loads((source.folder / "card.json").read_text(encoding="utf-8")))


def test_an_encoder_and_a_decoder_beside_the_one_graph_are_read_by_a_beam_search(rare: Source) -> None:
    written = write_onnx(rare)
    assert [path.name for path in written.models.values()] == ["model.onnx"]
    assert {path.name for path in written.others} == {"encoder.onnx", "decoder_step.onnx"}
    card = describe_pair(rare, written)
    for part in card["beam"].values():
        assert part["file"]["sha256"] == hash_file(rare.folder / part["file"]["name"])
    texts, confidences = PairReader(rare.folder, card).read(rare.pictures, 4)
    expected, sure = Predictor(rare.saved, "cpu").read(rare.pictures, 4)
    assert texts == expected
    assert len(set(texts)) > 3
    assert np.abs(confidences - sure).max() < 1e-3
    for none in (PairReader(rare.folder, card).read(rare.pictures[:0], 4),
                 PairReader(rare.folder, card).read_greedily(rare.pictures[:0])):  # fmt: skip
        assert (none[0], none[1].shape, none[1].dtype) == ([], (0,), np.float32)
    with pytest.raises(ValueError, match="describes no encoder and decoder: export them with export.beam"):
        PairReader(rare.folder, {name: value for name, value in card.items() if name != "beam"})


def test_a_decoder_of_other_weights_is_caught_where_it_is_written(rare: Source) -> None:
    written = write_onnx(rare)
    for name, values in rare.saved.tensors.items():
        if name.startswith("decoder."):
            rare.saved.tensors[name] = -values
    with pytest.raises(RuntimeError, match=r"beam search with encoder.onnx and decoder_step.onnx reads \d+ of 12 pic"):
        describe_pair(rare, written)


def test_an_unknown_format_is_refused_with_the_nearest(model: str, tmp_path: Path) -> None:
    settings = to_json(Export(formats=("onnx",)))
    with pytest.raises(SystemExit):
        run(export_format="onx", export=settings, model=model, run_tag="r1", output=str(tmp_path / "onx.json"))
    told = json.loads((tmp_path / "error.json").read_text())["error"]
    assert "export format 'onx': did you mean 'onnx'?" in told


def test_a_charset_that_has_changed_since_training_is_refused(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = type(load_charset("lower36"))(name="lower36", symbols=load_charset("lower36").symbols[::-1])
    monkeypatch.setattr("wordmill.text.charset.load_charset", lambda name: other)
    told = failure("onnx", model, tmp_path)
    assert told.startswith("data.charset lower36: train/")
    assert "trained with 36, not the same in the same order as the 36 characters found here" in told
