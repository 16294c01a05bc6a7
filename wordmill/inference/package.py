"""What a registered model carries: the ONNX file, a card that describes it, and the code that reads with it."""

import base64
import dataclasses
import hashlib
import json
import re
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow import pyfunc
from mlflow.entities import LoggedModelOutput
from mlflow.models import Model as ModelFile
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema

from wordmill.inference import card
from wordmill.inference.card import CARD, REFERENCE
from wordmill.inference.packaged.pyfunc import COLUMN
from wordmill.models import checkpoint
from wordmill.pictures.image import encode
from wordmill.recipe import frameworks
from wordmill.recipe.parsing import from_json
from wordmill.recipe.sections import Data, Model
from wordmill.store.artifacts import ROOT, Manifest, stored_manifest
from wordmill.store.experiments import EXAMPLE
from wordmill.store.files import write_atomically
from wordmill.store.keys import source_files
from wordmill.store.storage import Object, Store, file_facts, object_key
from wordmill.store.tracking import LOGGED, Run, asking, source_tags
from wordmill.text.charset import Charset

READER = "wordmill.inference.packaged.pyfunc"
PACKAGE = ROOT / "wordmill"
REQUIREMENTS = PACKAGE / "inference" / "packaged" / "requirements.txt"
NETWORK = "model.onnx"
UNREGISTERED = "wordmill.unregistered"  # the tag of a logged model that no version has yet
PARAMS = ParamSchema([ParamSpec("characters", DataType.boolean, False), ParamSpec("alternatives", DataType.long, 0)])
OUTPUTS = Schema([ColSpec(DataType.string, "text"), ColSpec(DataType.float, "confidence")])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lineage:
    """Where a recogniser comes from: the manifests of the stages that made, measured and exported it, and its run."""

    recipe: str
    trained: Manifest
    measured: list[Manifest]
    exported: list[Manifest]
    run_tag: str
    run: Run


def log_package(store: Store, lineage: Lineage, name: str, folder: Path) -> str:
    """Log a recogniser as an MLflow model of its run, written in an empty folder first; return its address."""
    data, model = folder / "recogniser", folder / "model"
    data.mkdir()
    sections = place_model(store, lineage, data / NETWORK)
    told = describe_model(store, lineage, data / NETWORK, *sections)
    write_atomically(data / CARD, json.dumps(told, indent=1, ensure_ascii=False))
    example = write_example(store, lineage.trained, folder / EXAMPLE)
    code, run = copy_code(folder), lineage.run
    made_by = {tag: value for tag, value in source_tags(lineage.run_tag, lineage.recipe).items() if "mlflow." in tag}
    with asking(f"log the model {name}"):
        logged = run.client.create_logged_model(run.experiment_id, name=name, source_run_id=run.run_id,
                                                tags={UNREGISTERED: "true", **made_by})  # fmt: skip
        head = ModelFile(artifact_path=logged.artifact_location, run_id=run.run_id, model_id=logged.model_id)
        _save(head, told, data, code, model, example)
        run.client.log_model_artifacts(logged.model_id, str(model))
        run.client.finalize_logged_model(logged.model_id, "READY")
        run.client.log_outputs(run.run_id, [LoggedModelOutput(logged.model_id, step=0)])
    return f"{LOGGED}{logged.model_id}"


def sweep_packages(run: Run, name: str, sources: set[str]) -> list[str]:
    """Delete what stages that were killed have logged for a registered model and no version has; return their ids.

    sources: the addresses of all versions' files. Only one stage at a time may log for a name.
    """
    mine, swept = f"name = '{name}' AND tags.`{UNREGISTERED}` = 'true'", []
    with asking(f"sweep what was logged for {name}"):
        for logged in run.client.search_logged_models([run.experiment_id], filter_string=mine):
            if (source := f"{LOGGED}{logged.model_id}") in sources:
                keep_package(run, source)
            else:
                run.client.delete_logged_model(logged.model_id)
                swept.append(logged.model_id)
    return swept


def keep_package(run: Run, source: str) -> None:
    """Note of a logged model's address that a version has it now."""
    with asking(f"keep {source}"):
        run.client.set_logged_model_tags(source.removeprefix(LOGGED), {UNREGISTERED: "false"})


def write_example(store: Store, trained: Manifest, path: Path) -> pd.DataFrame:
    """Write a picture such as the recogniser was validated on, fitted as it reads it; return the input that it is."""
    with np.load(store.fetch(trained.object(REFERENCE)), allow_pickle=False) as reference:
        picture = reference["images"][0]
    path.write_bytes(encode(picture))
    return pd.DataFrame({COLUMN: [base64.b64encode(path.read_bytes()).decode("ascii")]})


