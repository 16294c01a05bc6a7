import itertools
from contextlib import nullcontext
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch

from tests.wordmill.models.ms import cell_by_cell, ms  # isort: skip  # before anything imports MindSpore
from tests import rounding
from wordmill.models.checkpoint import Tensors
from wordmill.models.ms import backbones as ms_backbones
from wordmill.models.ms import mobilenet as ms_mobilenet
from wordmill.models.ms import necks as ms_necks
from wordmill.models.ms import resnet as ms_resnet
from wordmill.models.ms import svtr as ms_svtr
from wordmill.models.ms import weights as ms_weights
from wordmill.models.pt import backbones as pt_backbones
from wordmill.models.pt import mobilenet as pt_mobilenet
from wordmill.models.pt import necks as pt_necks
from wordmill.models.pt import resnet as pt_resnet
from wordmill.models.pt import svtr as pt_svtr
from wordmill.models.pt import weights as pt_weights

CHANNELS = {
    "compact": 1, "separable": 1, "vgg7": 3, "vgg7_padded": 1, "vgg7_dtrb": 1, "resnet34_vd": 3,
    "resnet34_vd_padded": 3, "mobilenet_v3": 3, "views_cnn": 3,
}  # fmt: skip
# The padded one is resnet34_vd but for its pool, which has a test of its own.
WHOLE = [pytest.param(name, marks=pytest.mark.slow) if name == "resnet34_vd_padded" else name for name in CHANNELS]
NECKS = [("bilstm", 2), ("bilstm_linked", 1), ("bilstm_linked", 3), ("none", 0)]


def backbones(name: str) -> tuple[torch.nn.Module, "ms.nn.Cell", np.ndarray]:
    """Return both twins of a backbone, and pictures for them."""
    torch.manual_seed(6)
    twins = pt_backbones.BACKBONES[name](CHANNELS[name]), ms_backbones.BACKBONES[name](CHANNELS[name])
    shape = (2, 3, 128, 512) if name == "views_cnn" else (2, CHANNELS[name], 32, 100)
    return *twins, np.random.default_rng(8).uniform(-1, 1, shape).astype(np.float32)


def give_both(one: torch.nn.Module, other: "ms.nn.Cell") -> Tensors:
    """Load both twins with the same weights, as lively as after training, and return them."""
    rng = np.random.default_rng(6)
    tensors = pt_weights.dump(one)
    for name, tensor in tensors.items():
        if "bn" in name.split(".")[-2]:
            tensors[name] = rng.uniform(0.5, 1.5, tensor.shape).astype(np.float32)
    pt_weights.load_weights(one, tensors, "torch")
    ms_weights.load_weights(other, tensors, "mindspore")
    return tensors


def assert_alike(one: torch.Tensor, other: "ms.Tensor") -> None:
    assert tuple(other.shape) == tuple(one.shape)
    assert one.std() > 1e-3
    assert np.abs(one.detach().numpy() - other.asnumpy()).max() <= 1e-4


def test_every_part_is_tested() -> None:
    assert set(CHANNELS) == set(pt_backbones.BACKBONES) == set(ms_backbones.BACKBONES)
    assert {name for name, _ in NECKS} == set(pt_necks.NECKS) == set(ms_necks.NECKS)


@pytest.mark.parametrize("name", WHOLE)
def test_backbones_of_the_same_weights_give_the_same_features(name: str) -> None:
    one, other, images = backbones(name)
    give_both(one.eval(), other.set_train(False))
    with torch.no_grad():
        features = one(torch.from_numpy(images))
    other.set_inputs(ms.Tensor(shape=[None, *images.shape[1:]], dtype=ms.float32))
    assert_alike(features, other(ms.Tensor(images)))
    assert_alike(features[:1], other(ms.Tensor(images[:1])))


@pytest.mark.parametrize("name", WHOLE)
def test_in_training_mode_too_with_the_same_running_statistics_after_it(name: str) -> None:
    one, other, images = backbones(name)
    images = images[:1] if name == "views_cnn" else images  # of four views
    tensors = give_both(one.train(), other.set_train())
    with torch.no_grad():
        assert_alike(one(torch.from_numpy(images)), other(ms.Tensor(images)))
    left, right = pt_weights.dump(one), ms_weights.dump(other)
    for leaf, tensor in tensors.items():
        assert np.array_equal(left[leaf], tensor) == (".running_" not in leaf), leaf
        assert np.allclose(left[leaf], right[leaf], rtol=1e-4, atol=1e-5), leaf


@pytest.mark.arithmetic
@pytest.mark.parametrize(("name", "layers"), NECKS)
def test_necks_of_the_same_weights_give_the_same_features(name: str, layers: int) -> None:
    torch.manual_seed(7)
    one, other = pt_necks.NECKS[name](12, 8, layers), ms_necks.NECKS[name](12, 8, layers)
    give_both(one, other)
    columns = np.random.default_rng(9).normal(size=(3, 12, 1, 7)).astype(np.float32)
    assert_alike(one(torch.from_numpy(columns)), other(ms.Tensor(columns)))


