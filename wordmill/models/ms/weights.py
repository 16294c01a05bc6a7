"""Weights to and from the project's canonical names."""

import numpy as np
from mindspore import Parameter, Tensor, ops

from wordmill.models.checkpoint import Tensors, check_fit
from wordmill.models.ms.model import Recogniser
from wordmill.models.ms.parameters import named


def dump(net: Recogniser) -> Tensors:
    """Return copies of all weights as float32 arrays by canonical name."""
    return {name: parameter.asnumpy().astype(np.float32, copy=True) for name, parameter in named(net).items()}


def shapes(net: Recogniser) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all weights and running statistics by canonical name."""
    return _shapes(named(net))


def load_weights(net: Recogniser, tensors: Tensors, where: str) -> None:
    """Copy weights into the recogniser; ValueError naming `where` unless names and shapes fit exactly."""
    parameters = named(net)
    check_fit(_shapes(parameters), tensors, where)
    for name, parameter in parameters.items():
        # In place: after `set_data` a compiled gradient function goes on with the memory that it knew.
        ops.assign(parameter, Tensor(tensors[name]))


def _shapes(parameters: dict[str, Parameter]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(parameter.shape) for name, parameter in parameters.items()}
