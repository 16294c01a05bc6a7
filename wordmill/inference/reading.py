"""Reading pictures with a recogniser in any of its files: `open_recogniser` and `read_images` as a library."""

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wordmill.inference.batches import in_batches
from wordmill.inference.card import prepared
from wordmill.inference.packaged.pyfunc import BATCH, TextRecogniser, find_card, read_card, sections_of
from wordmill.inference.runtimes import batches_of, open_file
from wordmill.models import checkpoint
from wordmill.pictures.image import Picture
from wordmill.recipe import frameworks
from wordmill.recipe.plain import read_text
from wordmill.store.files import write_atomically
from wordmill.store.progress import Progress
from wordmill.text.decoding import Logits, codec_of

ENDINGS = frozenset({".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff",
                     ".webp"})  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Result:
    """What was read of a picture, with a confidence in 0..1, or the error that says why nothing could be."""

    path: Path
    text: str = ""
    confidence: float = 0.0
    error: str = ""

    def line(self) -> str:
        """Return it for people."""
        return f"{self.path}: {self.error}" if self.error else f"{self.path}\t{self.text}\t{self.confidence:.4f}"

    def record(self) -> str:
        """Return it for programs, as a line of JSON."""
        found = {"error": self.error} if self.error else {"text": self.text, "confidence": round(self.confidence, 4)}
        return json.dumps({"path": str(self.path), **found}, ensure_ascii=False)


def open_recogniser(path: Path) -> TextRecogniser:
    """Open a .safetensors checkpoint, or an exported file of any format with its card beside it, by file or folder."""
    if path.suffix == ".safetensors":
        return _open_checkpoint(path)
    card_path, name = (find_card(path), "") if path.is_dir() else (find_card(path.parent), path.name)
    card, model = read_card(card_path, name)
    data, codec = sections_of(card, card_path)
    call, _ = open_file(card["format"], model, card)
    sizes = batches_of(card, model.name)

    def network(pictures: Picture) -> Logits:
        images = prepared(pictures, card)
        size = min((size for size in sizes if size >= len(images)), default=max(sizes, default=len(images)))
        return np.asarray(in_batches(call, size, images)[0], dtype=np.float32)

    return TextRecogniser(data, codec, network)


def _open_checkpoint(path: Path) -> TextRecogniser:
    """Open a checkpoint in the framework that trained it."""
    saved = checkpoint.load(path)
    framework = saved.train.framework
    try:
        predictor = frameworks.twin(framework, "models.predict").Predictor(saved, "cpu")
    except ImportError as error:
        raise RuntimeError(f"{path}: trained by {framework}, which cannot be imported here: {error}") from None
    return TextRecogniser(saved.data, codec_of(saved.model, saved.data), predictor)


def find_images(path: Path) -> list[Path]:
    """Return the pictures of a folder and those below it, of a .txt list with a path a line, or the one picture.

    Paths of a list are relative to its folder. A folder's pictures are known by how their names end.
    """
    if path.is_dir():
        found = sorted(file for file in path.rglob("*") if file.suffix.lower() in ENDINGS and file.is_file())
        if not found:
            raise ValueError(f"{path}: no file in it ends as pictures do: {' '.join(sorted(ENDINGS))}")
        return found
    if not path.is_file():
        raise ValueError(f"{path}: no such file or folder")
    if path.suffix.lower() != ".txt":
        return [path]
    lines = read_text(path).split("\n")
    if found := [path.parent / line.strip() for line in lines if line.strip()]:
        return found
    raise ValueError(f"{path}: the list is empty")


def read_images(recogniser: TextRecogniser, paths: Sequence[Path]) -> Iterator[Result]:
    """Read pictures one batch after the other, in their order; what cannot be read has its error and stops nothing."""

    def fit(path: Path) -> Picture | str:
        try:
            return recogniser.fit(path)
        except OSError as error:
            return error.strerror or str(error)
        except ValueError as error:
            return str(error)

    with ThreadPoolExecutor() as pool:
        for start in range(0, len(paths), BATCH):
            batch = paths[start : start + BATCH]
            yield from _results(recogniser, batch, list(pool.map(fit, batch)))


def _results(recogniser: TextRecogniser, paths: Sequence[Path], fitted: list[Picture | str]) -> Iterator[Result]:
    """Read one batch: of each path its fitted picture, or its error."""
    pictures = [picture for picture in fitted if not isinstance(picture, str)]
    read = iter(zip(*recogniser.read(np.stack(pictures)), strict=True)) if pictures else iter(())
    for path, picture in zip(paths, fitted, strict=True):
        if isinstance(picture, str):
            yield Result(path=path, error=picture)
        else:
            text, confidence = next(read)
            yield Result(path=path, text=text, confidence=float(confidence))


def save_readings(recogniser: TextRecogniser, paths: Sequence[Path], output: Path) -> int:
    """Read pictures, print each and the progress, save JSON lines; return how many could not be read."""
    progress = Progress("read", len(paths), "images")
    records: list[str] = []
    wrong = 0
    for result in read_images(recogniser, paths):
        print(result.line())
        records.append(result.record())
        wrong += bool(result.error)
        progress.update(len(records), f"{wrong} cannot be read" if wrong else "")
    write_atomically(output, "\n".join([*records, ""]))
    return wrong