# SVTR with a block a stage, the first of which mixes near, and few channels.
FEW = {"SVTR_STAGES": ((4, 1, 2), (6, 1, 2), (8, 1, 4)), "SVTR_LOCAL": 1, "SVTR_COLUMNS": 5}


def small_svtr() -> tuple[Any, Any]:
    with patch.multiple(pt_svtr, **FEW), patch.multiple(ms_svtr, **FEW):
        return torch.nn.Sequential(pt_svtr.SvtrTiny(6, 16, 20)), ms.nn.SequentialCell(ms_svtr.SvtrTiny(6, 16, 20))


BLOCKS = {
    "svtr": small_svtr(),
    "residual": tuple(m.BasicBlock(6, 8, (2, 1), projects=True) for m in (pt_resnet, ms_resnet)),
    "swishing": tuple(m.InvertedResidual(6, 5, 16, 6, True, True, 1) for m in (pt_mobilenet, ms_mobilenet)),
    "striding": tuple(m.InvertedResidual(6, 3, 16, 7, True, False, 2) for m in (pt_mobilenet, ms_mobilenet)),
    "mixing near": tuple(m.MixingBlock(1, 10, 2, (6, 8)) for m in (pt_svtr, ms_svtr)),
    "mixing all": tuple(m.MixingBlock(11, 10, 2, (6, 8)) for m in (pt_svtr, ms_svtr)),
    "merging": tuple(m.Merge(10, 6, (6, 8)) for m in (pt_svtr, ms_svtr)),
}


@pytest.mark.arithmetic
@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_of_the_same_weights_have_the_same_gradients(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = BLOCKS[name]
    if name == "svtr":  # a whole network, which looks at its numbers when it computes, too
        for module, (constant, value) in itertools.product((pt_svtr, ms_svtr), FEW.items()):
            monkeypatch.setattr(module, constant, value)
    torch.manual_seed(11)
    for weight in one.parameters():
        torch.nn.init.normal_(weight, std=0.3)  # so large that something passes every ReLU
    give_both(one.eval(), other.set_train(False))
    rng = np.random.default_rng(4)
    images = rng.normal(size=(3, 6, 16, 20) if name == "svtr" else (3, 6, 8, 10)).astype(np.float32)
    if name in ("mixing near", "mixing all", "merging"):  # of patches
        images = images.reshape(3, 48, 10)
    slopes = rng.normal(size=one(torch.from_numpy(images)).shape).astype(np.float32)

    def loss(net: torch.nn.Module) -> torch.Tensor:
        return (net(torch.from_numpy(images)) * torch.from_numpy(slopes)).sum()

    one.zero_grad()
    torch.autograd.backward(loss(one))

    def total(pictures: ms.Tensor) -> ms.Tensor:
        return (other(pictures) * ms.Tensor(slopes)).sum()

    with cell_by_cell() if name == "svtr" else nullcontext():  # its graph would take 8 s to compile
        gradients = ms.ops.grad(total, None, ms.ParameterTuple(other.trainable_params()))(ms.Tensor(images))
    exact, found = rounding.measure(one, loss), [gradient.asnumpy() for gradient in gradients]
    assert all(np.linalg.norm(gradient) > 1e-3 for gradient in exact.exact.values())
    exact.assert_near(rounding.gradients(one))
    exact.assert_near(dict(zip(exact.exact, found, strict=True)))


@pytest.mark.parametrize(
    ("pool", "kernel", "stride", "padding", "columns"),
    [(ms_backbones.PaddedPool(), 2, (2, 1), (0, 1), 6), (ms_resnet.SidesPool(), 3, 2, 1, 3)],
    ids=["two", "three"],
)
def test_padded_pools_are_pytorchs_with_their_gradient(
    pool: "ms.nn.Cell", kernel: int, stride: int, padding: int, columns: int
) -> None:
    rng = np.random.default_rng(5)
    x = rng.uniform(0.1, 1.0, (2, 3, 4, 5)).astype(np.float32)
    slopes = rng.normal(size=(2, 3, 2, columns)).astype(np.float32)
    source = torch.from_numpy(x).requires_grad_()
    expected = torch.nn.functional.max_pool2d(source, kernel, stride, padding)
    (expected * torch.from_numpy(slopes)).sum().backward()

    def total(features: ms.Tensor) -> ms.Tensor:
        return (pool(features) * ms.Tensor(slopes)).sum()

    assert source.grad is not None
    assert np.array_equal(pool(ms.Tensor(x)).asnumpy(), expected.detach().numpy())
    assert np.allclose(ms.ops.grad(total)(ms.Tensor(x)).asnumpy(), source.grad.numpy(), atol=1e-6)
