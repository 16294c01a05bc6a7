"""Weights that other projects saved with MindSpore.

Its own reader takes an entry's shape on trust and writes beyond the tensor where there are more bytes.
"""

import math
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError
from mindspore.train.checkpoint_pb2 import Checkpoint

from wordmill.models.checkpoint import Tensors
from wordmill.models.ms.parameters import TO_CANONICAL

TYPES = {"Float16": "<f2", "Float32": "<f4", "Float64": "<f8", "BFloat16": "<u2", "Bool": "?",
         "Int8": "i1", "Int16": "<i2", "Int32": "<i4", "Int64": "<i8",
         "UInt8": "u1", "UInt16": "<u2", "UInt32": "<u4", "UInt64": "<u8"}  # fmt: skip
SUM, SUM_BYTES = b"crc_num", 17  # what may stand behind the message, and how much that is


def read(path: Path) -> Tensors:
    """Return what a .ckpt file holds, as float32 by name; normalisation has PyTorch's names for its parts."""
    found = Tensors()
    for tag, entries in groupby(_entries(path), lambda entry: str(entry.tag)):  # a large one has several
        parts = [entry.tensor for entry in entries]
        if parts[-1].tensor_type != "str":
            layer, dot, leaf = tag.rpartition(".")
            content = b"".join(part.tensor_content for part in parts)
            found[f"{layer}{dot}{TO_CANONICAL.get(leaf, leaf)}"] = _values(parts[-1], content, f"{path}: {tag[:80]}")
    if not found:
        raise ValueError(f"{path}: not a checkpoint of MindSpore: there are no weights in it")
    return found


def _entries(path: Path) -> list[Any]:
    """Return the message's entries: `tag`, and `tensor` with `dims`, `tensor_type` and `tensor_content`."""
    content, message = path.read_bytes(), Checkpoint()
    if content[-SUM_BYTES:].startswith(SUM):
        content = content[:-SUM_BYTES]
    try:
        message.ParseFromString(content)
    except DecodeError:
        raise ValueError(f"{path}: not a checkpoint of MindSpore: another file, or damaged") from None
    return list(message.value)


def _values(tensor: Any, content: bytes, where: str) -> npt.NDArray[np.float32]:
    """Return an entry's values as float32."""
    kind, shape = tensor.tensor_type, tuple(tensor.dims)
    if kind not in TYPES:
        raise ValueError(f"{where}: type '{kind[:20]}', expected one of {', '.join(TYPES)}")
    shape = () if shape == (0,) else shape  # as a single number is written
    size = math.prod(shape) * np.dtype(TYPES[kind]).itemsize
    if min(shape, default=1) < 1 or len(content) != size:
        raise ValueError(f"{where}: shape {shape} of {kind} has {len(content)} bytes, expected {size}: damaged")
    values = np.frombuffer(content, TYPES[kind]).reshape(shape)
    if kind == "BFloat16":
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float32)
