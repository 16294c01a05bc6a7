import re

import pytest
import torch
from torch.nn import functional
from torch.nn.functional import avg_pool2d, batch_norm, conv2d, max_pool2d, relu

from tests.wordmill.models.pt.half import bfloat16
from wordmill.models.architectures import HEIGHTS, LEAST_WIDTHS
from wordmill.models.pt.backbones import BACKBONES, Compact, MobileNetV3, ResNet34Vd, Vgg7, Vgg7Padded, ViewsCnn
from wordmill.models.pt.mobilenet import SqueezeExcitation
from wordmill.models.pt.resnet import BasicBlock

COMPACT_SIZE = (
    32 * 16 + 9 * (48 * 32 + 96 * 48 + 96 * 96 + 192 * 96 + 256 * 192) + 320 * 256 * 6
    + 2 * (32 + 48 + 96 + 96 + 192 + 256 + 320)
)  # fmt: skip
SEPARABLE_SIZE = (
    9 * 32 + 9 * (32 + 64 + 64 + 128) + 15 * (128 + 128 + 256 + 256)
    + 32 * 64 + 64 * 64 + 64 * 128 + 2 * 128 * 128 + 128 * 256 + 2 * 256 * 256 + 2 * 256 * 256
    + 2 * (32 + 32 + 64 + 64 + 64 + 64 + 128 + 4 * 128 + 128 + 256 + 4 * 256 + 256)
)  # fmt: skip
SIZES = {  # channels of the picture, width, parameters as published, columns
    "compact": (1, 100, COMPACT_SIZE, 25),
    "separable": (1, 100, SEPARABLE_SIZE, 25),
    "vgg7": (3, 100, 5_552_512, 24),
    "vgg7_padded": (1, 100, 5_551_360, 26),
    "vgg7_dtrb": (1, 100, 5_549_824, 24),
    "resnet34_vd": (3, 100, 21_308_128, 25),
    "resnet34_vd_padded": (3, 100, 21_308_128, 25),
    "mobilenet_v3": (3, 100, 778_022, 25),
    "views_cnn": (3, 512, 8_532_480, 64),
}


