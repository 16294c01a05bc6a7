import numpy as np
import pytest
import torch

from tests.wordmill.training.tiny import DATA, MODEL
from wordmill.models.pt.model import build
from wordmill.models.pt.weights import dump, load_weights


def test_names_are_the_canonical_ones() -> None:
    tensors = dump(build(MODEL, DATA, 37))
    norm = [f"backbone.bn{n}.{part}" for n in range(1, 8) for part in ("weight", "bias", "running_mean", "running_var")]
    parts = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    rnn = [f"neck.rnn.{part}{way}" for part in parts for way in ("", "_reverse")]
    convolutions = [f"backbone.conv{n}.weight" for n in range(1, 8)]
    assert set(tensors) == {*norm, *rnn, *convolutions, "head.weight", "head.bias"}
    assert {tensor.dtype for tensor in tensors.values()} == {np.dtype(np.float32)}
    assert tensors["backbone.conv7.weight"].shape == (320, 256, 2, 3)


def test_weights_come_back_bit_for_bit_and_are_copies() -> None:
    source, target = build(MODEL, DATA, 37), build(MODEL, DATA, 37)
    source.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    tensors = dump(source)
    load_weights(target, tensors, "here")
    again = dump(target)
    assert all(np.array_equal(tensors[name], again[name]) for name in tensors)
    assert all(tensor.flags.c_contiguous for tensor in tensors.values())
    torch.nn.init.zeros_(source.head.weight)
    assert tensors["head.weight"].any()


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"head.bias": None}, r"model.safetensors: .*missing \['head.bias'\]"),
        ({"extra": np.zeros(1, np.float32)}, r"surplus \['extra'\]"),
        ({"head.bias": np.zeros(38, np.float32)}, r"head.bias is \(38,\), expected \(37,\)"),
    ],
)
def test_weights_that_do_not_fit_are_refused(change: dict[str, np.ndarray | None], found: str) -> None:
    net = build(MODEL, DATA, 37)
    before = dump(net)
    changed = {name: tensor for name, tensor in {**before, **change}.items() if tensor is not None}
    with pytest.raises(ValueError, match=found):
        load_weights(net, changed, "model.safetensors")
    assert all(np.array_equal(tensor, before[name]) for name, tensor in dump(net).items())
