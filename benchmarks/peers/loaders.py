"""How peers load word pictures for training and write their LMDB, written anew from their published procedures.

DTRB    deep-text-recognition-benchmark: LmdbDataset, AlignCollate (grey, Pillow's bicubic, -1..1), create_lmdb_dataset
PARSeq  its LmdbDataset and transform (RGB, Pillow's bicubic, -1..1) without augmentation
MindOCR its LMDBDataset and the transforms of its CRNN recipes (RGB, OpenCV's bilinear, (x - 127) / 127, label encoded)
All run in this process: DataLoader without workers, MindOCR's dataset without MindSpore's pipeline around it.
"""

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import lmdb
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

WIDTH, HEIGHT = 100, 32
CHARACTERS = "0123456789abcdefghijklmnopqrstuvwxyz"
DTRB_LONGEST, MINDOCR_LONGEST = 25, 23  # characters of a label
COMMIT_EVERY = 1000  # samples
CLASSES = {symbol: number for number, symbol in enumerate(CHARACTERS)}  # the blank is the last
MIDDLE = np.full((1, 1, 3), 127.0, dtype=np.float32)

Arrays = npt.NDArray[np.float32]


def create_lmdb(listed: Path, output: Path) -> int:
    """Write the pictures of a list `path<TAB>label` as create_lmdb_dataset does, checked; return their number."""
    output.mkdir(parents=True)
    environment = lmdb.open(str(output), map_size=1 << 40)
    cache: dict[bytes, bytes] = {}
    written = 0
    for line in listed.read_text(encoding="utf-8").splitlines():
        path, label = line.split("\t")
        content = (listed.parent / path).read_bytes()
        if not sound(content):
            continue
        written += 1
        cache[b"image-%09d" % written], cache[b"label-%09d" % written] = content, label.encode()
        if written % COMMIT_EVERY == 0:
            commit(environment, cache)
            cache = {}
    cache[b"num-samples"] = str(written).encode()
    commit(environment, cache)
    environment.close()
    return written


def sound(content: bytes) -> bool:
    """Tell whether a picture decodes to something."""
    picture = cv2.imdecode(np.frombuffer(content, dtype=np.uint8), cv2.IMREAD_GRAYSCALE) if content else None
    return picture is not None and picture.size > 0


def commit(environment: lmdb.Environment, records: dict[bytes, bytes]) -> None:
    """Write records in one transaction."""
    with environment.begin(write=True) as transaction:
        for key, value in records.items():
            transaction.put(key, value)


def opened(root: Path) -> lmdb.Environment:
    """Open an environment as all three do, without locks and without reading ahead; LMDB lets a process do so once."""
    return lmdb.open(str(root), max_readers=32, readonly=True, lock=False, readahead=False, meminit=False)


def count(transaction: lmdb.Transaction) -> int:
    """Return the number of samples."""
    return int(record(transaction, b"num-samples"))


def record(transaction: lmdb.Transaction, key: bytes) -> bytes:
    """Return a record that must be there."""
    found = transaction.get(key)
    if found is None:
        raise KeyError(key.decode())
    return bytes(found)


def to_tensor(picture: Image.Image) -> torch.Tensor:
    """Turn a picture into float32 (C, H, W), 0..1, by torchvision's steps."""
    pixels = np.array(picture)
    planes = torch.from_numpy(pixels[:, :, None] if pixels.ndim == 2 else pixels).permute(2, 0, 1).contiguous()
    return planes.float().div(255)


