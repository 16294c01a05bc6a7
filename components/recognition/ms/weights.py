"""Weights to and from the project's canonical names, which are PyTorch's."""

import numpy as np
from mindspore import Parameter, Tensor, ops

from components.recognition.checkpoint import Tensors, check_fit
from components.recognition.ms.model import Recogniser

# Only batch normalisation and embeddings are named differently; the layouts of all layers are the same.
TO_CANONICAL = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
    "embedding_table": "weight",
}


def dump(net: Recogniser) -> Tensors:
    """Return copies of all weights as float32 arrays by canonical name."""
    return {name: parameter.asnumpy().astype(np.float32, copy=True) for name, parameter in _named(net).items()}


def load(net: Recogniser, tensors: Tensors, where: str) -> None:
    """Copy weights into the recogniser; ValueError naming `where` unless names and shapes fit exactly."""
    own = _named(net)
    check_fit({name: tuple(parameter.shape) for name, parameter in own.items()}, tensors, where)
    for name, parameter in own.items():
        # In place: after `set_data` a compiled gradient function goes on with the memory that it knew.
        ops.assign(parameter, Tensor(tensors[name]))


def _named(net: Recogniser) -> dict[str, Parameter]:
    """Return the parameters and batch statistics of a network by canonical name."""
    split = [(*name.rpartition("."), parameter) for name, parameter in net.parameters_and_names()]
    return {f"{path}.{TO_CANONICAL.get(leaf, leaf)}": parameter for path, _, leaf, parameter in split}