class Functions:
    """Layers by their names, computed with functions in evaluation mode from lively weights of a backbone."""

    def __init__(self, net: torch.nn.Module, eps: float) -> None:
        torch.manual_seed(3)
        self.net, self.eps = net.eval(), eps
        for layer in net.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                torch.nn.init.normal_(layer.running_mean, std=0.2)
                torch.nn.init.uniform_(layer.running_var, 0.5, 2.0)
                torch.nn.init.uniform_(layer.weight, 0.5, 1.5)
                torch.nn.init.normal_(layer.bias, std=0.2)
        self.weights = net.state_dict()

    def conv(self, x: torch.Tensor, name: str, padding: int = 1, stride: tuple[int, int] = (1, 1)) -> torch.Tensor:
        weight = self.weights[f"{name}.weight"]
        groups = x.shape[1] // weight.shape[1]
        return conv2d(x, weight, self.weights.get(f"{name}.bias"), stride, padding, groups=groups)

    def norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        leaves = ("running_mean", "running_var", "weight", "bias")
        return batch_norm(x, *(self.weights[f"{name}.{leaf}"] for leaf in leaves), eps=self.eps)

    def conv_norm(self, x: torch.Tensor, name: str, padding: int, stride: tuple[int, int] = (1, 1)) -> torch.Tensor:
        return self.norm(self.conv(x, f"{name}.conv", padding, stride), f"{name}.bn")

    def assert_computes(self, images: torch.Tensor, features: torch.Tensor) -> None:
        with torch.no_grad():
            found = self.net(images)
        assert found.shape == features.shape
        assert features.std() > 1e-2
        assert torch.allclose(found, features, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", SIZES)
def test_backbones_have_the_published_size_and_columns(name: str) -> None:
    channels, width, parameters, columns = SIZES[name]
    net = BACKBONES[name](channels).eval()
    assert sum(weight.numel() for weight in net.parameters()) == parameters
    pictures = torch.zeros(2, channels, HEIGHTS[name][0], width)
    with torch.no_grad():
        assert net.to(memory_format=torch.channels_last)(pictures).shape == (2, net.channels, 1, columns)
        with bfloat16():
            features = net(pictures[:1])
    assert (features.shape, features.dtype) == ((1, net.channels, 1, columns), torch.bfloat16)
    if name in LEAST_WIDTHS:
        assert columns_of(net, channels, LEAST_WIDTHS[name]) >= 1
        assert columns_of(net, channels, LEAST_WIDTHS[name] - 1) == 0


def columns_of(net: torch.nn.Module, channels: int, width: int) -> int:
    """Return how many columns a backbone makes of pictures of a width, 0 where it makes none."""
    try:
        with torch.no_grad():
            return net(torch.zeros(1, channels, 32, width)).shape[3]
    except RuntimeError:
        return 0


def test_every_backbone_is_tested() -> None:
    assert set(SIZES) == set(BACKBONES)


def test_resnet34_vd_has_the_columns_of_its_twin_at_every_width() -> None:
    net = ResNet34Vd(1).eval()
    assert [columns_of(net, 1, width) for width in (100, 101, 102, 103, 104)] == [25, 25, 25, 26, 26]


@pytest.mark.parametrize("name", ["resnet34_vd", "mobilenet_v3"])
def test_wider_pictures_give_more_columns(name: str) -> None:
    assert BACKBONES[name](3).eval()(torch.zeros(1, 3, 32, 320)).shape[3] == 80


def test_vgg7_computes_what_mindocr_describes() -> None:
    """The published order of layers, written out with functions."""
    ways = Functions(Vgg7(3), 1e-4)
    images = torch.randn(2, 3, 32, 100)
    x = max_pool2d(relu(ways.conv(images, "conv1")), 2)
    x = max_pool2d(relu(ways.conv(x, "conv2")), 2)
    x = relu(ways.norm(ways.conv(x, "conv3"), "bn3"))
    x = max_pool2d(relu(ways.conv(x, "conv4")), (2, 1))
    x = relu(ways.norm(ways.conv(x, "conv5"), "bn5"))
    x = max_pool2d(relu(ways.conv(x, "conv6")), (2, 1))
    x = relu(ways.norm(ways.conv(x, "conv7", padding=0), "bn7"))
    ways.assert_computes(images, x)


def test_vgg7_padded_computes_what_modelzoo_describes() -> None:
    ways = Functions(Vgg7Padded(1), 1e-5)
    images = torch.randn(2, 1, 32, 100)
    x = max_pool2d(relu(ways.conv(images, "conv1")), 2)
    x = max_pool2d(relu(ways.conv(x, "conv2")), 2)
    x = relu(ways.norm(ways.conv(x, "conv3"), "bn3"))
    x = max_pool2d(relu(ways.conv(x, "conv4")), 2, (2, 1), (0, 1))
    assert x.shape[2:] == (4, 26)
    x = relu(ways.norm(ways.conv(x, "conv5"), "bn5"))
    x = max_pool2d(relu(ways.conv(x, "conv6")), 2, (2, 1), (0, 1))
    assert x.shape[2:] == (2, 27)
    x = relu(ways.norm(ways.conv(x, "conv7", padding=0), "bn7"))
    ways.assert_computes(images, x)


@pytest.mark.parametrize(("width", "before", "columns"), [(100, 0, 50), (103, 1, 52)])
def test_resnet34_vd_computes_what_mindocr_describes(width: int, before: int, columns: int) -> None:
    ways = Functions(ResNet34Vd(3), 1e-5)
    images = torch.randn(2, 3, 32, width)
    x = images
    for name in ("conv1", "conv2", "conv3"):
        x = relu(ways.conv_norm(x, name, 1))
    # MindSpore's "same" puts one missing row or column at the end, and of two one at either side.
    x = max_pool2d(functional.pad(x, (before, 1, 0, 1)), 3, 2)
    assert x.shape == (2, 64, 16, columns)
    block = 0
    for stage, depth in enumerate((3, 4, 6, 3)):
        for number in range(depth):
            stride = (2, 1) if stage > 0 and number == 0 else (1, 1)
            inner = relu(ways.conv_norm(x, f"blocks.{block}.conv1", 1, stride))
            inner = ways.conv_norm(inner, f"blocks.{block}.conv2", 1)
            if number == 0:
                x = ways.conv_norm(avg_pool2d(x, stride), f"blocks.{block}.shortcut", 0)
            x = relu(x + inner)
            block += 1
        assert x.shape == (2, 64 * 2**stage, 16 // 2**stage, columns)
    ways.assert_computes(images, max_pool2d(x, 2))


def mobilenet_block(ways: Functions, x: torch.Tensor, i: int, kernel: int, kind: str, stride: int) -> torch.Tensor:
    """Compute block i; `kind` is its activation, "relu" or "hs", and "+se" with squeeze and excitation."""

    def act(x: torch.Tensor) -> torch.Tensor:
        return x * (x + 3).clamp(0, 6) / 6 if "hs" in kind else relu(x)

    inner = act(ways.conv_norm(x, f"blocks.{i}.expand", 0))
    inner = act(ways.conv_norm(inner, f"blocks.{i}.depthwise", kernel // 2, (stride, 1)))
    if "+se" in kind:
        gate = relu(ways.conv(avg_pool2d(inner, inner.shape[2:]), f"blocks.{i}.squeeze.conv1", 0))
        inner = inner * (ways.conv(gate, f"blocks.{i}.squeeze.conv2", 0) / 6 + 0.5).clamp(0, 1)
    y = ways.conv_norm(inner, f"blocks.{i}.project", 0)
    return x + y if y.shape == x.shape else y


def test_mobilenet_v3_computes_what_paddleocr_describes() -> None:
    ways = Functions(MobileNetV3(3), 1e-5)
    images = torch.randn(2, 3, 32, 100)
    rows = [(3, "relu", 1), (3, "relu", 2), (3, "relu", 1), (5, "relu+se", 2), (5, "relu+se", 1), (5, "relu+se", 1)]
    rows += 4 * [(3, "hs", 1)] + 2 * [(3, "hs+se", 1)] + [(5, "hs+se", 2)] + 2 * [(5, "hs+se", 1)]
    x = ways.conv_norm(images, "conv1", 1, (2, 2))
    x = x * (x + 3).clamp(0, 6) / 6
    for i, (kernel, kind, stride) in enumerate(rows):
        x = mobilenet_block(ways, x, i, kernel, kind, stride)
    x = ways.conv_norm(x, "conv2", 0)
    ways.assert_computes(images, max_pool2d(x * (x + 3).clamp(0, 6) / 6, 2))


def test_mobilenet_v3_widens_as_the_published_table_does() -> None:
    net = MobileNetV3(3)
    inner = [block.depthwise.conv.weight.shape[0] for block in net.blocks]
    outputs = [block.project.conv.weight.shape[0] for block in net.blocks]
    assert inner == [8, 32, 40, 40, 64, 64, 120, 104, 96, 96, 240, 336, 336, 480, 480]
    assert outputs == [8, 16, 16, 24, 24, 24, 40, 40, 40, 40, 56, 56, 80, 80, 80]


def test_squeeze_and_excitation_weighs_channels_by_their_means() -> None:
    layer = SqueezeExcitation(4)
    for weight, value in zip(layer.parameters(), (0.5, 0.25, 2.0, -3.0), strict=True):
        torch.nn.init.constant_(weight, value)
    x = torch.arange(8.0).reshape(1, 4, 1, 2) / 4
    # Means 1/8, 5/8, 9/8, 13/8; half their sum and 1/4 is 2; twice that less 3 is 1; (1 + 3) / 6 of each channel.
    assert torch.allclose(layer(x), x * 4 / 6)


def test_views_cnn_reads_each_square_by_itself() -> None:
    """The published network on one view at a time, written out with functions."""
    ways = Functions(ViewsCnn(2), 1e-5)
    images = torch.randn(2, 2, 128, 512)

    def view(x: torch.Tensor) -> torch.Tensor:
        x = max_pool2d(relu(ways.conv(x, "conv1")), 2)
        x = max_pool2d(relu(ways.conv(x, "conv2")), (2, 1))
        for number in (3, 5, 7, 9):
            x = relu(ways.norm(ways.conv(x, f"conv{number}"), f"bn{number}"))
            x = max_pool2d(relu(ways.conv(x, f"conv{number + 1}")), (2, 1))
        assert x.shape[1:] == (384, 2, 64)
        return relu(ways.norm(ways.conv(functional.pad(x, (0, 1)), "conv11", 0), "bn11"))

    ways.assert_computes(images, torch.cat([view(square) for square in images.split(128, dim=3)], dim=1))


@pytest.mark.parametrize("width", [256, 500, 640])
def test_views_cnn_refuses_what_is_not_four_squares(width: int) -> None:
    message = f"data.width is {width}, expected 512: backbone views_cnn reads 4 square views side by side"
    with pytest.raises(ValueError, match=re.escape(message)):
        ViewsCnn(3)(torch.zeros(1, 3, 128, width))


def test_vgg7_starts_from_normals_cut_at_two_deviations() -> None:
    torch.manual_seed(1)
    net = Vgg7(3)
    weight, bias = net.conv6.weight, net.conv6.bias
    assert bias is not None
    assert 0.039 < weight.abs().max() <= 0.04
    assert 0.019 < bias.abs().max() <= 0.02
    # The deviation of a normal cut at two of its own.
    assert weight.std().item() == pytest.approx(0.8796 * 0.02, rel=0.01)
    assert bias.std().item() == pytest.approx(0.8796 * 0.01, rel=0.1)


def test_vgg7_padded_starts_from_normals() -> None:
    torch.manual_seed(1)
    net = Vgg7Padded(1)
    assert net.conv6.weight.std().item() == pytest.approx(0.02, rel=0.01)
    assert net.conv6.weight.abs().max() > 0.06
    assert net.bn7.weight.mean().item() == pytest.approx(1.0, abs=0.005)
    assert net.bn7.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert not net.bn7.bias.any()
    assert net.conv6.bias is not None
    bound = (512 * 9) ** -0.5  # PyTorch's own: uniform to one over the root of the inputs
    assert 0.98 * bound < net.conv6.bias.abs().max() <= bound


@pytest.mark.parametrize("net", [ResNet34Vd(3).blocks[2], MobileNetV3(3).blocks[14]], ids=["resnet34_vd", "mobilenet"])
def test_convolutions_before_a_normalisation_start_uniform(net: torch.nn.Module) -> None:
    for name, layer in net.named_modules():
        if isinstance(layer, torch.nn.Conv2d):
            bound = layer.weight[0].numel() ** -0.5
            assert 0.98 * bound < layer.weight.abs().max() <= bound, name
            assert layer.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.03), name


def test_views_cnn_starts_from_kaiming_normals() -> None:
    torch.manual_seed(1)
    for layer in ViewsCnn(3).modules():
        if isinstance(layer, torch.nn.Conv2d):
            expected = (2 / layer.weight[0].numel()) ** 0.5
            assert layer.weight.std().item() == pytest.approx(expected, rel=0.05)
            assert layer.weight.abs().max() > 2.5 * expected


def test_a_shortcut_that_strides_averages_before_it_projects() -> None:
    block = BasicBlock(1, 1, (2, 1), projects=True).eval()
    for weight in block.conv2.bn.parameters():
        torch.nn.init.zeros_(weight)  # the shortcut alone
    torch.nn.init.constant_(block.shortcut.conv.weight, 3.0)
    x = torch.tensor([[1.0, 2.0], [3.0, 6.0]]).reshape(1, 1, 2, 2)
    expected = torch.tensor([6.0, 12.0]).reshape(1, 1, 1, 2) / (1 + 1e-5) ** 0.5
    assert torch.allclose(block(x), expected)


def test_the_same_seed_gives_the_same_start() -> None:
    torch.manual_seed(5)
    first = Compact(1).state_dict()
    torch.manual_seed(5)
    assert all(torch.equal(tensor, first[name]) for name, tensor in Compact(1).state_dict().items())
