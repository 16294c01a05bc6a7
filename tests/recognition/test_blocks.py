import hashlib
import os
from pathlib import Path
from struct import pack

import lmdb
import numpy as np
import pytest

from components.recognition.blocks import ShardWriter, open_lmdb, pack_block, unpack_block

TWO = [np.array([[[1], [2]]], dtype=np.uint8), np.array([[[3], [4]]], dtype=np.uint8)]  # height 1, width 2, gray
# The format's docstring, written out: magic, n, H, W, C, label bytes, three offsets, pixels, text.
RECORD = b"WMB1" + pack("<5I", 2, 1, 2, 1, 4) + pack("<3I", 0, 1, 4) + bytes([1, 2, 3, 4]) + b"a\xc3\xa9b"


def test_a_block_has_the_documented_bytes() -> None:
    assert pack_block(TWO, ["a", "éb"]) == RECORD


def test_a_block_reads_back() -> None:
    block = unpack_block(memoryview(RECORD), "here")
    assert block.images.tolist() == [[[[1], [2]]], [[[3], [4]]]]
    assert block.labels == ["a", "éb"]
    assert block.label(1) == "éb"
    assert not block.images.flags.writeable


@pytest.mark.parametrize(
    "record",
    [
        RECORD[:10],
        RECORD[:-1],
        RECORD + b"x",
        b"XXXX" + RECORD[4:],
        RECORD[:24] + pack("<3I", 0, 5, 4) + RECORD[36:],  # offsets that go back
        RECORD[:24] + pack("<3I", 1, 1, 4) + RECORD[36:],  # offsets that begin late
    ],
)
def test_a_damaged_block_is_refused_by_its_place(record: bytes) -> None:
    with pytest.raises(ValueError, match="here"):
        unpack_block(memoryview(record), "here")


def write(path: Path, count: int) -> str:
    rng = np.random.default_rng(0)
    with ShardWriter(path, (8, 20, 1), 1000) as writer:
        for number in range(count):
            writer.add(rng.integers(0, 256, (8, 20, 1), dtype=np.uint8), f"word{number}")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_equal_samples_give_equal_bytes(tmp_path: Path) -> None:
    first = write(tmp_path / "a.lmdb", 600)
    litter = [os.urandom(5000) for _ in range(2000)]  # freed memory with other content must not show up in the file
    del litter
    assert write(tmp_path / "b.lmdb", 600) == first


def test_a_shard_is_a_compact_single_file(tmp_path: Path) -> None:
    write(tmp_path / "a.lmdb", 600)
    assert [path.name for path in tmp_path.iterdir()] == ["a.lmdb"]
    size = (tmp_path / "a.lmdb").stat().st_size
    # 600 pictures of 160 bytes; each of the 3 blocks may lose a page, and LMDB's own pages are few.
    assert 600 * 160 < size < 600 * 160 + 600 * 20 + 8 * 4096


def test_a_shard_holds_blocks_of_256_under_big_endian_numbers(tmp_path: Path) -> None:
    write(tmp_path / "a.lmdb", 600)
    with lmdb.open(str(tmp_path / "a.lmdb"), subdir=False, readonly=True, lock=False) as environment:
        records = {bytes(key): bytes(value) for key, value in environment.begin().cursor()}
    assert list(records) == [b"\0\0\0\0", b"\0\0\0\1", b"\0\0\0\2", b"meta"]
    assert [int.from_bytes(records[key][4:8], "little") for key in list(records)[:3]] == [256, 256, 88]


def test_a_writer_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with ShardWriter(tmp_path / "a.lmdb", (1, 2, 1), 10) as writer:
            writer.add(TWO[0], "a")
            writer.add(np.zeros((9, 9, 1), dtype=np.uint8), "of another shape")

    with pytest.raises(ValueError, match=r"found a uint8 picture \(9, 9, 1\), expected uint8 \(1, 2, 1\)"):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_full_shard_of_longest_labels_fits(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "a.lmdb", (1, 2, 1), 512) as writer:
        for _ in range(512):
            writer.add(TWO[0], "x" * 4096)
    assert writer.samples == 512


@pytest.mark.parametrize("size", [0, 100, 4096, 8192, 20000, -1])
def test_a_cut_file_is_refused(size: int, tmp_path: Path) -> None:
    write(tmp_path / "a.lmdb", 600)
    whole = (tmp_path / "a.lmdb").read_bytes()
    (tmp_path / "cut.lmdb").write_bytes(whole[:size])
    with pytest.raises(ValueError, match=r"cut\.lmdb: (not a readable LMDB file|cut off)"):
        open_lmdb(tmp_path / "cut.lmdb")


def test_what_is_no_lmdb_is_refused(tmp_path: Path) -> None:
    (tmp_path / "noise").write_bytes(np.random.default_rng(0).bytes(50_000))
    with pytest.raises(ValueError, match="noise: not a readable LMDB file"):
        open_lmdb(tmp_path / "noise")
    with pytest.raises(ValueError, match="absent: not a readable LMDB file"):
        open_lmdb(tmp_path / "absent")
