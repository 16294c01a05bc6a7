"""Weights that other projects saved with PyTorch."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from wordmill.models.checkpoint import Tensors
from wordmill.models.pt.weights import COUNTER

WRAPPER = "module."  # what DataParallel and DistributedDataParallel put before every name


def read(path: Path) -> Tensors:
    """Return the weights of a .pth file, as float32 by name; of a training state its `state_dict` alone.

    Nothing is unpickled but tensors and plain values: a file that needs more is refused.
    """
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle's own error, or RuntimeError or EOFError for what is no such file
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path}: not a file of PyTorch that holds tensors and plain values alone: {reason}") from None
    state = _state(found)
    if not state or not all(isinstance(values, torch.Tensor) for values in state.values()):
        raise ValueError(f"{path}: expected weights by name, or a training state with them under 'state_dict', "
                         f"found {type(found).__name__}")  # fmt: skip
    return {name.removeprefix(WRAPPER): np.asarray(values.float().numpy())
            for name, values in state.items() if not name.endswith(COUNTER)}  # fmt: skip


def _state(found: Any) -> dict[str, Any]:
    inner = found.get("state_dict", found) if isinstance(found, dict) else {}
    return inner if isinstance(inner, dict) else {}
