import numpy as np
import pytest

from tests.wordmill.models.ms import COMPACT, DATA
from wordmill.models.ms.model import build
from wordmill.models.ms.weights import dump, load_weights


def test_names_are_canonical() -> None:
    names = set(dump(build(COMPACT, DATA[1], 37)))
    layers = range(1, 8)
    leaves = ("weight", "bias", "running_mean", "running_var")
    expected = {f"backbone.conv{i}.weight" for i in layers} | {
        f"backbone.bn{i}.{leaf}" for i in layers for leaf in leaves
    }
    for side in ("", "_reverse"):
        expected |= {f"neck.rnn.{kind}_l0{side}" for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
    assert names == expected | {"head.weight", "head.bias"}


def test_a_round_trip_is_exact_to_the_bit() -> None:
    rng = np.random.default_rng(2)
    net = build(COMPACT, DATA[1], 37)
    tensors = {name: rng.normal(size=tensor.shape).astype(np.float32) for name, tensor in dump(net).items()}
    load_weights(net, tensors, "here")
    back = dump(net)
    assert all(back[name].tobytes() == tensors[name].tobytes() for name in tensors)
    assert {tensor.dtype for tensor in back.values()} == {np.dtype(np.float32)}


def test_dumped_weights_do_not_follow_the_network() -> None:
    net = build(COMPACT, DATA[1], 37)
    before = dump(net)
    load_weights(net, {name: tensor + 1 for name, tensor in before.items()}, "here")
    assert np.array_equal(dump(net)["head.bias"], before["head.bias"] + 1)


def test_weights_that_do_not_fit_are_refused_by_name() -> None:
    net = build(COMPACT, DATA[1], 37)
    tensors = dump(net)
    tensors["surplus"] = tensors.pop("head.bias")
    tensors["head.weight"] = tensors["head.weight"][:30]
    with pytest.raises(ValueError, match=r"spot: .* missing \['head.bias'\], surplus \['surplus'\].*\(30, 64\)"):
        load_weights(net, tensors, "spot")
