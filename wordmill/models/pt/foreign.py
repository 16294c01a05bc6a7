"""Weights that other projects saved with PyTorch."""

import warnings
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
        with warnings.catch_warnings(action="ignore"):  # of a damaged file it would tell more than one line
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle's own error, or RuntimeError or EOFError for what is no such file
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"{path}: not a file of PyTorch that holds tensors and plain values alone: {reason}") from None
    state = _state(found)
    if not state or not all(_is_weight(name, values) for name, values in state.items()):
        raise ValueError(f"{path}: expected weights by name, or a training state with them under 'state_dict', "
                         f"found {type(found).__name__}")  # fmt: skip
    # A tensor may say that it is larger than what lies in the file for it: all of it at once would fill the memory.
    size = sum(values.numel() * values.element_size() for values in state.values())
    if size > path.stat().st_size:
        raise ValueError(f"{path}: its weights say that they have {size} bytes, the file has {path.stat().st_size}")
    return {name.removeprefix(WRAPPER): np.asarray(values.float().numpy())
            for name, values in state.items() if not name.endswith(COUNTER)}  # fmt: skip


def _is_weight(name: Any, values: Any) -> bool:
    """Tell whether an entry is a name with numbers that lie one behind the other."""
    dense = isinstance(values, torch.Tensor) and values.layout == torch.strided and values.device.type == "cpu"
    return isinstance(name, str) and dense and not (values.is_complex() or values.is_quantized)


def _state(found: Any) -> dict[str, Any]:
    inner = found.get("state_dict", found) if isinstance(found, dict) else {}
    return inner if isinstance(inner, dict) else {}
