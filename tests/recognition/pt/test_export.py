from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from components.recognition.checkpoint import Checkpoint
from components.recognition.image import normalise
from components.recognition.pt.export import export_onnx
from components.recognition.pt.model import build
from components.recognition.pt.predict import Predictor
from components.recognition.pt.weights import dump
from components.recognition.recipe import Model
from tests.recognition.tiny import DATA, MODEL, TRAIN

VGG7 = Model(name="crnn", backbone="vgg7", neck="bilstm", hidden=16, layers=2)


def checkpoint_of(model: Model) -> Checkpoint:
    torch.manual_seed(4)
    net = build(model, DATA, 37)
    for name, statistics in net.named_buffers():
        if name.endswith("running_var"):
            torch.nn.init.uniform_(statistics, 0.5, 2.0)
    return Checkpoint(tensors=dump(net), data=DATA, model=model, train=TRAIN, step=1)


@pytest.mark.parametrize("model", [MODEL, VGG7])
def test_onnx_runtime_gives_the_models_logits_for_any_batch(model: Model, tmp_path: Path) -> None:
    checkpoint, path = checkpoint_of(model), tmp_path / "model.onnx"
    export_onnx(checkpoint, path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert [(port.name, port.shape) for port in session.get_inputs()] == [("images", ["N", 1, 32, 100])]
    assert [port.name for port in session.get_outputs()] == ["logits"]
    for samples in (1, 3):
        images = np.random.default_rng(samples).integers(0, 256, (samples, 32, 100, 1), dtype=np.uint8)
        (logits,) = session.run(["logits"], {"images": normalise(images, 127.5)})
        assert np.abs(logits - Predictor(checkpoint, "cpu")(images)).max() < 1e-4


def test_equal_weights_give_equal_bytes_that_old_readers_take(tmp_path: Path) -> None:
    paths = [tmp_path / "first.onnx", tmp_path / "second.onnx"]
    for path in paths:
        export_onnx(checkpoint_of(MODEL), path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    model = onnx.load(paths[0])
    assert model.ir_version == 8  # CANN's atc reads no newer one
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 17)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first.onnx", "second.onnx"]
