import dataclasses

import numpy as np
import pytest

from tests.wordmill.models.ms import COMPACT, DATA, VGG7, ms  # isort: skip  # before anything imports MindSpore
from wordmill.models.ms.model import CRNN, build, count_steps
from wordmill.recipe.sections import Data, Model

PADDED = Model(name="crnn", backbone="vgg7_padded", neck="bilstm_linked", hidden=256, layers=2)
MOBILE = Model(name="crnn", backbone="mobilenet_v3", neck="bilstm", hidden=96, layers=2)


def count(net: "ms.nn.Cell") -> int:
    return sum(weight.size for weight in net.trainable_params())


@pytest.mark.parametrize(
    ("model", "data", "size", "steps"),
    [(VGG7, DATA[3], 8_725_413, 24), (PADDED, DATA[1], 8_331_301, 26), (MOBILE, DATA[3], 1_451_787, 25)],
    ids=["vgg7", "vgg7_padded", "mobilenet_v3"],
)
def test_crnns_have_the_published_size_and_steps(model: Model, data: Data, size: int, steps: int) -> None:
    net = build(model, data, 37)
    assert count(net) == size
    assert count_steps(net, data) == steps


def test_compact_has_the_size_of_its_layers_and_25_steps() -> None:
    net = build(COMPACT, DATA[1], 37)
    assert isinstance(net, CRNN)
    assert (count(net.neck), count(net.head)) == (2 * 4 * 32 * (320 + 32 + 2), 37 * (64 + 1))
    assert count(net) == count(net.backbone) + count(net.neck) + count(net.head)
    assert count_steps(net, DATA[1]) == 25


def test_counting_steps_leaves_the_running_statistics_and_the_mode_alone() -> None:
    net = build(COMPACT, DATA[1], 37)
    count_steps(net, DATA[1])
    assert net.training
    assert net.backbone.bn1.training
    assert np.array_equal(net.backbone.bn1.moving_mean.asnumpy(), np.zeros(32))
    assert np.array_equal(net.backbone.bn1.moving_variance.asnumpy(), np.ones(32))


@pytest.mark.parametrize(("backbone", "height"), [("vgg7", 48), ("views_cnn", 32)])
def test_a_height_that_the_backbone_does_not_take_is_refused(backbone: str, height: int) -> None:
    expected = 128 if backbone == "views_cnn" else 32
    with pytest.raises(ValueError, match=f"data.height is {height}, expected {expected}: backbone {backbone} makes"):
        build(dataclasses.replace(VGG7, backbone=backbone), dataclasses.replace(DATA[1], height=height), 37)
