"""Weights that PaddlePaddle saved, `.pdparams`: a pickle of a dict of arrays, which is not unpickled.

A pickle is a program. pickle.Unpickler with names of NumPy alone allowed would still hand a stranger's values to
NumPy's own `__setstate__`, and takes memory by a stranger's numbers. So the few opcodes that such files are written in
are gone through here: nothing is imported or called, arrays are made of bytes that are in the file, and all other
opcodes and names end the reading. paddle.save writes protocols 2 to 4 (paddle/framework/io.py).
"""

import math
import pickletools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wordmill.models.checkpoint import Tensors

KINDS = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1")
# What a file may ask for by module and name; none of it is what is called here.
ARRAY, KIND, LATIN = "numpy ndarray", "numpy dtype", "_codecs encode"
MAKERS = ("numpy.core.multiarray _reconstruct", "numpy._core.multiarray _reconstruct")
TUPLES = ("builtins tuple", "__builtin__ tuple")  # a tensor of PaddlePaddle 2.1: its name and its array
DICT, NOTHING = "collections OrderedDict", "__builtin__ bytes"
NAMES = (*MAKERS, ARRAY, KIND, LATIN, *TUPLES, DICT, NOTHING)
# PaddlePaddle's own tables beside the weights: the names of parameters in its graph, and arrays over 1 GiB in parts.
GRAPH_NAMES, PARTS = "StructuredToParameterName@@", "UnpackBigParamInfor@@"

VALUES = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
          "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BINSTRING", "SHORT_BINSTRING"}  # fmt: skip
CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
TUPLE_SIZES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


@dataclass(frozen=True)
class _Name:
    """Something that the file asks for by module and name."""

    name: str


@dataclass(frozen=True)
class _Kind:
    """A dtype."""

    name: str


@dataclass(frozen=True)
class _Latin:
    """Bytes that protocol 2 has as the text of their Latin-1 characters."""

    text: str

    def __len__(self) -> int:
        return len(self.text)


@dataclass
class _Array:
    """An array that is told piece by piece."""

    shape: tuple[int, ...] = ()
    kind: str = ""
    fortran: bool = False
    content: bytes | _Latin = b""

    def values(self) -> npt.NDArray[np.float32]:
        """Return it as float32."""
        content = self.content.text.encode("latin-1") if isinstance(self.content, _Latin) else self.content
        flat = np.frombuffer(content, f"<{self.kind}")
        with np.errstate(over="ignore"):
            return np.array(flat.reshape(self.shape, order="F" if self.fortran else "C"), np.float32, order="C")


def read_pdparams(path: Path) -> Tensors:
    """Return the weights of a .pdparams file, as float32 by PaddlePaddle's names; ValueError for any other file."""
    content = path.read_bytes()
    try:
        found = _Pickle().read(content)
        arrays = dict(_arrays(found))
        # Written arrays have bytes of their own: many that share some would be a small file that fills the memory.
        if sum(len(array.content) for array in arrays.values()) > len(content):
            raise ValueError("its arrays have more bytes than the file")
        return {name: array.values() for name, array in arrays.items()}
    except (ValueError, IndexError) as error:
        told = "damaged: it ends within, or takes what is not there" if isinstance(error, IndexError) else error
        raise ValueError(f"{path}: no weights of PaddlePaddle: {told}") from None


def _arrays(found: Any) -> Iterator[tuple[str, _Array]]:
    """Give the arrays of a file's dict by name."""
    if not isinstance(found, dict) or not found:
        raise ValueError(f"expected arrays by name, found {_told(found)}")
    if PARTS in found:
        raise ValueError(f"found {PARTS}, arrays in parts: expected whole ones, as protocol 4 has them")
    for name, value in found.items():
        if name == GRAPH_NAMES:
            continue
        array = value[1] if isinstance(value, tuple) and len(value) == 2 else value
        if not isinstance(array, _Array) or not array.kind:
            raise ValueError(f"{name[:80]!r}: expected an array, found {_told(array)}")
        yield name, array


def _told(value: Any) -> str:
    return f"{value.name[:80]!r}" if isinstance(value, _Name) else type(value).__name__.strip("_")


