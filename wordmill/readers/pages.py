"""The pages of an LMDB file, checked before LMDB reads them: it trusts them, and damage would end the process.

The layout is that of LMDB 0.9 on processors of 64 bits, little-endian (lmdb.h and mdb.c of the OpenLDAP project).
"""

import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

META = struct.Struct("<16xIIQQ" + 2 * "IHHQQQQQ" + "QQ")  # behind its page's header
MAGIC, VERSION = 0xBEEFC0DE, 1
HEADER, NODE = 16, 8  # bytes before a page's offsets, and before a node's key
BRANCH, LEAF = 1, 2  # what a page is
ELSEWHERE = 1  # of a node: its value lies on pages of its own
USUAL = 8 | 0x4000  # flags of the free pages' tree: numbers as keys, and of the file: made as one without a folder
NOWHERE = (1 << 64) - 1  # the root of an empty tree
DEPTH = 32  # levels that LMDB follows
SIZES = tuple(1 << power for power in range(9, 17))  # bytes that a page may have
AT_A_TIME = 2048  # pages

Numbers = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]


class Tree(NamedTuple):
    """What a meta page says of the records: the root's page, how many pages are used, and their size."""

    root: int
    pages: int
    size: int


def check_pages(path: Path) -> None:
    """Follow the tree of records through all its pages; ValueError where LMDB would read beside them."""
    tree = _tree(path)
    if tree.root == NOWHERE:
        return
    file = np.memmap(path, mode="r", dtype=np.uint8)[: tree.pages * tree.size].reshape(tree.pages, tree.size)
    if tree.root >= tree.pages:
        raise ValueError("damaged: its pages are no tree")
    level, seen = np.array([tree.root], dtype=np.int64), 0
    for _ in range(DEPTH):
        seen += len(level)
        if seen > tree.pages or level.min() < 2 or level.max() >= tree.pages:
            raise ValueError("damaged: its pages are no tree")
        parts = [_children(file[level[start : start + AT_A_TIME]], tree)
                 for start in range(0, len(level), AT_A_TIME)]  # fmt: skip
        level = np.concatenate(parts)
        if not len(level):
            return
        if not all(map(len, parts)):
            raise ValueError("damaged: its pages lie at several depths")
    raise ValueError(f"damaged: more than {DEPTH} levels of pages")


def _tree(path: Path) -> Tree:
    """Return what the newer of the two meta pages says."""
    length = path.stat().st_size
    with path.open("rb") as file:
        first = file.read(META.size)
        size = struct.unpack_from("<I", first, 40)[0] if len(first) == META.size else 0
        if size not in SIZES or length < 2 * size:
            raise ValueError("not a readable LMDB file")
        file.seek(size)
        second = file.read(META.size)
    found = []
    for page in (first, second):
        magic, version, address, _, other, flags, *_, main_flags, _, _, _, _, _, root, last, turn = META.unpack(page)
        if magic != MAGIC or version != VERSION:
            raise ValueError("not a readable LMDB file")
        if address or other != size or flags & ~USUAL or main_flags:
            raise ValueError("damaged, or an LMDB of another kind: expected one tree of plain records")
        found.append((turn, Tree(root, last + 1, size)))
    tree = max(found)[1]
    if tree.pages * size > length:
        raise ValueError(f"cut off: found {length} bytes, expected {tree.pages * size}")
    return tree


def _children(pages: Bytes, tree: Tree) -> Numbers:
    """Check pages (N, size) of one level, and return the numbers of those below: none below leaves."""
    kinds, lower = _two(pages, 10), _two(pages, 12)
    leaf = bool(kinds[0] == LEAF)
    if not ((kinds == (LEAF if leaf else BRANCH)) & (lower % 2 == 0) & (lower <= tree.size)).all():
        raise ValueError("damaged: a page is neither branch nor leaf")
    counts = (lower - HEADER) // 2
    if counts.min() < (1 if leaf else 2):
        raise ValueError("damaged: a page has too few nodes")
    columns = np.arange(counts.max())
    rows, column = np.nonzero(columns < counts[:, None])
    flat = np.ascontiguousarray(pages).reshape(-1)
    starts = rows * tree.size
    offsets = _two(flat, starts + HEADER + 2 * column)
    _within(offsets >= lower[rows], offsets + NODE, tree.size)
    nodes = starts + offsets
    low, high, flags, key = (_two(flat, nodes + place) for place in (0, 2, 4, 6))
    end = offsets + NODE + key
    if not leaf:
        _within(True, end, tree.size)
        return np.asarray(low | high << 16 | flags << 32, dtype=np.int64)
    far = flags == ELSEWHERE
    length = low | high << 16
    _within((flags == 0) | far, np.where(far, end + 8, end + length), tree.size)
    places = (nodes + NODE + key)[far]
    first = sum(_two(flat, places + 2 * part) << 16 * part for part in range(3))
    last = first + (HEADER + length[far] - 1) // tree.size
    _within((_two(flat, places + 6) == 0) & (first > 1), last, tree.pages - 1)
    return np.empty(0, dtype=np.int64)


def _two(content: Bytes, places: Numbers | int) -> Numbers:
    """Return the numbers of two bytes at places of flat content, or at one place of every page."""
    if isinstance(places, int):
        return np.asarray(content[:, places].astype(np.int64) | content[:, places + 1].astype(np.int64) << 8)
    return np.asarray(content[places].astype(np.int64) | content[places + 1].astype(np.int64) << 8)


def _within(right: npt.NDArray[np.bool_] | bool, ends: Numbers, most: int) -> None:
    if not (right & (ends <= most)).all():
        raise ValueError("damaged: a record reaches out of its page, or of the file")
