"""Weights that other projects saved with MindSpore."""

from pathlib import Path

import mindspore as ms
import numpy as np

from wordmill.models.checkpoint import Tensors
from wordmill.models.ms.parameters import TO_CANONICAL


def read(path: Path) -> Tensors:
    """Return what a .ckpt file holds, as float32 by name; normalisation has PyTorch's names for its parts."""
    try:
        found = ms.load_checkpoint(str(path))
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"{path}: not a checkpoint of MindSpore: {error}") from None
    split = [(*name.rpartition("."), value) for name, value in found.items() if not isinstance(value, str)]
    return {f"{path}{dot}{TO_CANONICAL.get(leaf, leaf)}": value.asnumpy().astype(np.float32)
            for path, dot, leaf, value in split}  # fmt: skip
