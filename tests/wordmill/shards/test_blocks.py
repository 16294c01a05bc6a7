import hashlib
import os
from pathlib import Path
from struct import pack

import lmdb
import numpy as np
import pytest
import xxhash

from wordmill.pictures.image import PICTURE_KEYS
from wordmill.recipe.sections import Data
from wordmill.shards.blocks import (
    MIN_RECORD,
    ShardWriter,
    block_samples,
    open_lmdb,
    pack_block,
    shard_samples,
    unpack_block,
)

# The format's docstring, written out: magic, number 7, n, H, W, C, encoded, bytes of pictures and labels, zeros.
WHOLE = b"WMB2" + pack("<8I", 7, 2, 1, 2, 1, 0, 4, 4) + bytes(12) + bytes([1, 2, 3, 4]) + b"a\0\xc3\xa9"
RECORD = WHOLE + bytes(MIN_RECORD - len(WHOLE))
FILES = pack("<3I", 0, 3, 5) + b"onetw"
ENCODED = b"WMB2" + pack("<8I", 0, 2, 1, 2, 1, 1, 17, 3) + bytes(12) + FILES + b"a\0b"
ENCODED += bytes(MIN_RECORD - len(ENCODED))
DATA = Data(train=(), val=(), charset="lower36", height=1, width=2, channels=1)


def array(record: bytes) -> np.ndarray:
    return np.frombuffer(record, dtype=np.uint8)


def test_a_block_has_the_documented_bytes() -> None:
    assert pack_block(7, (1, 2, 1), bytes([1, 2, 3, 4]), ["a", "é"], encoded=False) == RECORD
    assert pack_block(0, (1, 2, 1), FILES, ["a", "b"], encoded=True) == ENCODED


def test_a_block_reads_back() -> None:
    block = unpack_block(array(RECORD), "here", 7)
    assert block.images.tolist() == [[[[1], [2]]], [[[3], [4]]]]
    assert block.labels == ["a", "é"]
    assert not block.images.flags.writeable
    block = unpack_block(array(ENCODED), "here", 0)
    assert [bytes(file) for file in block.files] == [b"one", b"tw"]
    assert block.labels == ["a", "b"]


@pytest.mark.parametrize(
    ("record", "number"),
    [
        (RECORD[:10], 7),
        (RECORD[:-1], 7),
        (RECORD + b"x", 7),
        (b"XXXX" + RECORD[4:], 7),
        (RECORD, 6),
        (RECORD[:8] + pack("<I", 3) + RECORD[12:], 7),  # three samples with the bytes and labels of two
        (RECORD[:52] + b"a\0\0b" + RECORD[56:], 7),  # two samples, three labels
        (ENCODED[:48] + pack("<3I", 0, 9, 5) + ENCODED[60:], 0),  # offsets that go back
        (ENCODED[:48] + pack("<3I", 1, 3, 5) + ENCODED[60:], 0),  # offsets that begin late
        (ENCODED[:48] + pack("<3I", 0, 3, 4) + ENCODED[60:], 0),  # offsets that end early
        (ENCODED[:28] + pack("<I", 4) + ENCODED[32:], 0),  # too few bytes for the offsets
    ],
)
def test_a_damaged_block_is_refused_by_its_place(record: bytes, number: int) -> None:
    with pytest.raises(ValueError, match=f"here, block {number}: damaged block"):
        unpack_block(array(record), "here", number)


@pytest.mark.parametrize(
    ("shape", "block", "shard"),
    [
        ((32, 100, 1), 256, 16384),
        ((32, 100, 3), 256, 16384),  # 157 MB
        ((128, 512, 3), 12, 1296),  # 2.36 MB a block; 255 MB a shard, 108 full blocks
        ((2000, 2000, 3), 1, 21),
    ],
)
def test_blocks_and_shards_of_large_pictures_hold_fewer(shape: tuple[int, int, int], block: int, shard: int) -> None:
    assert (block_samples(shape), shard_samples(shape)) == (block, shard)


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
    assert [int.from_bytes(records[key][8:12], "little") for key in list(records)[:3]] == [256, 256, 88]


@pytest.mark.parametrize("encoded", [None, DATA])
def test_the_table_says_where_each_record_lies_in_the_file(encoded: Data | None, tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "a", (1, 2, 1), 600, encoded) as writer:
        for number in range(600):
            picture = np.full((1, 2, 1), number % 251, dtype=np.uint8)
            writer.add(picture.tobytes() if encoded else picture, str(number))
    content, table = (tmp_path / "a").read_bytes(), writer.table
    assert table.samples.tolist() == [256, 256, 88]
    records = [content[start : start + size] for start, size in zip(table.offsets, table.sizes, strict=True)]
    assert [xxhash.xxh3_64_intdigest(record) for record in records] == table.digests.tolist()
    blocks = [unpack_block(array(record), "a", number) for number, record in enumerate(records)]
    assert [label for block in blocks for label in block.labels] == [str(number) for number in range(600)]
    if encoded:
        assert bytes(blocks[1].files[1]) == bytes([257 % 251] * 2)
        assert writer.picture == {key: getattr(DATA, key) for key in PICTURE_KEYS}
    else:
        assert blocks[1].images[1].tolist() == [[[257 % 251], [257 % 251]]]
        assert [int(start) % 4096 for start in table.offsets] == [16, 16, 16]  # so pictures begin at 64


def test_blocks_of_large_files_hold_fewer(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "a", (1, 2, 1), 7, DATA) as writer:
        for number in range(7):
            writer.add(bytes(1 << 20), str(number))
    assert writer.table.samples.tolist() == [2, 2, 2, 1]  # a third one would take more than 2.5 MB


@pytest.mark.parametrize(
    ("encoded", "image", "label", "told"),
    [
        (None, np.zeros((9, 9, 1), dtype=np.uint8), "a", r"found a uint8 picture \(9, 9, 1\), expected uint8 \(1, 2,"),
        (None, np.zeros((1, 2, 1), dtype=np.int8), "a", r"found a int8 picture"),
        (None, b"file", "a", r"found a file of 4 bytes, expected uint8 \(1, 2, 1\)"),
        (None, np.zeros((1, 2, 1), dtype=np.uint8), "a\0b", r"NUL in the label 'a\\x00b'"),
        (DATA, np.zeros((1, 2, 1), dtype=np.uint8), "a", r"found a uint8 picture .*expected a file's bytes"),
        (DATA, bytes((1 << 20) + 1), "a", r"found a file of 1048577 bytes, expected at most 1048576"),
    ],
)
def test_a_writer_that_fails_leaves_nothing(
    encoded: Data | None, image: np.ndarray | bytes, label: str, told: str, tmp_path: Path
) -> None:
    def fail() -> None:
        with ShardWriter(tmp_path / "a.lmdb", (1, 2, 1), 10, encoded) as writer:
            writer.add(b"file" if encoded else np.zeros((1, 2, 1), dtype=np.uint8), "a")
            writer.add(image, label)

    with pytest.raises(ValueError, match=told):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_full_shard_of_longest_labels_fits(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "a.lmdb", (1, 2, 1), 512) as writer:
        for _ in range(512):
            writer.add(np.zeros((1, 2, 1), dtype=np.uint8), "x" * 4096)
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
