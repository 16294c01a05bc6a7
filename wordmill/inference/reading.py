"""Reading pictures with a recogniser in any of its files: `open_recogniser` and `read_images` as a library."""

import json
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from wordmill.inference.batches import in_batches
from wordmill.inference.card import prepared
from wordmill.inference.packaged.pyfunc import (
    BATCH,
    FittedPicture,
    TextRecogniser,
    find_card,
    read_card,
    rectifies,
    sections_of,
)
from wordmill.inference.runtimes import batches_of, open_file
from wordmill.models import checkpoint
from wordmill.pictures.decoder import is_picture
from wordmill.pictures.image import Picture
from wordmill.recipe import frameworks
from wordmill.recipe.plain import read_text
from wordmill.sources.leftovers import is_leftover
from wordmill.store.files import redirected
from wordmill.store.progress import Progress
from wordmill.text.decoding import Logits, codec_of

ENDINGS = frozenset({".avif", ".bmp", ".dib", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg",
                     ".jxl", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"})  # fmt: skip
HEAD = 16  # bytes that tell a picture
NAMED = 8  # files in a message


@dataclass(frozen=True, kw_only=True)
class Result:
    """What was read of a picture, with a confidence in 0..1, or the error that says why nothing could be."""

    path: Path
    text: str = ""
    confidence: float = 0.0
    error: str = ""
    details: dict[str, Any] = field(default_factory=dict)  # characters and alternatives, where they are asked for

    def line(self) -> str:
        """Return it for people."""
        path = shown(self.path)
        return f"{path}: {self.error}" if self.error else f"{path}\t{self.text}\t{self.confidence:.4f}"

    def record(self) -> str:
        """Return it for programs, as a line of JSON."""
        found: dict[str, Any]
        found = {"error": self.error} if self.error else {"text": self.text, "confidence": round(self.confidence, 4)}
        found |= self.details
        record = json.dumps({"path": str(self.path), **found}, ensure_ascii=False)
        # A name that is not UTF-8 is written in escapes, as Python's os.fsencode takes it.
        return record if _is_text(record) else json.dumps({"path": str(self.path), **found})


def open_recogniser(path: Path) -> TextRecogniser:
    """Open a .safetensors checkpoint, or an exported file of any format with its card beside it, by file or folder."""
    if path.suffix == ".safetensors" and path.exists():
        return of_checkpoint(checkpoint.load(path), path)
    card_path = find_card(path)
    card, model = read_card(card_path, "" if path.is_dir() else path.name)
    data, codec = sections_of(card, card_path)
    call, _ = open_file(card["format"], model, card)
    sizes = batches_of(card, model.name)

    def network(pictures: Picture) -> Logits:
        images = prepared(pictures, card)
        size = min((size for size in sizes if size >= len(images)), default=max(sizes, default=len(images)))
        return np.asarray(in_batches(call, size, images)[0], dtype=np.float32)

    return TextRecogniser(data, codec, network, straightened=rectifies(card))


def of_checkpoint(saved: checkpoint.Checkpoint, path: Path) -> TextRecogniser:
    """Return the recogniser of a checkpoint in the framework that trained it; `path` is what messages call it."""
    framework = saved.train.framework
    try:
        predictor = frameworks.twin(framework, "models.predict").Predictor(saved, "cpu")
    except ImportError as error:
        raise RuntimeError(f"{path}: trained by {framework}, which cannot be imported here: {error}") from None
    codec = codec_of(saved.model, saved.data, saved.temperature)
    straightened = saved.model.rectification != "none"
    return TextRecogniser(saved.data, codec, predictor, predictor.attend, predictor.columns, straightened)


def find_images(path: Path) -> tuple[list[Path], list[Path]]:
    """Return the pictures of a folder and those below it, of a .txt list with a path a line, or the one picture.

    Of a folder also the files that are left out. Its pictures are known by how their names end or by their first bytes;
    what operating systems leave behind is neither. Paths of a list are relative to its folder.
    """
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file() or (file.is_symlink() and not file.exists()))
        files = [file for file in files if not is_leftover(file.relative_to(path))]
        found = [file for file in files if _is_picture(file)]
        if not found:
            raise ValueError(f"{path}: no file in it begins or ends as pictures do: {' '.join(sorted(ENDINGS))}")
        return found, sorted(set(files) - set(found))
    if not path.is_file():
        raise ValueError(f"{path}: no such file or folder")
    if path.suffix.lower() != ".txt":
        return [path], []
    lines = read_text(path).split("\n")
    if found := [path.parent / line.strip() for line in lines if line.strip()]:
        return found, []
    raise ValueError(f"{path}: the list is empty")


def _is_picture(path: Path) -> bool:
    """Tell whether a file is to be read: a link that leads nowhere too, so that it is told."""
    if path.suffix.lower() in ENDINGS or not path.exists():
        return True
    try:
        with path.open("rb") as file:
            return is_picture(file.read(HEAD))
    except OSError:
        return True


def left_out_text(paths: Sequence[Path]) -> str:
    """Say which files of a folder were left out, "" for none."""
    more = f" and {len(paths) - NAMED} more" if len(paths) > NAMED else ""
    return f"no pictures, left out: {', '.join(map(shown, paths[:NAMED]))}{more}" if paths else ""


def shown(path: Path) -> str:
    """Return a path on one line, whatever characters and bytes are in it."""
    text = str(path)
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _is_text(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def read_images(
    recogniser: TextRecogniser, paths: Sequence[Path], characters: bool = False, alternatives: int = 0
) -> Iterator[Result]:
    """Read pictures one batch after the other, in their order; what cannot be read has its error and stops nothing.

    With `characters` or a number of `alternatives` the results have the details of TextRecogniser.read_in_detail.
    """

    def fit(path: Path) -> FittedPicture | str:
        try:
            return recogniser.fit_and_share(path)
        except OSError as error:
            return error.strerror or str(error)
        except ValueError as error:
            return str(error)

    with ThreadPoolExecutor() as pool:
        for start in range(0, len(paths), BATCH):
            batch = paths[start : start + BATCH]
            fitted = list(pool.map(fit, batch))
            read = iter(_readings(recogniser, fitted, characters or alternatives > 0, alternatives))
            for path, one in zip(batch, fitted, strict=True):
                yield Result(path=path, error=one) if isinstance(one, str) else Result(path=path, **next(read))


def _readings(
    recogniser: TextRecogniser, found: Sequence[FittedPicture | str], detailed: bool, alternatives: int
) -> list[dict[str, Any]]:
    """Return text, confidence and details of those of a batch that can be read."""
    fitted = [one for one in found if not isinstance(one, str)]
    if not fitted:
        return []
    pictures, shares = zip(*fitted, strict=True)
    batch = np.stack(pictures)
    if detailed:
        reading, details = recogniser.read_in_detail(batch, shares, alternatives)
    else:
        reading, details = recogniser.read(batch), [{} for _ in fitted]
    return [{"text": text, "confidence": float(confidence), "details": detail}
            for text, confidence, detail in zip(*reading, details, strict=True)]  # fmt: skip


def save_readings(
    recogniser: TextRecogniser, paths: Sequence[Path], output: Path, characters: bool = False, alternatives: int = 0,
    as_json: bool = False,
) -> int:  # fmt: skip
    """Read pictures, print each and the progress, save JSON lines as they come; return how many could not be read.

    `as_json` prints these lines, and nothing else.
    """
    progress = Progress("read", len(paths), "images")
    wrong = 0
    output.parent.mkdir(parents=True, exist_ok=True)
    with output.open("w", encoding="utf-8", newline="\n") as file, native_errors_hidden():
        for number, result in enumerate(read_images(recogniser, paths, characters, alternatives), start=1):
            file.write(f"{result.record()}\n")
            print(result.record() if as_json else result.line())
            wrong += bool(result.error)
            if number % BATCH == 0:
                file.flush()
            if not as_json:
                progress.update(number, f"{wrong} cannot be read" if wrong else "")
    return wrong


@contextmanager
def native_errors_hidden() -> Iterator[None]:
    """Keep what libraries write to the terminal by themselves from it: a line for every picture that is damaged."""
    sys.stderr.flush()
    with Path(os.devnull).open("wb") as nowhere, redirected(2, nowhere.fileno()):
        yield
