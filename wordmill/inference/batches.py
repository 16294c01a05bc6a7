"""Batches of a fixed size, for files that take no other."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Call = Callable[[Array], list[Array]]  # images (N, ...) as a file takes them, to its outputs (N, ...) in their order


def in_batches(call: Call, size: int, images: Array) -> list[Array]:
    """Return a file's outputs for any number of images, which it takes `size` at a time.

    The last batch is filled up with copies of its first image; what the file says of these is cut off.
    """
    parts = []
    for start in range(0, len(images), size):
        part = images[start : start + size]
        filler = np.repeat(part[:1], size - len(part), axis=0)
        parts.append([output[: len(part)] for output in call(np.concatenate([part, filler]))])
    return [np.concatenate(outputs) for outputs in zip(*parts, strict=True)]