class DtrbDataset(Dataset[tuple[Image.Image, str]]):
    """Pictures as Pillow has them and labels; the labels are all read at the start, to leave out what does not fit."""

    def __init__(self, environment: lmdb.Environment, channels: int) -> None:
        self.environment, self.mode = environment, "L" if channels == 1 else "RGB"
        self.kept = []
        with self.environment.begin() as transaction:
            for number in range(1, count(transaction) + 1):
                label = record(transaction, b"label-%09d" % number).decode()
                if len(label) <= DTRB_LONGEST and not re.search(f"[^{CHARACTERS}]", label.lower()):
                    self.kept.append(number)

    def __len__(self) -> int:
        return len(self.kept)

    def __getitem__(self, index: int) -> tuple[Image.Image, str]:
        number = self.kept[index]
        with self.environment.begin() as transaction:
            label = record(transaction, b"label-%09d" % number).decode()
            content = io.BytesIO(record(transaction, b"image-%09d" % number))
        return Image.open(content).convert(self.mode), re.sub(f"[^{CHARACTERS}]", "", label.lower())


def align(samples: list[tuple[Image.Image, str]]) -> tuple[torch.Tensor, tuple[str, ...]]:
    """Make DTRB's batch: (N, C, 32, 100) float32 in -1..1."""
    pictures, labels = zip(*samples, strict=True)
    tensors = []
    for picture in pictures:
        resized = to_tensor(picture.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))
        tensors.append(resized.sub_(0.5).div_(0.5))
    return torch.cat([tensor.unsqueeze(0) for tensor in tensors], 0), labels


def dtrb(environment: lmdb.Environment, batch: int, channels: int) -> "DataLoader[Any]":
    """Return DTRB's loader."""
    return DataLoader(DtrbDataset(environment, channels), batch, shuffle=True, collate_fn=align)


class ParseqDataset(Dataset[tuple[torch.Tensor, str]]):
    """Tensors (3, 32, 100) in -1..1 and labels, which are kept in memory from the start."""

    def __init__(self, environment: lmdb.Environment) -> None:
        self.environment, self.labels = environment, []
        with self.environment.begin() as transaction:
            for number in range(1, count(transaction) + 1):
                self.labels.append("".join(record(transaction, b"label-%09d" % number).decode().split()))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, str]:
        with self.environment.begin() as transaction:
            content = io.BytesIO(record(transaction, b"image-%09d" % (index + 1)))
        picture = Image.open(content).convert("RGB").resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
        middle = torch.full((3, 1, 1), 0.5)
        return to_tensor(picture).sub_(middle).div_(middle), self.labels[index]


def parseq(environment: lmdb.Environment, batch: int) -> "DataLoader[Any]":
    """Return PARSeq's loader."""
    return DataLoader(ParseqDataset(environment), batch, shuffle=True, drop_last=True)


def mindocr(environment: lmdb.Environment, batch: int) -> Iterator[tuple[Arrays, npt.NDArray[np.int32]]]:
    """Yield MindOCR's batches: pictures (N, 3, 32, 100) float32 and classes (N, 23) int32, whole batches alone."""
    with environment.begin() as transaction:
        order = np.random.default_rng().permutation(count(transaction))
        for first in range(0, len(order) - batch + 1, batch):
            samples = [mindocr_sample(transaction, int(number)) for number in order[first : first + batch]]
            pictures, classes = zip(*samples, strict=True)
            yield np.stack(pictures), np.stack(classes)


def mindocr_sample(transaction: lmdb.Transaction, index: int) -> tuple[Arrays, npt.NDArray[np.int32]]:
    """Read, decode, encode the label, resize, normalise and transpose one sample."""
    label = record(transaction, b"label-%09d" % (index + 1)).decode("utf-8")
    content = np.frombuffer(record(transaction, b"image-%09d" % (index + 1)), dtype=np.uint8)
    picture = cv2.imdecode(content, cv2.IMREAD_COLOR)
    fits = 0 < len(label) <= MINDOCR_LONGEST
    classes = [CLASSES[symbol] for symbol in label.lower() if symbol in CLASSES] if fits else []
    row = np.array(classes + [len(CLASSES)] * (MINDOCR_LONGEST - len(classes)), dtype=np.int32)
    coloured = cv2.resize(picture, (WIDTH, HEIGHT))[..., [2, 1, 0]].astype(np.float32)
    return ((coloured - MIDDLE) / MIDDLE).transpose((2, 0, 1)), row
