"""Exported files of a recipe's recogniser with fresh weights, and word pictures to read with them.

python -m benchmarks.files RECIPE onnx|onnx_int8|onnx_int8_qoperator|mindir FOLDER
"""

import json
import sys
from pathlib import Path

import cv2
import numpy as np

from wordmill.inference import card
from wordmill.models.checkpoint import Checkpoint
from wordmill.pictures.image import Picture, fit_picture
from wordmill.recipe.frameworks import twin
from wordmill.recipe.loading import load_recipe
from wordmill.recipe.sections import INT8, Recipe
from wordmill.store.storage import hash_file
from wordmill.synth.renderer import SynthSpec, render
from wordmill.text.decoding import codec_of

RECIPES = Path(__file__).resolve().parents[1] / "pipelines" / "recipes"
CALIBRATION = 16  # pictures
ENLARGED = 2  # rendered words are as small as the network's input, words cut from photographs are larger


def fresh(recipe: Recipe) -> Checkpoint:
    """Return a checkpoint of fresh weights."""
    import torch

    torch.manual_seed(0)
    net = twin("pytorch", "models.model").build(recipe.model, recipe.data, codec_of(recipe.model, recipe.data).classes)
    tensors = twin("pytorch", "models.weights").dump(net)
    return Checkpoint(tensors=tensors, data=recipe.data, model=recipe.model, train=recipe.train, step=0)


def write_file(recipe: Recipe, kind: str, folder: Path) -> Path:
    """Write a recogniser's file of a kind, its card beside it, and return its path."""
    saved, path = fresh(recipe), folder / f"model.{'mindir' if kind == 'mindir' else 'onnx'}"
    if kind == "mindir":
        twin("mindspore", "models.export").export_mindir(saved, path)
    else:
        twin("pytorch", "models.export").export_onnx(saved, path)
    if kind in INT8:
        from wordmill.inference import quantise  # ONNX Runtime, which the others are measured without

        pictures = np.stack([fit_picture(picture, recipe.data) for picture in crops(CALIBRATION)])
        fp32 = path.rename(folder / "fp32.onnx")
        quantise.quantise(fp32, path, pictures, recipe.data.middle, kind.endswith("_qoperator"))
    write_card(path, saved, kind)
    return path


def write_card(path: Path, saved: Checkpoint, kind: str) -> None:
    """Write the card beside a file that was made of a checkpoint."""
    data, codec = saved.data, codec_of(saved.model, saved.data)
    blank = np.zeros((1, data.height, data.width, data.channels), np.uint8)
    steps = twin("pytorch", "models.predict").Predictor(saved, "cpu")(blank).shape[1]
    file = {"name": path.name, "sha256": hash_file(path), "bytes": path.stat().st_size}
    files = {kind: [{**file, "batch": card.ANY}]}
    told = {"format": kind, "file": file, "files": files, **card.describe_file(data, saved.model, codec.charset, steps)}
    path.with_name(card.CARD).write_text(json.dumps(told), encoding="utf-8")


def crops(count: int) -> list[Picture]:
    """Render words, uint8 (H, W, 3) of many sizes."""
    spec = SynthSpec(seed=1, count=count, fonts="test", words="test", difficulty="mixed")
    made = []
    for picture, _ in render(spec, 0, count):
        large = cv2.resize(picture, None, fx=ENLARGED, fy=ENLARGED, interpolation=cv2.INTER_LINEAR)
        made.append(np.asarray(cv2.cvtColor(large, cv2.COLOR_GRAY2RGB), dtype=np.uint8))
    return made


if __name__ == "__main__":
    write_file(load_recipe(RECIPES / f"{sys.argv[1]}.yaml"), sys.argv[2], Path(sys.argv[3]))
