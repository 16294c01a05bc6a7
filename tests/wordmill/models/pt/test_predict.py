import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.wordmill.models.pt.half import half_kernels
from tests.wordmill.training.tiny import DATA, MODEL, TRAIN
from wordmill.models.checkpoint import Checkpoint
from wordmill.models.pt import predict
from wordmill.models.pt.model import build
from wordmill.models.pt.predict import Predictor, _keep_float32, open_device
from wordmill.models.pt.weights import dump
from wordmill.models.pt.winograd import Winograd
from wordmill.pictures.image import normalise
from wordmill.recipe.loading import load_recipe
from wordmill.text.decoding import codec_of

RECIPES = Path(__file__).resolve().parents[4] / "pipelines" / "recipes"


def test_predictions_are_the_models_logits_for_any_number_of_pictures() -> None:
    torch.manual_seed(2)
    net = build(MODEL, DATA, 37)
    checkpoint = Checkpoint(tensors=dump(net), data=DATA, model=MODEL, train=TRAIN, step=1)
    images = np.random.default_rng(0).integers(0, 256, (5, 32, 100, 1), dtype=np.uint8)
    with torch.no_grad():
        expected = net.eval()((torch.from_numpy(images).permute(0, 3, 1, 2).double() / 127.5 - 1).float()).numpy()
    predictor = Predictor(checkpoint, "cpu")
    logits = predictor(images)
    assert (logits.shape, logits.dtype) == ((5, 25, 37), np.float32)
    assert np.allclose(logits, expected, atol=1e-5)
    assert np.allclose(predictor(images[:1]), expected[:1], atol=1e-5)


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_normalisation_is_folded_into_convolutions_everywhere(path: Path) -> None:
    recipe = load_recipe(path)
    data, rng = recipe.data, torch.Generator().manual_seed(5)
    net = build(recipe.model, data, codec_of(recipe.model, data).classes).eval()
    norms = [part for part in net.modules() if isinstance(part, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.running_mean.normal_(0, 0.1, generator=rng)
        norm.running_var.uniform_(0.5, 2.0, generator=rng)
    images = np.random.default_rng(0).integers(0, 256, (2, data.height, data.width, data.channels), dtype=np.uint8)
    with torch.no_grad():
        expected = net(torch.from_numpy(normalise(images, data.middle))).numpy()
    predictor = Predictor(
        Checkpoint(tensors=dump(net), data=data, model=recipe.model, train=recipe.train, step=1), "cpu"
    )
    assert np.abs(predictor(images) - expected).max() < 1e-5
    assert norms
    assert not any(isinstance(part, torch.nn.BatchNorm2d) for part in predictor.net.modules())


@pytest.mark.parametrize(("dtype", "expected"), [(torch.float32, 4), (torch.bfloat16, 0)])
def test_products_are_saved_in_float32_alone(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, expected: int
) -> None:
    recipe = load_recipe(RECIPES / "crnn_vgg7.yaml")
    tensors = dump(build(recipe.model, recipe.data, 37))
    checkpoint = Checkpoint(tensors=tensors, data=recipe.data, model=recipe.model, train=recipe.train, step=1)
    monkeypatch.setattr(predict, "choose_precision", lambda amp, device: (dtype, f"{amp} on {device}"))
    layers = list(Predictor(checkpoint, "cpu").net.modules())
    assert sum(isinstance(layer, Winograd) for layer in layers) == expected


def test_half_precision_is_near_where_the_recipe_asks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(2)
    checkpoint = Checkpoint(tensors=dump(build(MODEL, DATA, 37)), data=DATA, model=MODEL, train=TRAIN, step=1)
    images = np.random.default_rng(0).integers(0, 256, (5, 32, 100, 1), dtype=np.uint8)
    whole = Predictor(checkpoint, "cpu")
    monkeypatch.setattr(predict, "choose_precision", lambda amp, device: (torch.bfloat16, f"{amp} on {device}"))
    half = Predictor(checkpoint, "cpu", "O2")
    assert (whole.precision, half.precision) == ("float32", "O2 on cpu")
    with half_kernels(torch.bfloat16):
        difference = np.abs(half(images) - whole(images)).max()
    assert 1e-6 < difference < 0.02


def test_weights_of_another_model_are_refused() -> None:
    checkpoint = Checkpoint(tensors={}, data=DATA, model=MODEL, train=TRAIN, step=1)
    with pytest.raises(ValueError, match="missing"):
        Predictor(checkpoint, "cpu")


def test_a_device_that_is_not_there_is_an_error() -> None:
    assert open_device("cpu") == torch.device("cpu")
    with pytest.raises(RuntimeError, match=r"device 'cuda' number 99: PyTorch .* sees \d+"):
        open_device("cuda", 99)
    with pytest.raises(ValueError, match="device 'gpu': expected one of cpu, cuda, npu"):
        open_device("gpu")


def test_float32_is_not_tf32_on_cuda() -> None:
    parts = torch.backends.cudnn.conv, torch.backends.cudnn.rnn
    before = [part.fp32_precision for part in parts]
    try:
        _keep_float32()
        assert [part.fp32_precision for part in parts] == ["ieee", "ieee"]
    finally:
        for part, precision in zip(parts, before, strict=True):
            part.fp32_precision = precision
    assert torch.backends.cuda.matmul.fp32_precision != "tf32"  # PyTorch's own choice


def test_npu_without_torch_npu_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_npu", None)
    with pytest.raises(RuntimeError, match="torch_npu cannot be imported"):
        open_device("npu")
