from pathlib import Path

from tests.wordmill.shards.made_sets import crc32c, write_records
from wordmill.readers.tfrecord import index_records, masked, record_at


def test_checksums_are_castagnolis_rotated_and_moved() -> None:
    """RFC 3720, appendix B.4: 32 zero bytes have the CRC 0x8a9136aa; 123456789 has 0xe3069283, the usual example."""
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"123456789") == 0xE3069283
    # 0xe3069283 turned right by 15 is 0x2507c60d; with 0xa282ead8 added it is 0xc78ab0e5.
    assert masked(b"123456789") == 0xC78AB0E5
    # 0x8a9136aa turned right by 15 is 0x6d551522; the sum is 0x10fd7fffa, of which 32 bits stay.
    assert masked(bytes(32)) == 0x0FD7FFFA


def test_a_file_is_indexed_by_its_lengths_alone(tmp_path: Path) -> None:
    path = write_records(tmp_path / "x", [b"abc", b"", b"d" * 1000])
    assert index_records(path).tolist() == [12, 31, 47, 1063]
    assert [record_at(path, start, stop) for start, stop in ((12, 31), (31, 47), (47, 1063))] == [
        b"abc",
        b"",
        b"d" * 1000,
    ]


def test_an_empty_file_has_no_records(tmp_path: Path) -> None:
    path = write_records(tmp_path / "x", [])
    assert len(index_records(path)) == 1
