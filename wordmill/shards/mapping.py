"""Files as memory, and pictures gathered from anywhere in it: no copy between the page cache and a batch."""

import ctypes
import mmap
import os
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
WILLNEED = 3  # of madvise, on Linux and macOS alike
FAILED = ctypes.c_void_p(-1).value

# Python's own mmap keeps a file descriptor open for each map; sets have more files than a process may open.
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


class _Memory:
    """Memory as NumPy takes it: items of a type at an address, each `stride` bytes behind the one before."""

    def __init__(self, address: int, kind: str, items: int, stride: int) -> None:
        self.__array_interface__ = {
            "version": 3, "data": (address, True), "typestr": kind, "shape": (items,), "strides": (stride,)
        }  # fmt: skip


def map_file(path: Path) -> Bytes:
    """Return a file's content, uint8 (bytes,), read-only; it stays mapped while anybody holds a part of the array."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if not size:
            return np.empty(0, dtype=np.uint8)
        address = _libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, file.fileno(), 0)
    if address == FAILED:
        code = ctypes.get_errno()
        raise OSError(code, f"cannot map {size} bytes: {os.strerror(code)}", str(path))
    memory = _Memory(address, "|u1", size, 1)
    weakref.finalize(memory, _libc.munmap, address, size)
    return np.asarray(memory)


def read_ahead(part: Bytes) -> None:
    """Have the kernel read a part of a mapped file from disk, without waiting for it."""
    start = address_of(part) // mmap.PAGESIZE * mmap.PAGESIZE
    _libc.madvise(start, address_of(part) + part.size - start, WILLNEED)  # a hint: it may do nothing


def address_of(array: npt.NDArray[Any]) -> int:
    """Return where an array's first byte lies in memory."""
    return int(array.__array_interface__["data"][0])


class Gatherer:
    """Copies items of one size from many arrays, which it holds, as if they were one behind the other."""

    def __init__(self, arrays: Sequence[Bytes]) -> None:
        """Take arrays (n, ...) of items of one shape."""
        self.arrays, self.size = arrays, int(np.prod(arrays[0].shape[1:]))
        starts = np.array([address_of(array) for array in arrays])
        counts = [len(array) for array in arrays]
        ends = np.cumsum(counts)
        within = np.arange(ends[-1]) - np.repeat(ends - counts, counts)
        self.offsets = np.repeat(starts - starts.min(), counts) + within * self.size
        # Items of every address from the lowest to the highest: only those at `offsets` are ever touched.
        self.items = np.asarray(_Memory(int(starts.min()), f"|V{self.size}", int(self.offsets.max()) + 1, 1))

    def take(self, places: npt.NDArray[np.int64]) -> Bytes:
        """Return items, uint8 (n, size), by their number in the arrays."""
        found: Bytes = self.items[self.offsets[places]].view(np.uint8)
        return found.reshape(len(places), self.size)
