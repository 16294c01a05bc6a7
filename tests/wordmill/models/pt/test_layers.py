import dataclasses

import numpy as np
import numpy.typing as npt
import pytest
import torch

from tests.wordmill.training.tiny import DATA, MODEL
from wordmill.models.pt.layers import Dropout
from wordmill.models.pt.model import build

SEEDS = np.array([0, 1, -1, 123_456_789, -(2**31)], np.int32)


def kept(seeds: npt.NDArray[np.int32], salt: int, size: int, p: float) -> npt.NDArray[np.bool_]:
    """The hash in unsigned arithmetic: which of a sample's values are kept, (N, size)."""
    places = np.arange(size, dtype=np.uint32)
    h = seeds.view(np.uint32)[:, None] + (places + np.uint32(1)) * np.uint32(0x9E3779B1)
    h = h + np.uint32(salt * 0x85EBCA77 % 2**32)
    h = (h ^ (h >> np.uint32(16))) * np.uint32(0x7FEB352D)
    h = (h ^ (h >> np.uint32(15))) * np.uint32(0x846CA68B)
    h = h ^ (h >> np.uint32(16))
    return (h >> np.uint32(1)) >= round(p * 2**31)


@pytest.mark.parametrize(("p", "salt"), [(0.5, 0), (0.1, 1), (0.1, 64)])
def test_dropout_is_the_hash_of_seed_place_and_salt(p: float, salt: int) -> None:
    x = torch.from_numpy(np.random.default_rng(3).normal(size=(5, 4, 6, 100)).astype(np.float32))
    expected = x.numpy() * kept(SEEDS, salt, 2400, p).reshape(x.shape) / (1 - p)
    layer, seeds = Dropout(p), torch.from_numpy(SEEDS)
    assert np.allclose(layer(x, seeds, salt).numpy(), expected, rtol=1e-6)
    # The place is that of the logical order, whatever the order in memory.
    turned = layer(x.to(memory_format=torch.channels_last), seeds, salt)
    assert np.allclose(turned.numpy(), expected, rtol=1e-6)
    assert abs((expected == 0).mean() - p) < 0.02
    masks = layer.masks(seeds, torch.tensor([7, salt], dtype=torch.int32), 2400)
    assert torch.equal(x * masks[:, 1].reshape(x.shape), layer(x, seeds, salt))
    assert torch.equal(layer.eval()(x, seeds, salt), x)


def test_dropout_by_hand() -> None:
    """Seed 0, salt 0, place 0: 0x9E3779B1 is mixed to 0x6D523710, whose upper 31 bits are 0.42703575 of 2^31."""
    one, zero = torch.ones(1, 1), torch.zeros(1, dtype=torch.int32)
    assert Dropout(0.427035)(one, zero, 0).item() > 0
    assert Dropout(0.427036)(one, zero, 0).item() == 0


def test_the_features_of_views_cnn_alone_are_dropped_and_by_halves() -> None:
    model = dataclasses.replace(MODEL, name="seq2seq", decoder_hidden=16)
    views = dataclasses.replace(model, backbone="views_cnn")
    net = build(views, dataclasses.replace(DATA, height=128, width=512), 38)
    features: list[torch.Tensor] = []
    net.neck.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0].detach()))
    images, seeds = torch.randn(1, 1, 128, 512), torch.from_numpy(SEEDS[3:4])
    with torch.no_grad():
        net.backbone.bn11.bias.fill_(50.0)  # above 0 all through, so that ReLU leaves no zeros of its own
        net.encode(images, seeds)
    assert features[0].shape == (1, 128, 1, 64)
    assert np.array_equal(features[0].numpy() != 0, kept(SEEDS[3:4], 0, 8192, 0.5).reshape(1, 128, 1, 64))
    assert build(model, DATA, 38).dropout is None
