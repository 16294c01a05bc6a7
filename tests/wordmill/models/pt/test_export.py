import dataclasses
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx.utils
import pytest
import torch

from tests.wordmill.training.tiny import DATA, MODEL, TRAIN, picture
from wordmill.inference.onnx_runtime import onnxruntime
from wordmill.models.checkpoint import Checkpoint
from wordmill.models.pt import resnet
from wordmill.models.pt.export import export_onnx, export_pair
from wordmill.models.pt.model import build
from wordmill.models.pt.predict import Predictor
from wordmill.models.pt.weights import dump
from wordmill.pictures.image import normalise
from wordmill.recipe.sections import Model
from wordmill.text.decoding import AttentionCodec, codec_of

VGG7 = Model(name="crnn", backbone="vgg7", neck="bilstm", hidden=16, layers=2)
RARE = Model(name="rare", backbone="compact", neck="bilstm", hidden=16, layers=1, max_length=5, decoder_hidden=16)
TPS = dataclasses.replace(RARE, rectification="tps")
SEQ2SEQ = Model(name="seq2seq", backbone="compact", neck="bilstm_linked", hidden=16, layers=2, decoder_hidden=16)
PICTURES = np.stack([picture(number) for number in range(8)])


def checkpoint_of(model: Model) -> Checkpoint:
    """Fresh weights made large enough that they write different texts, with running statistics of some training."""
    torch.manual_seed(11)
    tensors = dump(build(model, DATA, codec_of(model, DATA).classes))
    for name, values in tensors.items():
        gain = 10 if name in ("head.weight", "decoder.generator.weight") else {2: 6, 4: 2}.get(values.ndim, 1)
        tensors[name] = values * np.float32(gain)
        if name.endswith("running_var"):
            tensors[name] = np.linspace(0.8, 1.25, len(values), dtype=np.float32)
    if model.name != "crnn":
        tensors["decoder.generator.bias"][AttentionCodec.STOP] += 6  # else they hardly ever stop
    return Checkpoint(tensors=tensors, data=DATA, model=model, train=TRAIN, step=1, temperature=0.4)


def open_session(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def check(path: Path, checkpoint: Checkpoint, images: npt.NDArray[np.uint8]) -> list[str]:
    """Compare all that a file gives with the trained recogniser and return the texts."""
    logits, tokens, confidences = open_session(path).run(None, {"images": normalise(images, 127.5)})
    expected, codec = Predictor(checkpoint, "cpu")(images), codec_of(checkpoint.model, checkpoint.data, 0.4)
    texts, sure = codec.decode(expected)
    assert np.abs(logits - expected).max() < 1e-3
    first = codec.encode("0")[0]
    assert ["".join(codec.charset.symbols[token - first] for token in row if token) for row in tokens] == texts
    assert (tokens.shape, tokens.dtype) == (logits.shape[:2], np.int64)
    assert np.abs(confidences - sure).max() < 1e-4
    return texts


@pytest.mark.parametrize("model", [MODEL, VGG7, RARE, TPS, SEQ2SEQ])
def test_one_graph_reads_as_the_recogniser_for_any_batch(model: Model, tmp_path: Path) -> None:
    checkpoint, path = checkpoint_of(model), tmp_path / "model.onnx"
    export_onnx(checkpoint, path)
    session = open_session(path)
    assert [(port.name, port.shape) for port in session.get_inputs()] == [("images", ["N", 1, 32, 100])]
    assert [port.name for port in session.get_outputs()] == ["logits", "tokens", "confidence"]
    texts = check(path, checkpoint, PICTURES)
    assert check(path, checkpoint, PICTURES[:1]) == texts[:1]
    assert len(set(texts)) > (1 if model.rectification == "none" else 0)
    if model in (RARE, SEQ2SEQ):
        assert any(texts)


@pytest.mark.parametrize(("model", "opset"), [*((MODEL, opset) for opset in range(11, 17)), (RARE, 11), (RARE, 13)])
def test_every_opset_is_written_and_read(model: Model, opset: int, tmp_path: Path) -> None:
    checkpoint, path = checkpoint_of(model), tmp_path / "model.onnx"
    export_onnx(checkpoint, path, opset)
    assert [(entry.domain, entry.version) for entry in onnx.load(path).opset_import] == [("", opset)]
    check(path, checkpoint, PICTURES)


@pytest.mark.parametrize("model", [MODEL, RARE])
def test_a_static_file_takes_its_own_batch_alone(model: Model, tmp_path: Path) -> None:
    checkpoint, path = checkpoint_of(model), tmp_path / "model.onnx"
    export_onnx(checkpoint, path, batch=4)
    check(path, checkpoint, PICTURES[:4])
    with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument, match="Got: 3 Expected: 4"):
        open_session(path).run(None, {"images": normalise(PICTURES[:3], 127.5)})


