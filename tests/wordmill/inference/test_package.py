import base64
import dataclasses
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import requests

from pipelines.cli import main
from tests.components.export.exported import png
from tests.waiting import LIMIT_S
from tests.wordmill.inference.maker import CRNN, DATA, RARE, Maker
from wordmill.inference import package
from wordmill.inference.package import READER, place_model
from wordmill.inference.reading import open_recogniser
from wordmill.models.pt.predict import Predictor
from wordmill.pictures.decoder import decode
from wordmill.pictures.image import Picture
from wordmill.recipe import frameworks
from wordmill.recipe.sections import Model
from wordmill.store import experiments, tracking
from wordmill.store.keys import source_files
from wordmill.store.storage import Store

STRANGER = """
import json, sys, types
for name in ("components", "wordmill"):
    sys.modules[name] = types.ModuleType(name)  # a stranger's own package of that name
sys.modules["torch"] = None  # which cannot be imported there
import mlflow, numpy as np, pandas as pd
arrays = [np.load(path) for path in sys.argv[3:]]
paths = [path.replace(".npy", ".png") for path in sys.argv[3:]]
files = [open(path, "rb").read() for path in paths]
model = mlflow.pyfunc.load_model(sys.argv[1])
table = pd.DataFrame({"image": [files[0], paths[1], *arrays[2:]]}, index=[f"row {i}" for i in range(len(files))])
answers = {"bytes": model.predict(files), "paths": model.predict(paths), "arrays": model.predict(arrays),
           "table": model.predict(table)}
try:
    model.predict([files[0], b"no picture", "absent.png", arrays[0].astype(float), 7])
except ValueError as error:
    told = str(error)
with open(sys.argv[2], "w") as file:
    json.dump({"answers": {name: answer.to_dict("list") for name, answer in answers.items()}, "told": told,
               "index": list(answers["table"].index), "confidence": str(answers["bytes"]["confidence"].dtype),
               "inputs": model.metadata.signature.inputs,
               "outputs": model.metadata.signature.outputs.to_dict(),
               "details": model.predict(files, params={"characters": True, "alternatives": 2}).to_dict("list"),
               "licence": model.metadata.metadata["data_sets"]["words"]["licence"],
               "foreign": [name for name in sys.modules
                           if name.startswith(("components.", "wordmill.", "torch."))]}, file)
"""


