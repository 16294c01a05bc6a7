"""Data sets as others' tools leave them, written from their specifications."""

import struct
from collections.abc import Sequence
from pathlib import Path

import lmdb


def write_lmdb(folder: Path, labels: Sequence[str], map_size: int = 1 << 20, **changes: bytes | None) -> Path:
    """Write an environment as DTRB's tool does, copied without its lock file; None in `changes` leaves a key out.

    The picture of `word` is the bytes `picture of word`; changes are named image_1, label_2 or num_samples.
    """
    records: dict[str, bytes | None] = {"num-samples": str(len(labels)).encode()}
    for number, label in enumerate(labels, start=1):
        records |= {f"image-{number:09}": f"picture of {label}".encode(), f"label-{number:09}": label.encode()}
    for name, value in changes.items():
        kind, number = name.split("_")
        records[f"{kind}-{int(number):09}" if number.isdigit() else f"{kind}-{number}"] = value
    folder.mkdir(parents=True)
    with lmdb.open(str(folder), map_size=map_size) as environment, environment.begin(write=True) as transaction:
        for key, record in records.items():
            if record is not None:
                transaction.put(key.encode(), record)
    (folder / "lock.mdb").unlink()
    return folder / "data.mdb"


def crc32c(data: bytes) -> int:
    """Castagnoli's checksum bit by bit (RFC 3720, appendix B.4)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def framed(record: bytes) -> bytes:
    """A record of a TFRecord file."""

    def mask(crc: int) -> bytes:
        return struct.pack("<I", ((crc >> 15 | crc << 17 & 0xFFFFFFFF) + 0xA282EAD8) % 2**32)

    length = struct.pack("<Q", len(record))
    return length + mask(crc32c(length)) + record + mask(crc32c(record))


def write_records(path: Path, records: Sequence[bytes]) -> Path:
    """Write a TFRecord file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(framed(record) for record in records))
    return path


def field(number: int, value: bytes) -> bytes:
    """A field of a protocol buffer that has a length."""
    size, head = len(value), bytearray([number << 3 | 2])
    while size > 127:
        head.append(size & 127 | 128)
        size >>= 7
    return bytes([*head, size]) + value


def example(features: dict[str, bytes | list[int]]) -> bytes:
    """A tf.train.Example: byte strings, and lists of integers as FSNS has them beside."""

    def feature(value: bytes | list[int]) -> bytes:
        if isinstance(value, bytes):
            return field(1, field(1, value))
        return field(3, field(1, bytes(value)))  # packed; numbers below 128 are their own varint

    entries = [field(1, field(1, name.encode()) + field(2, feature(value))) for name, value in features.items()]
    return field(1, b"".join(entries))
