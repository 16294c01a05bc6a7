"""What runs inside a registered model, wherever MLflow loads it: pictures in, texts and confidences out.

This file and what it imports of this project travel with the model; `requirements.txt` beside it says what else it
needs.
"""

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import pandas as pd

from components.recognition.charset import Charset
from components.recognition.decoding import AttentionCodec, Codec, CtcCodec
from components.recognition.image import Picture, decode, fit_picture, normalise
from components.recognition.recipe import Data, parse_section

COLUMN = "image"
BATCH = 64  # pictures at a time through the network
NAMED = 10  # pictures that one error names
CODECS: dict[str, type[CtcCodec] | type[AttentionCodec]] = {"ctc": CtcCodec, "attention": AttentionCodec}


def _load_pyfunc(folder: str) -> "Recogniser":
    """Open a packaged recogniser: the name and the signature that MLflow asks for."""
    return Recogniser(Path(folder))


class Recogniser:
    """A recogniser in ONNX Runtime on the processor, as the card beside its file describes it."""

    def __init__(self, folder: Path) -> None:
        card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
        model = folder / card["file"]["name"]
        with model.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != card["file"]["sha256"]:
            raise ValueError(f"{model}: sha256 is {found}, expected {card['file']['sha256']}: the file is damaged")
        self.data = parse_section(Data, card["recipe"]["data"], f"{folder / 'card.json'}: recipe.data")
        self.codec: Codec = CODECS[card["decode"]["rule"]](charset=Charset(**card["charset"]))
        self.input, self.output = card["input"]["name"], card["output"]["name"]
        self.session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])

    def predict(self, images: Any) -> pd.DataFrame:
        """Read pictures: `text` and `confidence` in 0..1, one row each, under the rows' own index where they have one.

        images: a list, a pandas Series, a DataFrame with the column `image`, or uint8 (N, H, W, C). A picture is the
        bytes of an encoded file, the path of one, or uint8 (H, W) or (H, W, 1 or 3) in RGB. A picture that cannot be
        read is a ValueError that names it, and all others like it up to ten.
        """
        rows = _rows(images)
        pictures = self._pictures(rows)
        texts: list[str] = []
        confidences: list[float] = []
        for start in range(0, len(pictures), BATCH):
            batch = normalise(np.stack(pictures[start : start + BATCH]), self.data.middle)
            found, sure = self.codec.decode(self._logits(batch))
            texts += found
            confidences += sure.tolist()
        index = images.index if isinstance(images, (pd.DataFrame, pd.Series)) else pd.RangeIndex(len(texts))
        return pd.DataFrame({"text": texts, "confidence": np.asarray(confidences, dtype=np.float32)}, index=index)

    def _logits(self, batch: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return logits (N, T, classes) of normalised pictures (N, C, H, W)."""
        return np.asarray(self.session.run([self.output], {self.input: batch})[0], dtype=np.float32)

    def _pictures(self, rows: list[Any]) -> list[Picture]:
        """Return every row as uint8 (H, W, C) of the recipe's size."""
        fitted: list[Picture] = []
        wrong: list[str] = []
        for number, row in enumerate(rows):
            try:
                fitted.append(fit_picture(_picture(row, self.data.channels), self.data))
            except (ValueError, OSError) as error:
                wrong.append(f"image {number}{_named(row)}: {error}")
        if wrong:
            more = "; ..." if len(wrong) > NAMED else ""
            listed = "; ".join(wrong[:NAMED])
            raise ValueError(f"{len(wrong)} of {len(rows)} images cannot be read: {listed}{more}")
        return fitted


def _rows(images: Any) -> list[Any]:
    """Return what was handed over as a list of pictures."""
    if isinstance(images, pd.DataFrame):
        if COLUMN not in images:
            raise ValueError(f"expected a column '{COLUMN}', found {list(images.columns)}")
        return list(images[COLUMN])
    if isinstance(images, np.ndarray) and images.dtype != object and images.ndim != 4:
        raise ValueError(f"an array of several images has shape (N, H, W, C), found {images.shape}: hand over a list")
    if isinstance(images, (str, bytes, bytearray, os.PathLike, dict)) or not isinstance(images, Iterable):
        raise ValueError(f"expected a list of images or a DataFrame, found {type(images).__name__}")
    return list(images)


def _picture(row: Any, channels: int) -> Picture:
    """Return a picture as uint8 (H, W) or (H, W, 1 or 3)."""
    if isinstance(row, np.ndarray):
        if row.dtype != np.uint8 or not (row.ndim == 2 or (row.ndim == 3 and row.shape[2] in (1, 3))) or not row.size:
            raise ValueError(f"expected uint8 (H, W) or (H, W, 1 or 3), found {row.dtype} {row.shape}")
        return row
    if isinstance(row, (str, os.PathLike)):
        row = Path(row).read_bytes()
    if not isinstance(row, (bytes, bytearray)):
        raise ValueError(f"expected bytes, a path or a uint8 array, found {type(row).__name__}")
    return decode(bytes(row), channels)


def _named(row: Any) -> str:
    return f" ({row})" if isinstance(row, (str, os.PathLike)) else ""
