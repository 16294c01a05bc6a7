"""Whole readings as contenders: from crops of any size to texts, by our files in their runtimes and by peers."""

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.contender import Contender
from benchmarks.files import crops
from wordmill.inference.card import CARD
from wordmill.inference.packaged.pyfunc import TextRecogniser, open_onnx, read_card, sections_of
from wordmill.inference.reading import open_recogniser
from wordmill.pictures.image import Picture, normalise
from wordmill.recipe.sections import Recipe
from wordmill.text.decoding import Logits

ROOT = Path(__file__).resolve().parents[1]


def contender(recipe: Recipe, name: str, batch: int, threads: int) -> Contender:
    """Return the reading of one batch."""
    read, pictures = reader(recipe, name, batch, threads), crops(batch)
    return Contender(lambda: read(pictures))


def reader(recipe: Recipe, name: str, batch: int, threads: int) -> Callable[[list[Picture]], object]:
    """Return a contender's own way from crops (H, W, 3) to texts and confidences."""
    if name == "doctr":
        from benchmarks.peers import doctr_crnn

        return doctr_crnn.reader(recipe, batch)
    if name == "rapidocr":
        from benchmarks.peers import rapidocr_recogniser

        return rapidocr_recogniser.reader(batch, threads)
    recogniser = opened(recipe, name, threads)
    return lambda pictures: recogniser.read(np.stack([recogniser.fit(picture) for picture in pictures]))


def opened(recipe: Recipe, name: str, threads: int) -> TextRecogniser:
    """Open our recogniser in a runtime: `openvino` is another for the file `onnx`."""
    folder = Path(tempfile.mkdtemp(dir=Path.cwd()))  # which goes with the worker
    kind = "onnx" if name == "openvino" else name
    # In a process of its own: MindSpore cannot run in one that has exported, and memory stays as a reader's is.
    subprocess.run([sys.executable, "-m", "benchmarks.files", recipe.name, kind, str(folder)], cwd=ROOT, check=True)
    if name == "openvino":
        return in_openvino(folder, threads)
    return open_recogniser(folder) if name == "mindir" else open_onnx(folder / CARD, threads)


def in_openvino(folder: Path, threads: int) -> TextRecogniser:
    """Open an ONNX file in OpenVINO, in float32 as the others, where it would take bfloat16 by itself."""
    import openvino  # type: ignore[import-not-found]

    card, model = read_card(folder / CARD)
    data, codec = sections_of(card, folder / CARD)
    settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    network = openvino.Core().compile_model(model, "CPU", settings)

    def run(pictures: Picture) -> Logits:
        return np.array(network(normalise(pictures, data.middle))["logits"], dtype=np.float32)

    return TextRecogniser(data, codec, run)
