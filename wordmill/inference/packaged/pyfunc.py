"""What runs inside a registered model, wherever MLflow loads it: pictures in, texts and confidences out.

This file and what it imports of this project travel with the model; `requirements.txt` beside it says what else it
needs.
"""

import base64
import binascii
import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from wordmill.inference.batches import Array, in_batches
from wordmill.inference.card import CARD, codec_of_card, prepared
from wordmill.pictures.decoder import decode, is_picture
from wordmill.pictures.image import Picture, filled, fit_picture
from wordmill.recipe.parsing import parse_section
from wordmill.recipe.sections import Data
from wordmill.text.decoding import Codec, Logits, Reading
from wordmill.text.positions import Character, Floats, as_they_lie, characters, document, in_picture, likeliest_texts

COLUMN = "image"
BATCH = 64  # pictures at a time through the network
NAMED = 10  # pictures that one error names
LONGEST_PATH = 1024  # characters: what is longer is base64 that is damaged
SERVERS = ("mlflow.pyfunc.scoring_server", "mlserver")  # in whose process strings are a client's

FittedPicture = tuple[Picture, float]  # a picture as the network takes it, and the share of the width that it fills
Forward = Callable[[Picture], Logits]  # from uint8 (N, H, W, C) of the recipe's size to (N, T, classes)
Attend = Callable[[Picture, Logits], Logits | None]  # of pictures and their logits the attention (N, T, columns)
Locate = Callable[[Picture], Floats | None]  # where what is read lies in pictures, (N, columns); None: as it is read


def _load_pyfunc(folder: str) -> "TextRecogniser":
    """Open a packaged recogniser: the name and the signature that MLflow asks for."""
    from wordmill.inference.refusal import UnreadableError  # of MLflow, which other readers need not have

    recogniser = open_onnx(Path(folder) / CARD)
    recogniser.refused = UnreadableError
    return recogniser


def find_card(path: Path) -> Path:
    """Return the card beside an exported file, in its folder, or in a registered model's; ValueError for none."""
    folder = path if path.is_dir() else path.parent
    for place in (folder, folder / "data" / "recogniser"):
        if path.exists() and (place / CARD).is_file():
            return place / CARD
    found = f"found no {CARD} {'in' if folder == path else 'beside'} it" if path.exists() else "no such file or folder"
    raise ValueError(f"{path}: {found}, expected an exported file or its folder, with {CARD}, or a registered model's")


