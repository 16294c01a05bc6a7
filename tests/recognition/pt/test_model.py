import dataclasses

import pytest
import torch
from torch.nn.functional import batch_norm, conv2d, max_pool2d, relu

from components.recognition.pt.model import CRNN, Vgg7, build, count_frames
from components.recognition.recipe import Model
from tests.recognition.tiny import DATA

COLOUR = dataclasses.replace(DATA, channels=3)
VGG7 = Model(name="crnn", backbone="vgg7", neck="bilstm", hidden=256, layers=2)
COMPACT = Model(name="crnn", backbone="compact", neck="bilstm", hidden=224, layers=1)


def parameters(net: CRNN) -> int:
    return sum(weight.numel() for weight in net.parameters())


def test_vgg7_has_the_published_size() -> None:
    net = build(VGG7, COLOUR, 37)
    assert parameters(net) == 8_725_413
    assert sum(weight.numel() for weight in net.backbone.parameters()) == 5_552_512
    assert count_frames(net, COLOUR) == 24


def test_compact_has_the_size_of_its_layers() -> None:
    convolutions = 32 * 16 + 9 * (48 * 32 + 96 * 48 + 96 * 96 + 192 * 96 + 256 * 192) + 320 * 256 * 6
    normalisations = 2 * (32 + 48 + 96 + 96 + 192 + 256 + 320)
    lstm = 2 * 4 * 224 * (320 + 224 + 2)
    net = build(COMPACT, DATA, 37)
    assert parameters(net) == convolutions + normalisations + lstm + 2 * 224 * 37 + 37
    assert count_frames(net, DATA) == 25


@pytest.mark.parametrize(("model", "frames"), [(VGG7, 24), (COMPACT, 25)])
def test_logits_are_one_row_per_column_of_the_picture(model: Model, frames: int) -> None:
    net = build(model, COLOUR, 37).eval()
    assert net(torch.zeros(3, 3, 32, 100)).shape == (3, frames, 37)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert net(torch.zeros(1, 3, 32, 100)).dtype == torch.float32


def test_counting_frames_leaves_the_statistics_and_the_mode() -> None:
    net = build(COMPACT, DATA, 37)
    count_frames(net, DATA)
    assert net.training
    assert net.backbone.bn1.running_mean is not None
    assert not net.backbone.bn1.running_mean.any()


def test_vgg7_computes_what_mindocr_describes() -> None:
    """The published order of layers, written out with functions."""
    torch.manual_seed(3)
    net = build(VGG7, COLOUR, 37).backbone.eval()
    assert isinstance(net, Vgg7)
    for layer in (net.bn3, net.bn5, net.bn7):
        torch.nn.init.normal_(layer.running_mean)
        torch.nn.init.uniform_(layer.running_var, 0.5, 2.0)
    weights = net.state_dict()

    def layer(x: torch.Tensor, number: int, padding: int, normed: bool) -> torch.Tensor:
        x = conv2d(x, weights[f"conv{number}.weight"], weights[f"conv{number}.bias"], padding=padding)
        if normed:
            names = ("running_mean", "running_var", "weight", "bias")
            x = batch_norm(x, *(weights[f"bn{number}.{name}"] for name in names), eps=1e-4)
        return relu(x)

    images = torch.randn(2, 3, 32, 100)
    x = max_pool2d(layer(images, 1, 1, False), 2)
    x = max_pool2d(layer(x, 2, 1, False), 2)
    x = layer(x, 3, 1, True)
    x = max_pool2d(layer(x, 4, 1, False), (2, 1))
    x = layer(x, 5, 1, True)
    x = max_pool2d(layer(x, 6, 1, False), (2, 1))
    x = layer(x, 7, 0, True)
    assert x.shape == (2, 512, 1, 24)
    assert torch.allclose(net(images), x, atol=1e-5)


def test_vgg7_starts_from_normals_cut_at_two_deviations() -> None:
    torch.manual_seed(1)
    net = build(VGG7, COLOUR, 37).backbone
    weight, bias = net.conv6.weight, net.conv6.bias
    assert bias is not None
    assert 0.039 < weight.abs().max() <= 0.04
    assert bias.abs().max() <= 0.02
    assert weight.std().item() == pytest.approx(
        0.8796 * 0.02, rel=0.01
    )  # the deviation of a normal cut at two of its own


def test_the_same_seed_gives_the_same_start() -> None:
    torch.manual_seed(5)
    first = build(COMPACT, DATA, 37).state_dict()
    torch.manual_seed(5)
    assert all(torch.equal(tensor, first[name]) for name, tensor in build(COMPACT, DATA, 37).state_dict().items())


def test_what_is_not_built_is_refused_by_name() -> None:
    with pytest.raises(
        ValueError, match=r"model.backbone: 'resnet34_vd' is not built yet, expected one of compact, vgg7"
    ):
        build(dataclasses.replace(VGG7, backbone="resnet34_vd"), DATA, 37)
    with pytest.raises(ValueError, match=r"model.name: 'rare' is not built yet"):
        build(dataclasses.replace(VGG7, name="rare"), DATA, 37)
    with pytest.raises(ValueError, match=r"data.height is 48, expected 32"):
        build(VGG7, dataclasses.replace(DATA, height=48), 37)
