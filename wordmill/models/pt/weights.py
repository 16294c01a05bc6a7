"""Weights to and from the project's canonical names, which are PyTorch's own."""

import numpy as np
import torch

from wordmill.models.checkpoint import Tensors, check_fit
from wordmill.models.pt.model import Recogniser

COUNTER = ".num_batches_tracked"  # BatchNorm's own counter, which nothing here reads


def dump(net: Recogniser) -> Tensors:
    """Return copies of the weights and running statistics as float32 arrays by name."""
    return {name: np.array(tensor.detach().cpu().numpy(), dtype=np.float32, order="C")
            for name, tensor in _state(net).items()}  # fmt: skip


def shapes(net: Recogniser) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all weights and running statistics by name."""
    return _shapes(_state(net))


def load_weights(net: Recogniser, tensors: Tensors, where: str) -> None:
    """Copy weights into the recogniser; ValueError naming `where` unless names and shapes fit exactly."""
    state = _state(net)
    check_fit(_shapes(state), tensors, where)
    with torch.no_grad():
        for name, tensor in state.items():
            tensor.copy_(torch.from_numpy(tensors[name]))


def _shapes(state: dict[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def _state(net: Recogniser) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in net.state_dict().items() if not name.endswith(COUNTER)}