def test_a_ctc_recogniser_takes_pictures_of_any_width(tmp_path: Path) -> None:
    checkpoint, path = checkpoint_of(MODEL), tmp_path / "model.onnx"
    export_onnx(checkpoint, path, any_width=True)
    assert open_session(path).get_inputs()[0].shape == ["N", 1, 32, "W"]
    check(path, checkpoint, PICTURES)
    check(path, checkpoint, np.concatenate([PICTURES[:4], PICTURES[4:]], axis=2))


def test_of_any_width_an_odd_one_is_padded_as_the_recogniser_pads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resnet, "RESNET_STAGES", tuple((channels, 1) for channels in (64, 128, 256, 512)))
    model = dataclasses.replace(MODEL, backbone="resnet34_vd")
    checkpoint, path = checkpoint_of(model), tmp_path / "model.onnx"
    export_onnx(checkpoint, path, any_width=True)
    for width in (3, 73, 74, 75, 100):
        check(path, checkpoint, PICTURES[:2, :, :width])


def test_a_file_without_decoding_gives_logits_alone(tmp_path: Path) -> None:
    checkpoint, path = checkpoint_of(RARE), tmp_path / "model.onnx"
    export_onnx(checkpoint, path, decoded=False)
    (logits,) = open_session(path).run(None, {"images": normalise(PICTURES, 127.5)})
    assert np.abs(logits - Predictor(checkpoint, "cpu")(PICTURES)).max() < 1e-3


def test_tokens_of_ctc_are_the_first_of_equal_neighbours(tmp_path: Path) -> None:
    rows = [[5, 5, 0, 5, 7, 7], [0, 0, 0, 0, 0, 0], [3, 4, 3, 4, 4, 0]]
    assert tokens_of(rows, MODEL, 25, tmp_path) == [[5, 0, 0, 5, 7, 0], [0, 0, 0, 0, 0, 0], [3, 4, 3, 4, 0, 0]]


def test_tokens_of_attention_end_before_stop(tmp_path: Path) -> None:
    rows = [[5, 5, 0, 7, 1, 9], [5, 6, 7, 8, 9, 9], [1, 5, 1, 6, 6, 6]]  # GO within, no STOP, STOP at once
    assert tokens_of(rows, RARE, 6, tmp_path) == [[5, 5, 0, 7, 0, 0], [0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]]


def tokens_of(rows: list[list[int]], model: Model, steps: int, folder: Path) -> list[list[int]]:
    """Return what a file's last operators make of logits that are largest at these classes, 0 beyond them."""
    logits = np.zeros((len(rows), steps, codec_of(model, DATA).classes), dtype=np.float32)
    for number, row in enumerate(rows):
        logits[number, range(steps), row + [0] * (steps - len(row))] = 9
    export_onnx(checkpoint_of(model), folder / "model.onnx")
    tail = onnx.utils.Extractor(onnx.load(folder / "model.onnx")).extract_model(["logits"], ["tokens"])
    onnx.save(tail, folder / "tail.onnx")
    (tokens,) = open_session(folder / "tail.onnx").run(None, {"logits": logits})
    return [row[:6] for row in tokens.tolist()]


@pytest.mark.parametrize("model", [RARE, SEQ2SEQ])
def test_an_encoder_and_a_decoder_go_step_by_step_as_the_one_graph(model: Model, tmp_path: Path) -> None:
    checkpoint = checkpoint_of(model)
    pair = export_pair(checkpoint, tmp_path / "encoder.onnx", tmp_path / "step.onnx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["encoder.onnx", "step.onnx"]
    encoder, step = open_session(tmp_path / "encoder.onnx"), open_session(tmp_path / "step.onnx")
    *memory, hidden = encoder.run(pair["encoder"]["outputs"], {"images": normalise(PICTURES, 127.5)})
    logits = Predictor(checkpoint, "cpu")(PICTURES).astype(np.float64)
    tokens = np.zeros(len(PICTURES), dtype=np.int64)
    for number in range(logits.shape[1]):
        given = dict(zip(pair["step"]["inputs"], [tokens, hidden, *memory], strict=True))
        likely, hidden = step.run(pair["step"]["outputs"], given)
        expected = logits[:, number] - np.log(np.exp(logits[:, number]).sum(1, keepdims=True))
        assert np.abs(likely - expected).max() < 1e-3
        tokens = likely.argmax(1)


def test_what_cannot_be_written_is_refused_by_the_recipes_key(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"export\.opset: found 15, expected at least 16: ONNX has GridSample"):
        export_onnx(checkpoint_of(TPS), tmp_path / "model.onnx", 15)
    with pytest.raises(ValueError, match=r"export\.beam: model crnn has no decoder"):
        export_pair(checkpoint_of(MODEL), tmp_path / "encoder.onnx", tmp_path / "step.onnx")
    assert list(tmp_path.iterdir()) == []


def test_equal_weights_give_equal_bytes_that_old_readers_take(tmp_path: Path) -> None:
    paths = [tmp_path / "first.onnx", tmp_path / "second.onnx"]
    for path in paths:
        export_onnx(checkpoint_of(MODEL), path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    model = onnx.load(paths[0])
    assert model.ir_version == 8  # CANN's atc reads no newer one
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 17)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first.onnx", "second.onnx"]