def ask_a_stranger(uri: str, images: list[Picture], folder: Path) -> dict[str, Any]:
    """Load a model in a process that knows the MLflow server alone, and hand it pictures in every form."""
    folder.mkdir()
    paths = [folder / f"{number}.npy" for number in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        np.save(path, image)
        path.with_suffix(".png").write_bytes(png(image))
    known = ("PATH", "HOME", "LANG", "MLFLOW_TRACKING_URI")
    environment = {name: os.environ[name] for name in known if name in os.environ}
    # -I leaves out the working directory, PYTHONPATH and the user's own packages.
    command = [sys.executable, "-I", "-c", STRANGER, uri, "answer.json", *map(str, paths)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads((folder / "answer.json").read_text())
    return found


def test_a_stranger_reads_with_the_champion(maker: Callable[..., Maker], images: list[Picture], tmp_path: Path) -> None:
    made = maker(CRNN)
    assert made.decide(made.exported())["outcome"] == "promoted"
    found = ask_a_stranger(f"models:/wordmill-{made.recipe}@champion", images, tmp_path / "elsewhere")
    texts, confidences = made.expected(images)
    assert len({*texts}) > 3
    for form, answer in found["answers"].items():
        assert answer["text"] == texts, form
        assert answer["confidence"] == pytest.approx(confidences, abs=1e-4), form
    assert found["index"] == [f"row {number}" for number in range(len(images))]
    assert found["confidence"] == "float32"
    assert found["inputs"] is None
    assert [(entry["name"], entry["type"]) for entry in found["outputs"]] == [
        ("text", "string"),
        ("confidence", "float"),
    ]
    details = found["details"]
    assert details["text"] == texts
    assert ["".join(one["text"] for one in row) for row in details["characters"]] == texts
    assert all(0 <= one["start"] <= one["end"] <= 1 for row in details["characters"] for one in row)  # of padding: 1
    assert {len(row) for row in details["alternatives"]} == {2}
    assert found["licence"] == "words licence"
    assert found["foreign"] == []
    assert found["told"].startswith("4 of 5 images cannot be read: image 1: not a whole picture")
    for part in ("image 2 (absent.png): [Errno 2]", "image 3: expected uint8 (H, W) or (H, W, 1 or 3), found float64",
                 "image 4: expected bytes, a path or a uint8 array, found int"):  # fmt: skip
        assert part in found["told"]


def copied_as_before(folder: Path) -> Path:
    """Copy the reader's code as it lay when the library was the folder `recognition` of the package `components`."""
    package, flat = folder / "wordmill_0123456789ab", r"^(\s*from )wordmill(\.\w+)*(\.\w+ import)"
    for path in source_files([READER]):
        parts = ("packaged", path.name) if path.parent.name == "packaged" else (path.name,)
        copy = package.joinpath("recognition", *parts)
        copy.parent.mkdir(parents=True, exist_ok=True)
        text = re.sub(flat, rf"\1{package.name}.recognition\3", path.read_text(), flags=re.MULTILINE)
        copy.write_text(text)
    for parent in {package, *(path.parent for path in package.rglob("*.py"))}:
        (parent / "__init__.py").touch()
    return package


def test_models_that_were_registered_before_the_library_had_rooms_read_on(
    maker: Callable[..., Maker], images: list[Picture], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(package, "copy_code", copied_as_before)
    monkeypatch.setattr(package, "READER", "wordmill.recognition.packaged.pyfunc")
    made = maker(CRNN)
    assert made.decide(made.exported())["outcome"] == "promoted"
    texts = made.expected(images)[0]
    name = f"wordmill-{made.recipe}"
    found = ask_a_stranger(f"models:/{name}@champion", images, tmp_path / "elsewhere")
    assert (found["answers"]["bytes"]["text"], found["foreign"]) == (texts, [])
    here = mlflow.pyfunc.load_model(f"models:/{name}/1")  # beside this library
    assert here.metadata.flavors["python_function"]["loader_module"].endswith("ab.recognition.packaged.pyfunc")
    assert list(here.predict([png(image) for image in images])["text"]) == texts
    folder = tracking.download_model(tracking.find_version(name, "champion"), tmp_path / "models")
    assert list(open_recogniser(folder).predict([png(image) for image in images])["text"]) == texts


def test_the_verb_read_finds_registered_models(
    maker: Callable[..., Maker], images: list[Picture], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*model: str) -> object:
        with pytest.raises(SystemExit) as ended:
            main(["read", str(words), "--recipe", made.recipe, "--output", str(tmp_path / "out"), *model])
        return ended.value.code

    made, words = maker(CRNN), tmp_path / "words"
    made.decide(made.exported())
    words.mkdir()
    for number, image in enumerate(images):
        (words / f"{number}.png").write_bytes(png(image))
    monkeypatch.setattr("pipelines.local.services.STATE", tmp_path / "state")
    texts = made.expected(images)[0]
    downloads = []

    def download(**at: str) -> str:
        downloads.append(at)
        return str(mlflow.artifacts.download_artifacts(**at))

    monkeypatch.setattr(tracking, "download_artifacts", download)
    name = f"wordmill-{made.recipe}"
    logged = tracking.find_version(name, "champion").source.rpartition("/")[2]
    left = tmp_path / "state" / "models" / f"{logged}.0123456789ab.part"  # by a download that was broken off
    left.mkdir(parents=True)
    for model in ([], ["--model", "champion"], ["--model", f"{name}@candidate"], ["--model", f"{name}/1"]):
        (tmp_path / "out").unlink(missing_ok=True)
        assert read(*model) == 0
        assert [json.loads(line)["text"] for line in (tmp_path / "out").read_text().splitlines()] == texts
    assert len(downloads) == 1
    assert not left.exists()
    assert str(read("--model", "newest")).endswith(f"has no model '{name}' with the alias 'newest'")
    assert str(read("--model", "other/7")).endswith("has no model 'other' with the version '7'")
    assert read("--model", "other.onnx") == "error: other.onnx: no such file or folder"


def test_a_model_is_packaged_and_registered_once(maker: Callable[..., Maker], store: Store, tmp_path: Path) -> None:
    made = maker(CRNN)
    exported = made.exported()
    assert made.decide(exported)["version"] == made.decide(exported)["version"] == "1"
    client, run = tracking.connect(), tracking.open_run(store, made.seed.run_tag)
    logged = client.search_logged_models([run.experiment_id])
    assert [(model.source_run_id, str(model.status)) for model in logged] == [(run.run_id, "READY")]
    theirs = client.get_run(run.run_id).data.tags  # so that MLflow says who has logged it, from what
    for tag in ("mlflow.source.name", "mlflow.source.git.commit", "mlflow.user"):
        assert logged[0].tags[tag] == theirs[tag]
    version = client.get_model_version(f"wordmill-{made.recipe}", "1")
    assert (version.source, version.run_id) == (f"models:/{logged[0].model_id}", run.run_id)
    assert [output.model_id for output in client.get_run(run.run_id).outputs.model_outputs] == [logged[0].model_id]
    assert not list(store.cache.glob("work/*"))


def test_a_models_input_example_is_a_picture_that_it_reads(maker: Callable[..., Maker]) -> None:
    made = maker(CRNN)
    made.decide(made.exported())
    name, run = f"wordmill-{made.recipe}", tracking.open_run(made.store, made.seed.run_tag)
    model = mlflow.pyfunc.load_model(f"models:/{name}/1")
    (picture,) = model.input_example["image"]
    assert np.array_equal(decode(base64.b64decode(picture), 3), np.zeros((32, 100, 3), np.uint8))
    assert list(model.predict(model.input_example)["text"]) == made.expected([np.zeros((32, 100, 3), np.uint8)])[0]
    place = experiments.example_picture(run, experiments.logged_model(run, name, "1"))
    assert requests.get(f"{tracking.tracking_uri()}/{place}", timeout=LIMIT_S).content == base64.b64decode(picture)


def test_a_model_that_was_logged_without_an_example_has_none(
    maker: Callable[..., Maker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(package, "EXAMPLE", "other.png")
    made = maker(CRNN)
    made.decide(made.exported())
    run = tracking.open_run(made.store, made.seed.run_tag)
    assert experiments.example_picture(run, experiments.logged_model(run, f"wordmill-{made.recipe}", "1")) == ""


def test_the_card_tells_what_the_file_needs_and_what_it_was_made_of(
    maker: Callable[..., Maker], store: Store, tmp_path: Path
) -> None:
    made = maker(CRNN)
    exported = made.exported()
    made.open(tmp_path / "data", exported)
    card = json.loads((tmp_path / "data" / "card.json").read_text())
    onnx = exported.object("model.onnx")
    assert card["file"] == {"name": "model.onnx", "sha256": onnx.sha256, "bytes": onnx.bytes}
    assert card["input"] == {"name": "images", "shape": ["N", 3, 32, 100], "layout": "NCHW", "dtype": "float32",
                             "range": [-1.0, 127 / 128], "colour": "RGB"}  # fmt: skip
    steps = Predictor(made.checkpoint, "cpu")(np.zeros((1, 32, 100, 3), np.uint8)).shape[1]
    assert card["output"]["shape"] == ["N", steps, 37]
    assert {"rule": "ctc", "search": "greedy", "blank": 0, "first": 1}.items() <= card["decode"].items()
    assert card["charset"] == {"name": "lower36", "symbols": "0123456789abcdefghijklmnopqrstuvwxyz"}
    assert card["recipe"]["data"]["fit"] == "pad_grey"
    assert card["recipe"]["train"]["optimizer"] == "adamw"
    weights = made.trained.object("model.safetensors")
    uri = f"s3://{store.bucket}/objects/{weights.sha256[:2]}/{weights.sha256}"
    assert card["files"]["safetensors"] == [
        {"name": "model.safetensors", "sha256": weights.sha256, "bytes": weights.bytes, "uri": uri}
    ]
    assert card["files"]["onnx"][0]["sha256"] == onnx.sha256
    words = card["data_sets"]["words"]
    assert {key: words[key] for key in ("use", "source", "licence", "sha256", "samples")} == {
        "use": "train", "source": "https://data.example/words.zip", "licence": "words licence",
        "sha256": "wordswordswords", "samples": 9,
    }  # fmt: skip
    assert card["data_sets"]["others"]["use"] == "val"
    street = {"accuracy": 0.75, "correct": 3, "total": 4, "dataset": "shard/street"}
    street |= {"evaluation": {"protocol": "mindocr", "beams": 1, "amp": "O0"}, "manifest": made.measured[0].reference}
    assert card["benchmarks"] == {"street": street}
    assert card["made_by"]["git_commit"] == made.trained.git_commit
    assert card["made_by"]["start"] == "f00d"
    assert card["made_by"]["report"] == f"s3://{store.bucket}/runs/{made.seed.run_tag}/report.html"


@pytest.mark.parametrize("model", [CRNN, RARE], ids=lambda model: model.name)
def test_a_recipe_without_onnx_gets_a_file_of_its_checkpoint(
    maker: Callable[..., Maker], images: list[Picture], tmp_path: Path, model: Model
) -> None:
    made = maker(model, dataclasses.replace(DATA, channels=1, width=64, fit="stretch"))
    found = made.open(tmp_path / "data").predict([png(image) for image in images])
    texts, confidences = made.expected([decode(png(image), 1) for image in images])
    assert any(texts)
    assert list(found["text"]) == texts
    assert list(found["confidence"]) == pytest.approx(confidences, abs=1e-4)


def test_without_onnx_and_without_pytorch_the_error_says_what_to_export(
    maker: Callable[..., Maker], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def twin(framework: str, module: str) -> None:
        raise ImportError("No module named 'torch'")

    made = maker(CRNN)
    monkeypatch.setattr(frameworks, "twin", twin)
    with pytest.raises(RuntimeError, match=r"No module named 'torch'\): add onnx to export.formats"):
        place_model(made.store, made.lineage(), tmp_path / "model.onnx")