@dataclass
class _Pickle:
    """What a pickle has put together so far: values, those before each open mark, and those to be taken again."""

    stack: list[Any] = field(default_factory=list)
    marks: list[list[Any]] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)

    def read(self, content: bytes) -> Any:
        """Return what a pickle ends with."""
        for name, argument, place in _opcodes(content):
            if name == "STOP":
                break
            try:
                self._take(name, argument)
            except ValueError as error:
                raise ValueError(f"{error} (at byte {place})") from None
        return self.stack.pop()

    def _take(self, name: str, argument: Any) -> None:
        """Do what an opcode says."""
        if name in VALUES:
            self.stack.append(argument)
        elif name in CONSTANTS:
            self.stack.append(CONSTANTS[name])
        elif name in ("EMPTY_DICT", "EMPTY_LIST"):
            self.stack.append({} if name == "EMPTY_DICT" else [])
        elif name in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
            self.memo[len(self.memo) if name == "MEMOIZE" else argument] = self.stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            if argument not in self.memo:
                raise ValueError(f"damaged: it takes value {argument}, which is not there")
            self.stack.append(self.memo[argument])
        elif name not in ("PROTO", "FRAME"):
            self._put_together(name, argument)

    def _put_together(self, name: str, argument: Any) -> None:
        """Do what an opcode says that makes one value of several."""
        if name == "MARK":
            self.marks.append(self.stack)
            self.stack = []
        elif name == "TUPLE":
            self._push(tuple(self._behind_mark()))
        elif name in TUPLE_SIZES:
            self._push(tuple([self.stack.pop() for _ in range(TUPLE_SIZES[name])][::-1]))
        elif name in ("SETITEM", "SETITEMS"):
            self._set([self.stack.pop(), self.stack.pop()][::-1] if name == "SETITEM" else self._behind_mark())
        elif name in ("APPEND", "APPENDS"):
            self._append([self.stack.pop()] if name == "APPEND" else self._behind_mark())
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            self._push(_known(argument if name == "GLOBAL" else " ".join(self._texts(2))))
        elif name == "REDUCE":
            given, called = self.stack.pop(), self.stack.pop()
            self._push(_made(called, given))
        elif name == "BUILD":
            state = self.stack.pop()
            _tell(self.stack[-1], state)
        else:
            raise ValueError(f"found opcode {name}, which weights are not written in")

    def _push(self, value: Any) -> None:
        self.stack.append(value)

    def _behind_mark(self) -> list[Any]:
        found, self.stack = self.stack, self.marks.pop()
        return found

    def _texts(self, count: int) -> list[str]:
        texts = [self.stack.pop() for _ in range(count)][::-1]
        if not all(isinstance(text, str) for text in texts):
            raise ValueError("found a name that is no text")
        return texts

    def _set(self, items: list[Any]) -> None:
        target, names = self.stack[-1], items[::2]
        if not isinstance(target, dict) or len(items) % 2 or not all(isinstance(name, str) for name in names):
            raise ValueError(f"expected a dict and texts as its keys, found {_told(target)}")
        target.update(zip(names, items[1::2], strict=True))

    def _append(self, items: list[Any]) -> None:
        if not isinstance(self.stack[-1], list):
            raise ValueError(f"expected a list to add to, found {_told(self.stack[-1])}")
        self.stack[-1] += items


def _opcodes(content: bytes) -> Iterator[tuple[str, Any, int]]:
    """Give a pickle's opcodes, what stands behind each, and where it lies; STOP is the last."""
    try:
        for opcode, argument, place in pickletools.genops(content):
            yield opcode.name, argument, place or 0
    except ValueError as error:  # of the generator: the one who asks raises outside of it
        raise ValueError(f"no pickle, or damaged: {error}") from None


def _known(name: str) -> _Name:
    if name not in NAMES:
        raise ValueError(f"found {name[:80]!r}, which is not run: expected one of {', '.join(NAMES)}")
    return _Name(name)


def _made(called: Any, given: Any) -> Any:
    """Return what one of NAMES makes of what it is given."""
    name = called.name if isinstance(called, _Name) else ""
    match given:
        case (_Name(name=kind), (0,), b"b" | "b" | _Latin(text="b")) if name in MAKERS and kind == ARRAY:
            return _Array()
        case (str(kind), *_) if name == KIND and kind in KINDS:
            return _Kind(kind)
        case (str(text), "latin1") if name == LATIN:
            return _Latin(text)
        case (tuple(values),) if name in TUPLES:
            return values
        case () if name == DICT:
            return {}
        case () if name == NOTHING:  # no bytes, in protocol 2
            return b""
    raise ValueError(f"found {_told(called)} of what weights do not have: expected arrays of {', '.join(KINDS)}")


def _tell(target: Any, state: Any) -> None:
    """Tell an array its shape, kind and bytes, or a kind the order of its bytes."""
    match target, state:
        case _Kind(), (3, "<" | "|", None, None, None, -1, -1, 0):
            return
        case _Array(), (1, tuple(shape), _Kind(name=kind), bool(fortran), (bytes() | _Latin() | str()) as content):
            content = _Latin(content) if isinstance(content, str) else content
            size = _size(shape, np.dtype(kind).itemsize)
            if len(content) != size:
                raise ValueError(f"shape {shape} of {kind} has {len(content)} bytes, expected {size}: damaged")
            target.shape, target.kind, target.fortran, target.content = shape, kind, fortran, content
            return
    raise ValueError(f"{_told(target)} is told what weights do not have: expected arrays, the least byte first")


def _size(shape: tuple[Any, ...], item: int) -> int:
    """Return how many bytes a shape has."""
    if not all(isinstance(side, int) and 0 <= side < 2**40 for side in shape) or len(shape) > 8:
        raise ValueError("found a shape that is none")
    return item * math.prod(map(int, shape))