def _save(head: ModelFile, told: dict[str, Any], data: Path, code: Path, folder: Path, example: pd.DataFrame) -> None:
    """Write a model's folder as MLflow has it, with the card in its head too, where it is read without the files."""
    # Of inputs that it knows MLflow makes a table of scalars, which no array fits; the reader checks what it gets.
    signature = ModelSignature(outputs=OUTPUTS, params=PARAMS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it wants an example of what the signature says
        pyfunc.save_model(
            folder, loader_module=READER.replace(PACKAGE.name, code.name, 1), data_path=str(data),
            code_paths=[str(code)], signature=signature, metadata=told, mlflow_model=head,
            pip_requirements=REQUIREMENTS.read_text(encoding="utf-8").split(), input_example=example,
        )  # fmt: skip


def place_model(store: Store, lineage: Lineage, path: Path) -> tuple[Data, Model, float]:
    """Put the exported ONNX file there, or one made of the checkpoint where none was exported.

    Return its sections and its temperature.
    """
    for made in lineage.exported:
        if made.name == "onnx" and NETWORK in made.facts.get("files", {}).values():
            shutil.copyfile(store.fetch(made.object(NETWORK)), path)
            facts = made.facts
            return from_json(Data, facts["data"]), from_json(Model, facts["model"]), facts.get("temperature", 1.0)
    saved = checkpoint.load(store.fetch(lineage.trained.object("model.safetensors")))
    try:
        frameworks.twin("pytorch", "models.export").export_onnx(saved, path)
    except ImportError as error:
        raise RuntimeError(f"a registered model carries an ONNX file, which the recipe does not export and which "
                           f"PyTorch cannot make here ({error}): add onnx to export.formats") from None  # fmt: skip
    return saved.data, saved.model, saved.temperature


def describe_model(
    store: Store, lineage: Lineage, path: Path, data: Data, model: Model, temperature: float
) -> dict[str, Any]:
    """Return the model's card: how to use the file, and what it was made of."""
    trained, report = lineage.trained, f"runs/{lineage.run_tag}/report.html"
    with np.load(store.fetch(trained.object(REFERENCE)), allow_pickle=False) as reference:
        steps = reference["logits"].shape[1]
    charset = Charset(name=data.charset, symbols=trained.inputs["symbols"])
    interface = card.describe_file(data, model, charset, steps, decoded=True, temperature=temperature)
    return {
        "format": "onnx", "file": file_facts(path), **interface,
        "recipe": {"name": lineage.recipe, **interface["recipe"], "train": trained.inputs["train"]},
        "files": _files(store, lineage), "data_sets": _data_sets(store, trained),
        "benchmarks": {made.name: {key: made.facts[key] for key in ("accuracy", "correct", "total", "dataset")}
                       | {"evaluation": made.inputs["evaluation"], "manifest": made.reference}
                       for made in lineage.measured},
        "made_by": {"git_commit": trained.git_commit, "manifest": trained.reference, "start": trained.inputs["start"],
                    "run_tag": lineage.run_tag, "mlflow_run": lineage.run.run_id,
                    "report": f"s3://{store.bucket}/{report}"},
    }  # fmt: skip


def _files(store: Store, lineage: Lineage) -> dict[str, list[dict[str, Any]]]:
    """Return the recogniser's files by format, the checkpoint among them: name, size, digest and place in the store."""
    stored: dict[str, list[Object]] = {"safetensors": [lineage.trained.object("model.safetensors")]}
    stored |= {made.name: list(made.objects) for made in lineage.exported if made.objects}
    return {
        kind: [dataclasses.asdict(entry) | {"uri": f"s3://{store.bucket}/{object_key(entry)}"} for entry in entries]
        for kind, entries in stored.items()
    }


def _data_sets(store: Store, trained: Manifest) -> dict[str, dict[str, Any]]:
    """Return what was learnt from and validated on, by name: source, licence, digest, and manifests that tell more."""
    sets = {}
    for use in ("train", "val"):
        for reference in trained.facts[f"{use}_sets"]:
            packed = stored_manifest(store, reference)
            fetched = stored_manifest(store, packed.inputs["source"])
            told = {key: fetched.facts.get(key) for key in ("source", "licence", "sha256")}
            sets[packed.name] = {"use": use, **told, "samples": packed.facts["samples"], "shards": packed.reference,
                                 "fetched": fetched.reference}  # fmt: skip
    return sets


def copy_code(folder: Path) -> Path:
    """Copy the reader and all of this project that it imports into a folder; return the package that they make there.

    It is named by its content: a consumer may have a package `wordmill` of his own, or other models open.
    """
    sources = source_files([READER])
    content = hashlib.sha256()
    for path in sources:
        content.update(path.read_bytes())
    package = folder / f"wordmill_{content.hexdigest()[:12]}"
    for path in sources:
        copy = package / path.relative_to(PACKAGE)
        copy.parent.mkdir(parents=True, exist_ok=True)
        # Its imports of this project are from a package of another name.
        pattern, name = rf"^(\s*from ){PACKAGE.name}\.", rf"\1{package.name}."
        text = re.sub(pattern, name, path.read_text(encoding="utf-8"), flags=re.MULTILINE)
        copy.write_text(text, encoding="utf-8")
    for parent in {package, *(path.parent for path in package.rglob("*.py"))}:
        (parent / "__init__.py").touch()
    return package