def open_onnx(card_path: Path, threads: int = 0) -> "TextRecogniser":
    """Open the ONNX file that a card describes in ONNX Runtime on the processor.

    0 threads: one to each core.
    """
    # Who reads other files with this module need not have it.
    from wordmill.inference.onnx_runtime import onnxruntime

    card, model = read_card(card_path)
    data, codec = sections_of(card, card_path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # A thread without work would keep its core busy waiting for some, and so keep it from other work.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    given, found = card["input"]["name"], card["output"]["name"]

    def call(images: Array) -> list[Array]:
        return [np.asarray(session.run([found], {given: images})[0], dtype=np.float32)]

    size = session.get_inputs()[0].shape[0]  # a name where it is open

    def network(pictures: Picture) -> Logits:
        images = prepared(pictures, card)
        return (in_batches(call, size, images) if isinstance(size, int) else call(images))[0]

    return TextRecogniser(data, codec, network, straightened=rectifies(card))


def read_card(path: Path, name: str = "") -> tuple[dict[str, Any], Path]:
    """Return a card and the file beside it, or one `name` of several, that it describes; ValueError for any other."""
    card = json.loads(path.read_text(encoding="utf-8"))
    entries = [card["file"], *(entry for entries in card.get("files", {}).values() for entry in entries)]
    model = path.with_name(name or card["file"]["name"])
    # A registered model's card lists files of several formats, of which two may have one name.
    known = [entry["sha256"] for entry in entries if entry["name"] == model.name]
    if not known:
        names = dict.fromkeys(entry["name"] for entry in entries)
        raise ValueError(f"{model}: the card beside it, {path}, describes {', '.join(names)}")
    with model.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found not in known:
        told = " or ".join(dict.fromkeys(known))
        raise ValueError(f"{model}: sha256 is {found}, expected {told}: the file is damaged")
    return card, model


def rectifies(card: dict[str, Any]) -> bool:
    """Tell whether a card's recogniser straightens pictures, which its file does inside."""
    return bool(card["recipe"].get("model", {}).get("rectification", "none") != "none")


def sections_of(card: dict[str, Any], path: Path) -> tuple[Data, Codec]:
    """Return how pictures become inputs, and logits texts, as the card at this path says."""
    data = parse_section(Data, card["recipe"]["data"], f"{path}: recipe.data")
    return data, codec_of_card(card)


class TextRecogniser:
    """A network with what goes before and after it: pictures of any size in, texts and confidences out.

    `refused` makes the error that a server is given for what cannot be read.
    """

    refused: Callable[[str], Exception] = ValueError

    def __init__(
        self, data: Data, codec: Codec, network: Forward, attend: Attend | None = None, columns: Locate | None = None,
        straightened: bool = False,
    ) -> None:  # fmt: skip
        """Take what the network looks at and where that lies; `straightened`: it rectifies, and does not say how."""
        self.data, self.codec, self.network, self.attend = data, codec, network, attend
        self.columns, self.straightened = columns, straightened

    def fit(self, image: Any) -> Picture:
        """Return a picture, in any form that `predict` takes, as uint8 (H, W, C) of the recipe's size.

        ValueError, or OSError of a path, where there is no picture in it.
        """
        return self.fit_and_share(image)[0]

    def fit_and_share(self, image: Any) -> tuple[Picture, float]:
        """Return what `fit` does, and the share of its width that the picture fills."""
        picture = _picture(image, self.data.channels)
        return fit_picture(picture, self.data), filled(picture.shape, self.data)

    def read_in_detail(
        self, pictures: Picture, shares: Sequence[float], alternatives: int = 0
    ) -> tuple[Reading, list[dict[str, Any]]]:
        """Return what `read` does, and details, of fitted pictures (N, H, W, C), N > 0, that fill shares of the width.

        characters: text, confidence, start and end in shares of the picture's width, along its line, of each
        alternatives: the likeliest so many texts with their probabilities, where any are asked for; CTC alone has them
        """
        logits = self.network(pictures)
        found: list[dict[str, Any]] = [{"characters": document(row)} for row in self.places(pictures, shares, logits)]
        if alternatives:
            for one, others in zip(found, likeliest_texts(logits, self.codec, alternatives), strict=True):
                one["alternatives"] = [{"text": a.text, "probability": round(a.probability, 4)} for a in others]
        return self.codec.decode(logits), found

    def places(self, pictures: Picture, shares: Sequence[float], logits: Logits) -> list[list[Character]]:
        """Return the characters that logits of fitted pictures read, with their places as `read_in_detail` has them."""
        rows = characters(logits, self.codec, self.attend(pictures, logits) if self.attend else None)
        lie = self.columns(pictures) if self.columns else None
        if lie is not None or self.straightened:
            rows = [as_they_lie(row, None if lie is None else lie[number]) for number, row in enumerate(rows)]
        return [in_picture(row, share) for row, share in zip(rows, shares, strict=True)]

    def read(self, pictures: Picture) -> Reading:
        """Read fitted pictures (N, H, W, C) uint8 in one batch: N texts, and confidences (N,) in 0..1."""
        if not len(pictures):  # which ends some runtimes' process
            return [], np.empty(0, dtype=np.float32)
        return self.codec.decode(self.network(pictures))

    def predict(self, images: Any, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Read pictures: `text` and `confidence` in 0..1, one row each, under the rows' own index where they have one.

        images: a list, a pandas Series, a DataFrame or dict with the column `image`, or uint8 (N, H, W, C). A picture
        is the bytes of an encoded file, these in base64, the path of one, or uint8 (H, W) or (H, W, 1 or 3) in RGB;
        behind MLflow's server a string is no path. A picture that cannot be read is a ValueError that names it, and all
        others like it up to ten; behind the server it is an answer that says so. params: `characters` true and a number
        of `alternatives` add columns of what `read_in_detail` says.
        """
        try:
            return self._readings(images, params or {})
        except ValueError as error:
            if not _served():
                raise
            raise self.refused(str(error)) from None

    def _readings(self, images: Any, asked: dict[str, Any]) -> pd.DataFrame:
        fitted = self._fitted(_rows(images))
        count = int(asked.get("alternatives") or 0)
        detailed = bool(asked.get("characters") or count)
        texts, confidences, details = list[str](), list[float](), list[dict[str, Any]]()
        for start in range(0, len(fitted), BATCH):
            pictures, shares = zip(*fitted[start : start + BATCH], strict=True)
            batch = np.stack(pictures)
            (found, sure), more = self.read_in_detail(batch, shares, count) if detailed else (self.read(batch), [])
            texts += found
            confidences += sure.tolist()
            details += more
        index = images.index if isinstance(images, (pd.DataFrame, pd.Series)) else pd.RangeIndex(len(texts))
        text = pd.Series(texts, index=index, dtype=str)  # of none too
        table = pd.DataFrame({"text": text, "confidence": np.asarray(confidences, dtype=np.float32)}, index=index)
        return table.join(pd.DataFrame(details, index=index)) if details else table

    def _fitted(self, rows: list[Any]) -> list[tuple[Picture, float]]:
        """Return every row as uint8 (H, W, C) of the recipe's size, and the share of the width that it fills."""
        fitted: list[tuple[Picture, float]] = []
        wrong: list[str] = []
        for number, row in enumerate(rows):
            try:
                fitted.append(self.fit_and_share(row))
            except (ValueError, OSError) as error:
                told = isinstance(row, os.PathLike) or (isinstance(row, str) and not _served())
                name = f" ({str(row)[:LONGEST_PATH]})" if told else ""
                wrong.append(f"image {number}{name}: {error}")
        if wrong:
            more = "; ..." if len(wrong) > NAMED else ""
            listed = "; ".join(wrong[:NAMED])
            raise ValueError(f"{len(wrong)} of {len(rows)} images cannot be read: {listed}{more}")
        return fitted


def _rows(images: Any) -> list[Any]:
    """Return what was handed over as a list of pictures."""
    if isinstance(images, (pd.DataFrame, dict)):
        if COLUMN not in images:
            raise ValueError(f"expected a column '{COLUMN}', found {list(images)}")
        images = images[COLUMN]
    texts = isinstance(images, np.ndarray) and images.ndim == 1 and images.dtype.kind in "OU"
    if isinstance(images, np.ndarray) and images.ndim != 4 and not texts:
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
    if isinstance(row, str):
        row = _from_text(row)
    if isinstance(row, os.PathLike):
        row = Path(row).read_bytes()
    if not isinstance(row, (bytes, bytearray)):
        raise ValueError(f"expected bytes, a path or a uint8 array, found {type(row).__name__}")
    return decode(bytes(row), channels)


def _from_text(text: str) -> bytes | Path:
    """Return a picture's bytes of their base64, else the path that it is; ValueError for one behind a server."""
    packed = text.partition(",")[2] if text.startswith("data:") else text
    try:
        content = base64.b64decode("".join(packed.split()), validate=True)  # programs break its lines
    except (binascii.Error, ValueError):
        content = b""
    if _served():
        if not content:
            raise ValueError("expected a picture's bytes in base64")
        return content
    if len(text) > LONGEST_PATH and not is_picture(content):
        raise ValueError("expected a path, or a picture's bytes in base64")
    return content if is_picture(content) else Path(text)


def _served() -> bool:
    """Tell whether this is a server's process: a path would be one of its own files."""
    return any(name in sys.modules for name in SERVERS)
