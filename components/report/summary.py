"""A run in numbers: the document summary.json."""

import platform
from dataclasses import asdict
from typing import Any

from components.report.cluster import Fate
from components.report.gather import Gathered, lost_tasks, task_names
from components.report.published import Published, published
from components.report.reading import sum_by_length, sum_calibration, sum_confusion
from wordmill.store.artifacts import Manifest, git_commit
from wordmill.store.keys import version_of
from wordmill.text.metrics import plain_mean, weighted_mean

SCHEMA = 1
PACKAGES = {"kfp", "mlflow", "numpy", "torch", "mindspore", "onnx", "onnxruntime", "opencv-python-headless", "boto3"}
# Their keys are a run's own, those of others are equal where the same work was done.
OWN = ("fresh", "rivals", "gate", "tune")
SHOWN_CONFUSIONS = 24  # all of them are in the evaluations' manifests
SILENT = "Kubeflow calls the run failed though every stage has recorded its work: see its page"
LOST = "recorded nothing: its task was killed or did not start, see its log"
BEHIND = "its work is recorded, its task failed all the same"
FAILED = "FAILED"
RECORDED = Fate()  # nothing is known but what the stages have recorded
UNLEARNT = "a smoke run's loss is lower at the end than at first, this one's is not"


def summarise(
    gathered: Gathered, recipe: str, run_tag: str, state: str = "", expected: list[str] | None = None,
    fate: Fate = RECORDED,
) -> dict[str, Any]:  # fmt: skip
    """Return the summary of a run, without MLflow's part; what a failed run did not reach is empty or None.

    How it ended is what its stages have recorded, those of `expected` all; the engine's `state` counts where it is
    FAILED, for on a cluster it stays RUNNING where a branch is skipped and where a task is killed.
    """
    errors = failures(gathered, expected or [], fate)
    if state == FAILED and not errors:
        errors = [SILENT]
    if fate.stopped:
        errors.insert(0, f"stopped by hand; --run-tag {run_tag}, in make RUN_TAG={run_tag}, goes on with it")
    fresh, train, gate = gathered.one("fresh"), gathered.one("train"), gathered.one("gate")
    loss = _loss(train) if train else None
    if gate and not gate.inputs["gate"]["promote"] and not (loss and loss["last"] < loss["first"]):
        errors.append(f"train {train.name if train else recipe}: {UNLEARNT}: {loss}")
    evaluations = gathered.of("evaluate")
    known = published(recipe)
    benchmarks = [_benchmark(manifest, known) for manifest in evaluations]
    return {
        "schema": SCHEMA, "run_tag": run_tag, "recipe": recipe, "ok": not errors, "errors": errors,
        "stopped": fate.stopped,
        "fresh": fresh and fresh.facts, "framework": train and train.facts["framework"],
        "benchmarks": benchmarks, **_means(benchmarks),
        "published": known and _published(known, benchmarks),
        "reading": _reading(evaluations) if evaluations else None,
        "formats": [manifest.facts for manifest in gathered.of("smoke")],
        "gate": gate and gate.facts, "champion": gate and _champion(gate.facts),
        "drift": gate and gate.facts.get("drift"),
        "tune": (tune := gathered.one("tune")) and tune.facts,
        "reused": {name: text for record in gathered.records for name, text in record["reused"].items()},
        "stages": [{key: r[key] for key in ("stage", "name", "seconds", "found", "ok")} for r in gathered.records],
        "kubeflow": fate.run,
        "mlflow": {"run_id": None, "url": None}, "report": f"runs/{run_tag}/report.html",
        "versions": _versions() | (train.facts["versions"] if train else {}),
        "digests": {name: manifest.key for name, manifest in gathered.manifests.items() if manifest.stage not in OWN},
        "git_commit": git_commit(),
        "training": train.facts if train else {},
        "loss": loss,
        "stands_for": _stands_for(gathered),
        "trace": [asdict(entry) for entry in train.objects if entry.name.startswith("trace/")] if train else [],
    }  # fmt: skip


