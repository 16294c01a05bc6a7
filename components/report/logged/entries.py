"""What of a run goes to MLflow as metrics, parameters and tags."""

import json
import re
import time
from typing import Any

from components.report.gather import Gathered
from wordmill.store.artifacts import Manifest, digest
from wordmill.store.experiments import Figure
from wordmill.store.tracking import COMMIT, Point

TAG_CHARACTERS = 100  # which the table of runs shows
# Where the numbers of a stage's manifest stand, so that MLflow puts those of one benchmark and of one file together.
PLACES = {"evaluate": "benchmark/", "smoke": "file/"}
OFF = ("", "0", "0.0", "false", "none", "{}", "[]")  # values of what a recipe does not use, which nobody has to read
LETTER, MARGIN = 7, 20  # px of a column of the table of runs


def measured_figures(gathered: Gathered, summary: dict[str, Any]) -> list[Figure]:
    """Return a run's few figures, and what its stages have measured of benchmarks and files."""
    found = [Figure(name=name, value=value) for name, value in headline(gathered, summary).items() if value is not None]
    for manifest in gathered.manifests.values():
        if manifest.stage in PLACES:
            measured_on = manifest.name if manifest.stage == "evaluate" else ""
            found += [Figure(name=f"{PLACES[manifest.stage]}{name}", value=value, data_set=measured_on)
                      for name, value in manifest.metrics.items()]  # fmt: skip
    for row in summary["benchmarks"]:
        found += [Figure(name=f"{PLACES['evaluate']}{row['name']}/{key}", value=row[name], data_set=row["name"])
                  for key, name in (("low", "low"), ("high", "high"), ("samples", "total"))]  # fmt: skip
    return found


def curve_points(gathered: Gathered, summary: dict[str, Any]) -> list[Point]:
    """Return the training curves if training did not send them, and the learning curve."""
    train, found = gathered.one("train"), _learning_curve(summary["tune"] or {})
    if train and gathered.found("train"):
        found += [(name, value, step, time_s) for name, curve in train.curves.items() for step, value, time_s in curve]
    return found


def _learning_curve(tune: dict[str, Any]) -> list[Point]:
    """Return the learning curve as MLflow points, whose steps are words, and what twice as many would give."""
    at, curve = time.time(), tune.get("curve", {"points": []})
    found = [("curve/accuracy", row["correct"] / row["total"], row["words"], at) for row in curve["points"]]
    return [*found, *([("curve/gain", curve["gain"], 0, at)] if found else [])]


def headline(gathered: Gathered, summary: dict[str, Any]) -> dict[str, float | None]:
    """Return the figures by which runs are told apart first; None for what this one did not reach."""
    train, champion = gathered.one("train"), summary["champion"]
    return {
        "mean_accuracy": summary["mean_accuracy"],
        "weighted_accuracy": summary["weighted_accuracy"],
        "points_to_champion": champion and 100 * champion["difference"],
        "best_val_accuracy": train.facts["val_accuracy"] if train else None,  # of the weights kept
        "mean_images_per_s": train.facts["images_per_s"] if train else None,  # of the whole training
        "device_hours": train.seconds * train.facts["processes"] / 3600 if train else None,
    }


def columns(summary: dict[str, Any]) -> dict[str, int]:
    """Return the columns that MLflow's table of this recipe's runs has first, with their widths in px.

    Benchmarks come last, for there may be more of them than a screen is wide.
    """
    accuracies = [f"metrics.`{PLACES['evaluate']}{row['name']}/accuracy`" for row in summary["benchmarks"]]
    shown = ["metrics.`mean_accuracy`", "tags.`wordmill.gate`", "metrics.`mean_images_per_s`",
             "metrics.`points_to_champion`", *accuracies]  # fmt: skip
    return {name: LETTER * len(name.split("`")[1]) + MARGIN for name in shown}


def parameters(gathered: Gathered) -> dict[str, str]:
    """Return what a recipe uses as flat MLflow parameters: `train.lr`, `model.hidden` ..., and where it was trained."""
    train, gate = gathered.one("train"), gathered.one("gate")
    sections = {}
    if train:
        sections = {key: train.inputs[key] for key in ("model", "train")} | {"data": _data(gathered, train)}
    if gate:
        sections["gate"] = gate.inputs["gate"]
    flat = {f"{section}.{key}": value if isinstance(value, str) else json.dumps(value)
            for section, values in sections.items() for key, value in values.items()}  # fmt: skip
    flat = {name: value for name, value in flat.items() if value not in OFF}
    if not train:
        return flat
    return flat | {
        "device": str(train.inputs["device"]),
        "processes": str(train.inputs["processes"]),
        "precision": train.facts["precision"],
        "data.charset_digest": digest(train.inputs["symbols"]),  # a charset file may change under its name
        "train.start_digest": train.inputs["start"] or "none",  # and so may the weights that training starts from
    }


def _data(gathered: Gathered, train: Manifest) -> dict[str, Any]:
    """Return the recipe's data section as it took effect: what training read, its sets, and how those were packed."""
    sets = used_sets(gathered)
    packed = gathered.datasets[sets["train"][0]].inputs
    told = packed.get("labels")  # of a set that is drawn while training nothing is packed, so no label is changed
    labels = {"label_policy": told["policy"], "max_label": told["longest"]} if told else {}
    return {**train.inputs["data"], **packed["picture"], **sets, "limit": packed["limit"], **labels}


def used_sets(gathered: Gathered) -> dict[str, list[str]]:
    """Return the names of the data sets that training learnt from and validated on; none before it was done."""
    packed_sets, train = gathered.one("shard"), gathered.one("train")
    names = {index: name for name, index in packed_sets.facts["indices"].items()} if packed_sets else {}
    return {
        kind: [names[index] for index in train.inputs[f"{kind}_sets"]] if train else [] for kind in ("train", "val")
    }


def tags(summary: dict[str, Any]) -> dict[str, str]:
    """Return the few short tags by which runs are found and told apart, and what of this one went wrong."""
    left = [facts for facts in summary["formats"] if not facts["made"]]
    told = {  # why and how stand in summary.json and the run's description
        "wordmill.run_tag": summary["run_tag"],  # an injected MLflow run has none yet
        COMMIT: summary["git_commit"],
        "wordmill.recipe": summary["recipe"],
        "wordmill.protocol": ", ".join(sorted({row["protocol"] for row in summary["benchmarks"]})),
        "wordmill.gate": summary["gate"]["outcome"] if summary["gate"] else "",
        "wordmill.failed": ", ".join(dict.fromkeys(re.split("[:;]", error)[0] for error in summary["errors"])),
        "wordmill.reused": ", ".join(summary["reused"]),
        "wordmill.not_made": ", ".join(facts["format"] for facts in left),
    }
    return {name: value[:TAG_CHARACTERS] for name, value in told.items() if value}
