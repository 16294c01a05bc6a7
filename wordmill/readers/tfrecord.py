"""TFRecord files and the tf.train.Example messages in them, without TensorFlow.

A record is, little-endian: its length (8 bytes), that number's checksum (4), the bytes, their checksum (4). A checksum
is a CRC-32C, rotated and moved (tensorflow/core/lib/io/record_writer.h, lib/hash/crc32c.h). An Example is a protocol
buffer of named lists (tensorflow/core/example/example.proto), of which those of bytes are read.
"""

from __future__ import annotations  # array takes its items' type in annotations alone

import os
import struct
from array import array
from collections.abc import Iterator
from pathlib import Path

import google_crc32c

HEADER = struct.Struct("<QI")
CHECKSUM = struct.Struct("<I")
MOST_BYTES = 64 << 20  # of a record


def index_records(path: Path) -> array[int]:
    """Return where each record's bytes start in a file, and last the file's end plus one header.

    Only lengths are read. ValueError for a file that is cut off, or damaged so that what follows cannot be found.
    """
    starts, place, size = array("Q"), 0, path.stat().st_size
    with path.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        while place < size:
            header = os.pread(file.fileno(), HEADER.size, place)
            if len(header) < HEADER.size:
                raise ValueError(f"{path.name}: cut off within the header of record {len(starts)}, at byte {place}")
            length, checksum = HEADER.unpack(header)
            if checksum != masked(header[:8]):
                raise ValueError(f"{path.name}: damaged header of record {len(starts)}, at byte {place}: no TFRecord "
                                 "file, or the rest of it cannot be found")  # fmt: skip
            starts.append(place + HEADER.size)
            place += HEADER.size + length + CHECKSUM.size
    if place > size:
        raise ValueError(f"{path.name}: cut off: record {len(starts) - 1} ends at byte {place}, the file at {size}")
    starts.append(size + HEADER.size)
    return starts


def record_at(path: Path, start: int, stop: int) -> bytes:
    """Return the bytes of the record that starts at `start`, the next one at `stop`; ValueError for damaged ones."""
    size = stop - start - HEADER.size
    if size > MOST_BYTES:
        raise ValueError(f"{size} bytes, expected at most {MOST_BYTES}")
    with path.open("rb", buffering=0) as file:
        record = os.pread(file.fileno(), size, start)
    if len(record) < size:
        raise ValueError(f"cut off: found {len(record)} bytes, expected {size}")
    found, (expected,) = masked(record[: -CHECKSUM.size]), CHECKSUM.unpack(record[-CHECKSUM.size :])
    if found != expected:
        raise ValueError(f"wrong checksum: found {found:#010x}, expected {expected:#010x}")
    return record[: -CHECKSUM.size]


def masked(data: bytes) -> int:
    """Return the checksum of data as TFRecord files have it."""
    crc = int(google_crc32c.value(data))
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def byte_features(example: bytes) -> dict[str, bytes]:
    """Return the features of an Example that are one byte string, by name; ValueError for what is no Example."""
    found = {}
    for features in _fields(memoryview(example), 1):
        for entry in _fields(features, 1):
            for name in _fields(entry, 1):
                values = [bytes(v) for f in _fields(entry, 2) for listed in _fields(f, 1) for v in _fields(listed, 1)]
                if len(values) == 1:
                    found[str(name, "utf-8")] = values[0]
    return found


def _fields(message: memoryview, wanted: int) -> Iterator[memoryview]:
    """Yield the values of one field of a protocol buffer, those that have a length."""
    place = 0
    while place < len(message):
        key, place = _varint(message, place)
        number, kind = key >> 3, key & 7
        if kind == 2:
            length, place = _varint(message, place)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        elif kind == 0:
            place, length = _varint(message, place)[1], 0
        else:
            raise ValueError(f"no protocol buffer: field {number} of unknown kind {kind}")
        if place + length > len(message):
            raise ValueError(f"no protocol buffer: field {number} of {length} bytes is cut off")
        if number == wanted and kind == 2:
            yield message[place : place + length]
        place += length


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    """Return the number at a place, and the place behind it."""
    value = shift = 0
    while place < len(message) and shift < 70:
        byte = message[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value, place
    raise ValueError("no protocol buffer: a number does not end")
