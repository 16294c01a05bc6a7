"""A run in numbers: the document summary.json, and what of it goes to MLflow as metrics, parameters and tags."""

import json
import platform
import time
from importlib.metadata import distributions
from typing import Any

from components.recognition.artifacts import Manifest, digest, git_commit
from components.recognition.metrics import plain_mean, weighted_mean
from components.recognition.tracking import Point
from components.report.gather import Gathered

SCHEMA = 1
PACKAGES = {"kfp", "mlflow", "numpy", "torch", "mindspore", "onnx", "onnxruntime", "opencv-python-headless", "boto3"}
SILENT = "the pipeline did not succeed and no stage recorded why: a task was killed or did not start, see its log"


def summarise(gathered: Gathered, recipe: str, run_tag: str, succeeded: bool) -> dict[str, Any]:
    """Return the summary of a run, without MLflow's part; what a failed run did not reach is empty or None."""
    errors = [f"{r['stage']} {r['name']}: {r['error']}" for r in gathered.records if not r["ok"]]
    if not succeeded and not errors:
        errors = [SILENT]
    train, gate = gathered.one("train"), gathered.one("gate")
    benchmarks = [_benchmark(manifest) for manifest in gathered.of("evaluate")]
    return {
        "schema": SCHEMA,
        "run_tag": run_tag,
        "recipe": recipe,
        "ok": not errors,
        "errors": errors,
        "framework": train and train.facts["framework"],
        "benchmarks": benchmarks,
        **_means(benchmarks),
        "formats": [manifest.facts for manifest in gathered.of("smoke")],
        "gate": gate and gate.facts,
        "stages": [{key: r[key] for key in ("stage", "name", "seconds", "found", "ok")} for r in gathered.records],
        "mlflow": {"run_id": None, "url": None},
        "report": f"runs/{run_tag}/report.html",
        "versions": _versions() | (train.facts["versions"] if train else {}),
        # The gate's key is the run's own, the others are equal wherever the same work was done.
        "digests": {name: manifest.key for name, manifest in gathered.manifests.items() if manifest.stage != "gate"},
        "git_commit": git_commit(),
        "training": train.facts if train else {},
    }


def _benchmark(evaluation: Manifest) -> dict[str, Any]:
    keys = ("total", "correct", "accuracy", "low", "high", "ned")
    return {"name": evaluation.name, **{key: evaluation.facts[key] for key in keys}}


def _means(benchmarks: list[dict[str, Any]]) -> dict[str, float | None]:
    """Return the published figure, the plain mean, and the accuracy over all samples."""
    if not benchmarks:
        return {"mean_accuracy": None, "weighted_accuracy": None}
    weighted = weighted_mean([row["correct"] for row in benchmarks], [row["total"] for row in benchmarks])
    return {"mean_accuracy": plain_mean([row["accuracy"] for row in benchmarks]), "weighted_accuracy": weighted}


def _versions() -> dict[str, str]:
    installed = {item.metadata["Name"]: item.version for item in distributions() if item.metadata["Name"] in PACKAGES}
    return {"python": platform.python_version(), **dict(sorted(installed.items()))}


def points(gathered: Gathered, summary: dict[str, Any]) -> list[Point]:
    """Return every stage's metrics as MLflow points, and the training curves if training itself did not send them."""
    at = time.time()
    train = gathered.one("train")
    curves = train.curves if train else {}
    result: list[Point] = []
    for manifest in gathered.manifests.values():
        step = int(manifest.facts["steps"]) if manifest.stage == "train" else 0
        # A curve of the same name ends with its last value, the metric is that of the whole run or of the weights kept.
        result += [(f"final/{n}" if n in curves else n, v, step, at) for n, v in manifest.metrics.items()]
    if gathered.found("train"):
        result += [(name, value, step, time_s) for name, curve in curves.items() for step, value, time_s in curve]
    means = {"mean/accuracy": summary["mean_accuracy"], "mean/weighted_accuracy": summary["weighted_accuracy"]}
    return result + [(name, value, 0, at) for name, value in means.items() if value is not None]


def parameters(gathered: Gathered) -> dict[str, str]:
    """Return the recipe as flat MLflow parameters: `train.lr`, `model.hidden` ..., and where it was trained."""
    train, gate = gathered.one("train"), gathered.one("gate")
    sections = {key: train.inputs[key] for key in ("data", "model", "train")} if train else {}
    if gate:
        sections["gate"] = gate.inputs["gate"]
    flat = {f"{section}.{key}": _text(value) for section, values in sections.items() for key, value in values.items()}
    return flat | {key: str(train.inputs[key]) for key in ("device", "processes") if train}


def tags(gathered: Gathered, recipe: str) -> dict[str, str]:
    """Return the tags that tell equal recipes, equal data and equal code."""
    data = {name: manifest.key for name, manifest in gathered.datasets.items()}
    digests = {"wordmill.recipe_digest": digest(parameters(gathered)), "wordmill.data_digest": digest(data)}
    return {"wordmill.recipe": recipe, "wordmill.git_commit": git_commit(), **digests}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
