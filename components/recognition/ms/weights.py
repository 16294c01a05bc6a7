"""Weights of a MindSpore network under their canonical names, which are PyTorch's."""

import numpy as np
from mindspore import Parameter, Tensor, nn

from components.recognition.checkpoint import Tensors, check_fit

# Only batch normalisation is named differently; the layouts of all layers are the same.
TO_CANONICAL = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}


def parameters(net: nn.Cell) -> dict[str, Parameter]:
    """Return the parameters and batch statistics of a network by canonical name."""
    found: dict[str, Parameter] = {}
    for name, parameter in net.parameters_and_names():
        path, _, leaf = name.rpartition(".")
        found[f"{path}.{TO_CANONICAL.get(leaf, leaf)}"] = parameter
    return found


def dump(net: nn.Cell) -> Tensors:
    """Return copies of all weights as float32 arrays by canonical name."""
    return {name: parameter.asnumpy().astype(np.float32, copy=True) for name, parameter in parameters(net).items()}


def load(net: nn.Cell, tensors: Tensors, where: str) -> None:
    """Put weights into a network bit by bit; ValueError names `where` when one is missing, surplus or of another shape."""
    own = parameters(net)
    check_fit({name: tuple(parameter.shape) for name, parameter in own.items()}, tensors, where)
    for name, parameter in own.items():
        parameter.set_data(Tensor(tensors[name].astype(np.float32), parameter.dtype))