def failures(gathered: Gathered, expected: list[str], fate: Fate) -> list[str]:
    """Return each failed stage's own sentence, and of those that could not say one what Kubernetes knows."""
    told = [f"{r['stage']} {r['name']}: {r['error']}" for r in gathered.records if not r["ok"]]
    if fate.stopped:
        return told  # what was not reached is nobody's fault
    # Of a run that is continued some records may be those of the run before; and a pod can fail behind its record.
    names, done = task_names(expected), {f"{r['stage']}.{r['name']}" for r in gathered.records if r["ok"]}
    untrue = {task: fate.pods[names[task]] for task in expected if task in done and names[task] in fate.pods}
    lost = {task: fate.pods.get(names[task], LOST) for task in lost_tasks(gathered, expected)}
    told += [f"{task.replace('.', ' ', 1)}: {BEHIND}: {why}" for task, why in untrue.items()]
    return told + [f"{task.replace('.', ' ', 1)}: {why}" for task, why in lost.items()]


def _benchmark(evaluation: Manifest, known: Published | None) -> dict[str, Any]:
    keys = ("total", "correct", "accuracy", "low", "high", "ned", "protocol", "left_out", "changed")
    printed = known.accuracy.get(evaluation.name) if known else None
    facts = {key: evaluation.facts[key] for key in keys}
    return {"name": evaluation.name, **facts, "published": None if printed is None else printed / 100}


def _loss(train: Manifest) -> dict[str, float] | None:
    """Return the first and the last recorded mean loss of a training, None where there are no two."""
    losses = [value for _, value, _ in train.curves.get("train/loss", [])]
    return {"first": losses[0], "last": losses[-1]} if len(losses) > 1 else None


def _stands_for(gathered: Gathered) -> dict[str, list[str]]:
    """Return which rendered sets a smoke run took in the place of which others."""
    fetched = gathered.one("fetch")
    entries = fetched.facts["entries"] if fetched else {}
    return {name: entry["stands_for"] for name, entry in entries.items() if entry["stands_for"]}


def _published(known: Published, benchmarks: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return who published figures for these benchmarks, and their plain mean if each of them has one."""
    figures = [row["published"] for row in benchmarks if row["published"] is not None]
    if not figures:
        return None
    mean = plain_mean(figures) if len(figures) == len(benchmarks) else None
    return {"by": known.by, "source": known.source, "protocol": known.protocol, "mean": mean}


def _champion(gate: dict[str, Any]) -> dict[str, Any] | None:
    """Return the champion's mean over the benchmarks that both were measured on, and how far the candidate is off."""
    first = next(iter(gate["rivals"].values()), None)
    return first and {key: first[key] for key in ("mean", "difference", "interval")}


def _reading(evaluations: list[Manifest]) -> dict[str, Any]:
    confused = sum_confusion(evaluations)
    return {"by_length": sum_by_length(evaluations), "confusion": confused[:SHOWN_CONFUSIONS],
            "confused": sum(row["count"] for row in confused),
            "calibration": sum_calibration(evaluations), "temperature": evaluations[0].facts["temperature"],
            "uncalibrated": sum_calibration(evaluations, "uncalibrated")["ece"]}  # fmt: skip


def _means(benchmarks: list[dict[str, Any]]) -> dict[str, float | None]:
    """Return the published figure, the plain mean, and the accuracy over all samples."""
    if not benchmarks:
        return {"mean_accuracy": None, "weighted_accuracy": None}
    weighted = weighted_mean([row["correct"] for row in benchmarks], [row["total"] for row in benchmarks])
    return {"mean_accuracy": plain_mean([row["accuracy"] for row in benchmarks]), "weighted_accuracy": weighted}


def _versions() -> dict[str, str]:
    installed = {name: version for name in sorted(PACKAGES) if (version := version_of(name))}
    return {"python": platform.python_version(), **installed}
