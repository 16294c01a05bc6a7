import dataclasses
import sys

import pytest
import torch

from tests.wordmill.models.pt.half import bfloat16
from tests.wordmill.training.tiny import DATA
from wordmill.models.pt.model import CRNN, build, count_steps
from wordmill.recipe.sections import Data, Model

pytestmark = pytest.mark.arithmetic

COLOUR = dataclasses.replace(DATA, channels=3)
VGG7 = Model(name="crnn", backbone="vgg7", neck="bilstm", hidden=256, layers=2)
COMPACT = Model(name="crnn", backbone="compact", neck="bilstm", hidden=224, layers=1)
PADDED = Model(name="crnn", backbone="vgg7_padded", neck="bilstm_linked", hidden=256, layers=2)
MOBILE = Model(name="crnn", backbone="mobilenet_v3", neck="bilstm", hidden=96, layers=2)


def parameters(net: torch.nn.Module) -> int:
    return sum(weight.numel() for weight in net.parameters())


@pytest.mark.parametrize(
    ("model", "data", "size", "steps"),
    [(VGG7, COLOUR, 8_725_413, 24), (PADDED, DATA, 8_331_301, 26), (MOBILE, COLOUR, 1_451_787, 25)],
    ids=["vgg7", "vgg7_padded", "mobilenet_v3"],
)
def test_crnns_have_the_published_size_and_steps(model: Model, data: Data, size: int, steps: int) -> None:
    net = build(model, data, 37)
    assert parameters(net) == size
    assert count_steps(net, data) == steps


def test_compact_has_the_size_of_its_layers() -> None:
    net = build(COMPACT, DATA, 37)
    assert isinstance(net, CRNN)
    assert parameters(net.neck) == 2 * 4 * 224 * (320 + 224 + 2)
    assert parameters(net.head) == 37 * (2 * 224 + 1)
    assert parameters(net) == sum(parameters(part) for part in (net.backbone, net.neck, net.head))
    assert count_steps(net, DATA) == 25


@pytest.mark.parametrize(("model", "steps"), [(VGG7, 24), (COMPACT, 25)])
def test_logits_are_one_row_per_column_of_the_picture(model: Model, steps: int) -> None:
    net = build(model, COLOUR, 37).eval()
    assert net(torch.zeros(3, 3, 32, 100)).shape == (3, steps, 37)
    with bfloat16():
        assert net(torch.zeros(1, 3, 32, 100)).dtype == torch.float32


def test_counting_steps_leaves_the_statistics_and_the_mode() -> None:
    net = build(COMPACT, DATA, 37)
    count_steps(net, DATA)
    assert all(part.training for part in net.modules())
    assert net.backbone.bn1.running_mean is not None
    assert not net.backbone.bn1.running_mean.any()


def test_counting_steps_takes_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch._dynamo", None)  # importing it is an error
    assert count_steps(build(COMPACT, DATA, 37), DATA) == 25


def test_the_same_seed_gives_the_same_start() -> None:
    torch.manual_seed(5)
    first = build(COMPACT, DATA, 37).state_dict()
    torch.manual_seed(5)
    assert all(torch.equal(tensor, first[name]) for name, tensor in build(COMPACT, DATA, 37).state_dict().items())


@pytest.mark.parametrize(("backbone", "height"), [("vgg7", 48), ("views_cnn", 32)])
def test_a_height_that_the_backbone_does_not_take_is_refused(backbone: str, height: int) -> None:
    expected = 128 if backbone == "views_cnn" else 32
    with pytest.raises(ValueError, match=f"data.height is {height}, expected {expected}: backbone {backbone} makes"):
        build(dataclasses.replace(VGG7, backbone=backbone), dataclasses.replace(DATA, height=height), 37)


def test_a_width_of_which_the_backbone_makes_no_column_is_refused() -> None:
    with pytest.raises(ValueError, match=r"data.width is 7, expected at least 8: backbone vgg7 makes a column of so"):
        build(VGG7, dataclasses.replace(DATA, width=7), 37)
