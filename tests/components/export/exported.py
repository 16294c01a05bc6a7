"""An exported recogniser with its card, as programs that only read find it."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from tests.components.train.trained import DATA, MODEL, TRAIN
from wordmill.inference import card
from wordmill.models.checkpoint import Checkpoint
from wordmill.models.pt.export import export_onnx
from wordmill.models.pt.model import build
from wordmill.models.pt.predict import Predictor
from wordmill.models.pt.weights import dump
from wordmill.pictures.image import Picture
from wordmill.recipe.sections import Data, Model
from wordmill.store.storage import hash_file
from wordmill.text.decoding import codec_of

GAINS = {2: 10, 4: 2}  # of matrices and convolutions: fresh ones read nothing


def checkpoint(model: Model = MODEL, data: Data = DATA) -> Checkpoint:
    """Fresh weights that write some text."""
    torch.manual_seed(11)
    tensors = dump(build(model, data, codec_of(model, data).classes))
    tensors = {name: values * np.float32(GAINS.get(values.ndim, 1)) for name, values in tensors.items()}
    return Checkpoint(tensors=tensors, data=data, model=model, train=TRAIN, step=1, temperature=0.4)


def write_card(
    model: Path, saved: Checkpoint, batch: int | None = None, *, raw: bool = False, told: dict[str, Any] | None = None
) -> Path:
    """Write the card beside a file that was exported of a checkpoint, in a fixed batch where one is given.

    raw: the file takes bytes. told: what else the card has, such as the format where the file's ending does not say it.
    """
    codec = codec_of(saved.model, saved.data)
    blank = np.zeros((1, saved.data.height, saved.data.width, saved.data.channels), np.uint8)
    steps = Predictor(saved, "cpu")(blank).shape[1]
    file = {"name": model.name, "sha256": hash_file(model), "bytes": model.stat().st_size}
    known = {"format": model.suffix[1:], "file": file, **(told or {})}
    known["files"] = {known["format"]: [{**file, "batch": str(batch or "any")}]}
    known |= card.describe_file(
        saved.data,
        saved.model,
        codec.charset,
        steps,
        decoded=known["format"] == "onnx",
        raw=raw,
        temperature=saved.temperature,
    )
    path = model.with_name("card.json")
    path.write_text(json.dumps(known), encoding="utf-8")
    return path


def write_onnx(folder: Path, model: Model = MODEL, data: Data = DATA) -> Checkpoint:
    """Write model.onnx and card.json, and return what they were made of."""
    folder.mkdir(parents=True)
    saved = checkpoint(model, data)
    export_onnx(saved, folder / "model.onnx")
    write_card(folder / "model.onnx", saved)
    return saved


def pictures(count: int, channels: int = 3) -> list[Picture]:
    """Smooth random pictures of many sizes, uint8 (H, W, channels)."""
    random = np.random.default_rng(7)
    made = []
    for number in range(count):
        height, width = 20 + 7 * (number % 5), 50 + 31 * (number % 7)
        coarse = random.integers(0, 256, (4, 10, channels), dtype=np.uint8)
        smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
        made.append(smooth.reshape(height, width, channels))
    return made


def png(image: Picture) -> bytes:
    """Encode uint8 (H, W, 1 or 3), RGB, as PNG."""
    return cv2.imencode(".png", image if image.shape[2] == 1 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()
