import math
from pathlib import Path

import numpy as np
import pytest

from tests.wordmill.models.ms import cell_by_cell, ms  # isort: skip  # before anything imports MindSpore
from wordmill.models.ms.backbones import BACKBONES, Compact, Vgg7, Vgg7Padded, ViewsCnn
from wordmill.models.ms.layers import conv
from wordmill.models.ms.mobilenet import InvertedResidual
from wordmill.models.ms.resnet import BasicBlock

COMPACT_SIZE = (
    16 * 32 + 9 * (32 * 48 + 48 * 96 + 96 * 96 + 96 * 192 + 192 * 256) + 6 * 256 * 320
    + 2 * (32 + 48 + 96 + 96 + 192 + 256 + 320)
)  # fmt: skip
SEPARABLE_SIZE = (
    9 * 32 + 9 * (32 + 64 + 64 + 128) + 15 * (128 + 128 + 256 + 256)
    + 32 * 64 + 64 * 64 + 64 * 128 + 2 * 128 * 128 + 128 * 256 + 2 * 256 * 256 + 2 * 256 * 256
    + 2 * (32 + 32 + 64 + 64 + 64 + 64 + 128 + 4 * 128 + 128 + 256 + 4 * 256 + 256)
)  # fmt: skip
SIZES = {  # channels of the picture, parameters as published
    "compact": (1, COMPACT_SIZE),
    "separable": (1, SEPARABLE_SIZE),
    "vgg7": (3, 5_552_512),
    "vgg7_padded": (1, 5_551_360),
    "vgg7_dtrb": (1, 5_549_824),
    "resnet34_vd": (3, 21_308_128),
    "resnet34_vd_padded": (3, 21_308_128),
    "mobilenet_v3": (3, 778_022),
    "views_cnn": (3, 8_532_480),
}


def test_every_backbone_is_tested() -> None:
    assert set(SIZES) == set(BACKBONES)


@pytest.mark.parametrize("name", SIZES)
def test_backbones_have_the_published_size(name: str) -> None:
    channels, parameters = SIZES[name]
    net = BACKBONES[name](channels)
    assert sum(weight.size for weight in net.trainable_params()) == parameters


@pytest.mark.parametrize("name", SIZES)
def test_backbones_have_as_many_columns_as_they_say(name: str) -> None:
    net = BACKBONES[name](SIZES[name][0]).set_train(False)
    height, widths = (128, (512,)) if name == "views_cnn" else (32, (101, 102, 103))
    with cell_by_cell():
        found = [net(ms.Tensor(np.zeros((1, SIZES[name][0], height, width), np.float32))).shape[3] for width in widths]
    assert found == [net.columns(width) for width in widths]


def test_running_statistics_move_by_a_tenth_towards_the_unbiased_batch() -> None:
    net = Compact(1).set_train()
    x = np.random.default_rng(0).normal(3, 2, (4, 32, 2, 5)).astype(np.float32)
    net.bn1(ms.Tensor(x))
    columns = x.transpose(1, 0, 2, 3).reshape(32, -1).astype(np.float64)
    assert np.allclose(net.bn1.moving_mean.asnumpy(), 0.1 * columns.mean(axis=1), atol=1e-5)
    expected = 0.9 + 0.1 * columns.var(axis=1, ddof=1)
    assert np.allclose(net.bn1.moving_variance.asnumpy(), expected, atol=1e-5)


def test_views_cnn_refuses_what_is_not_four_squares_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    message = "data.width is 256, expected 512: backbone views_cnn reads 4 square views side by side"
    with pytest.raises(ValueError, match=message):
        ViewsCnn(3).set_train(False)(ms.Tensor(np.zeros((2, 3, 128, 256), dtype=np.float32)))
    assert not list(tmp_path.iterdir())  # MindSpore describes the graph, elsewhere


def test_vgg7_starts_from_normals_cut_at_two_deviations() -> None:
    net = Vgg7(3)
    weight, bias = net.conv6.weight.asnumpy(), net.conv6.bias.asnumpy()
    assert 0.039 < np.abs(weight).max() <= 0.04
    assert 0.019 < np.abs(bias).max() <= 0.02
    # The deviation of a normal cut at two of its own.
    assert weight.std() == pytest.approx(0.8796 * 0.02, rel=0.01)
    assert bias.std() == pytest.approx(0.8796 * 0.01, rel=0.1)


def test_vgg7_padded_starts_from_normals() -> None:
    net = Vgg7Padded(1)
    weight, scale = net.conv6.weight.asnumpy(), net.bn7.gamma.asnumpy()
    assert weight.std() == pytest.approx(0.02, rel=0.01)
    assert np.abs(weight).max() > 0.06
    assert scale.mean() == pytest.approx(1.0, abs=0.005)
    assert scale.std() == pytest.approx(0.02, rel=0.1)
    assert not net.bn7.beta.asnumpy().any()
    bound = (512 * 9) ** -0.5  # PyTorch's own: uniform to one over the root of the inputs
    assert 0.98 * bound < np.abs(net.conv6.bias.asnumpy()).max() <= bound


@pytest.mark.parametrize(
    "net",
    [
        BasicBlock(64, 64, (1, 1), projects=True),
        InvertedResidual(80, 5, 480, 80, True, True, 1),
        conv(64, 64, 3, padding=1, bias=True),
    ],
    ids=["resnet34_vd", "mobilenet_v3", "convolution"],
)
def test_convolutions_start_uniform_as_pytorch_does(net: "ms.nn.Cell") -> None:
    tested = 0
    for name, layer in net.cells_and_names():
        if isinstance(layer, ms.nn.Conv2d):
            weight = layer.weight.asnumpy()
            bound = 1 / math.sqrt(weight[0].size)
            assert 0.98 * bound < np.abs(weight).max() <= bound, name
            assert weight.std() == pytest.approx(bound / math.sqrt(3), rel=0.03), name
            if layer.has_bias:
                assert 0.9 * bound < np.abs(layer.bias.asnumpy()).max() <= bound, name
            tested += 1
    assert tested > 0


def test_views_cnn_starts_from_kaiming_normals() -> None:
    for layer in ViewsCnn(3).cells():
        if isinstance(layer, ms.nn.Conv2d):
            weight = layer.weight.asnumpy()
            expected = math.sqrt(2 / weight[0].size)
            assert weight.std() == pytest.approx(expected, rel=0.05)
            assert np.abs(weight).max() > 2.5 * expected
