"""Readers: bytes and label of each sample, undecoded, in random order, from every form that a data set may have."""

from collections import deque
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.data_rows import CPU, Scale, alone, per_sample_us
from benchmarks.data_samples import LIST, Words
from benchmarks.models import Row
from wordmill.readers.fsns import Fsns
from wordmill.readers.label_file import LabelFile
from wordmill.readers.lmdb import Lmdb
from wordmill.readers.sample import Reader
from wordmill.readers.tfrecord import CHECKSUM, HEADER, masked

ICDAR_LIST = "icdar.txt"
RECORDS = "train-00000-of-00001"


def write_forms(folder: Path, samples: Words) -> None:
    """Write the same samples, beside the folder's list, as ICDAR's list of labels and as a TFRecord file."""
    lines = [f'{number:08}.jpg, "{label}"\r\n' for number, (_, label) in enumerate(samples)]
    (folder / ICDAR_LIST).write_bytes("".join(lines).encode("utf-8-sig"))
    with (folder / RECORDS).open("wb") as file:
        for content, label in samples:
            record = example({b"image/encoded": content, b"image/text": label.encode()})
            header = len(record).to_bytes(8, "little")
            file.write(HEADER.pack(len(record), masked(header)) + record + CHECKSUM.pack(masked(record)))


def example(features: dict[bytes, bytes]) -> bytes:
    """Return the tf.train.Example of features of bytes: Features {map<string, Feature>}, Feature {BytesList}."""
    entries = (field(1, name) + field(2, field(1, field(1, value))) for name, value in features.items())
    return field(1, b"".join(field(1, entry) for entry in entries))


def field(number: int, value: bytes) -> bytes:
    """Return a protocol buffer's field of bytes."""
    rest, length = len(value), b""
    while rest > 127:
        length, rest = length + bytes([rest & 127 | 128]), rest >> 7
    return bytes([number << 3 | 2]) + length + bytes([rest]) + value


def reader_rows(root: Path, folder: Path, scale: Scale) -> list[Row]:
    """Let all readers take turns; `root` has the LMDB environment, `folder` the other forms."""
    readers: dict[str, Reader] = {
        "LMDB": Lmdb(root),
        "files, DTRB's list": LabelFile(folder, LIST, "dtrb"),
        "files, ICDAR's list": LabelFile(folder, ICDAR_LIST, "icdar"),
        "files, PaddleOCR's list": LabelFile(folder, LIST, "paddleocr"),
        "FSNS TFRecord": Fsns(folder),
    }
    order = np.random.default_rng(2).permutation(scale.samples).tolist()
    times = per_sample_us({name: partial(read_all, reader, order) for name, reader in readers.items()}, scale)
    return [alone(f"read {name}", value, CPU) for name, value in times.items()]


def read_all(reader: Reader, order: list[int]) -> int:
    """Read samples and return their number; RuntimeError for a bad one."""
    last = deque(reader.read(order), maxlen=1)[0]
    if last.problem or not last.image:
        raise RuntimeError(f"{last.where}: {last.problem or 'no picture'}")
    return len(order)
