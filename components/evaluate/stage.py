"""Measures the trained recogniser on one benchmark."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from components.recognition import checkpoint, frameworks, metrics
from components.recognition.artifacts import Manifest, find_manifest, read_manifest, write_atomically
from components.recognition.charset import charset_of
from components.recognition.checkpoint import Checkpoint
from components.recognition.evaluation import Outcome, picture_document, read_all
from components.recognition.recipe import Evaluation, from_json, nearest
from components.recognition.shards import open_dataset
from components.recognition.stages import Made, find_or_make, run_stage
from components.recognition.storage import Store


def run(*, benchmark: str, evaluation: str, model: str, shards: str, device: str, run_tag: str, output: str) -> str:
    """Measure a recogniser on one benchmark: word accuracy with its 95 % interval, 1-NED and every prediction.

    benchmark: name of the data set; evaluation: JSON of the recipe's evaluation section; model: file with the
    manifest of train; shards: file with the manifest of shard; device: cpu, cuda or npu; output: file for this
    stage's manifest.
    """

    def work(store: Store) -> tuple[Manifest, bool]:
        frameworks.check_device(device)
        rules = from_json(Evaluation, evaluation)
        trained, combined = read_manifest(model), read_manifest(shards)
        datasets = combined.facts["datasets"]
        if benchmark not in datasets:
            raise ValueError(f"benchmark '{benchmark}' is not among the shards: {nearest(benchmark, list(datasets))}")
        inputs = {"model": trained.reference, "dataset": datasets[benchmark], "evaluation": asdict(rules)}

        def make(folder: Path) -> Made:
            _check_whole(store, benchmark, datasets[benchmark])
            return measure(store, benchmark, rules, trained, combined, device, folder)

        return find_or_make(
            store, "evaluate", benchmark, inputs, make, (frameworks.PACKAGES[trained.facts["framework"]],)
        )

    return run_stage("evaluate", benchmark, run_tag, output, work)


def _check_whole(store: Store, benchmark: str, reference: str) -> None:
    """Refuse a benchmark that has other samples than the catalogue says: its accuracy would be another figure."""
    packed = find_manifest(store, reference)
    if packed is None:
        raise RuntimeError(f"{reference} ({benchmark}) is not whole in the store any more: run the shard stage again")
    found, expected = packed.facts["samples"], packed.inputs["reading"]["samples"]
    if found != expected:
        lost = "".join(f": {item['where']}: {item['reason']}" for item in packed.facts["quarantine"][:1])
        raise ValueError(f"benchmark '{benchmark}' ({reference}): expected the catalogue's {expected} samples, found "
                         f"{found}, with {packed.facts['quarantined']} put aside by the shard stage{lost}")  # fmt: skip


def measure(
    store: Store,
    benchmark: str,
    rules: Evaluation,
    trained: Manifest,
    combined: Manifest,
    device: str,
    folder: Path,
) -> Made:
    """Read the benchmark with the recogniser in its own framework and write predictions and worst mistakes."""
    saved = checkpoint.load(store.fetch(trained.object("model.safetensors")))
    _check_charset(saved, trained)
    shards = open_dataset(store, combined, benchmark)
    predictor = frameworks.twin(saved.train.framework, "predict").Predictor(saved, device, rules.amp)
    outcome = read_all(predictor, shards, rules, f"evaluate {benchmark}")

    files = {"predictions.jsonl": folder / "predictions.jsonl", "mistakes.json": folder / "mistakes.json"}
    lines = (json.dumps(asdict(item), ensure_ascii=False) for item in outcome.predictions)
    write_atomically(files["predictions.jsonl"], "".join(f"{line}\n" for line in lines))
    pictures = [picture_document(mistake) for mistake in outcome.worst]
    write_atomically(files["mistakes.json"], json.dumps(pictures, ensure_ascii=False))

    facts = {**facts_of(outcome, rules), "precision": predictor.precision,
             "dataset": combined.facts["datasets"][benchmark], "model": trained.reference}  # fmt: skip
    measured = {"accuracy": facts["accuracy"], "1-NED": facts["ned"], "ECE": facts["calibration"]["ece"],
                "character_precision": facts["character_precision"]}  # fmt: skip
    return Made(files=files, facts=facts, metrics={f"{benchmark}/{name}": value for name, value in measured.items()})


def _check_charset(saved: Checkpoint, trained: Manifest) -> None:
    """Refuse to read with other characters than the recogniser has learnt: a charset file may change."""
    learnt, found = trained.inputs["symbols"], charset_of(saved.data).symbols
    if found != learnt:
        raise ValueError(f"charset {saved.data.charset}: {trained.reference} learnt {len(learnt)} characters, "
                         f"found {len(found)}, not the same in the same order: train again, or restore it")  # fmt: skip


def facts_of(outcome: Outcome, rules: Evaluation) -> dict[str, Any]:
    """Return the numbers of a measured benchmark."""
    result = metrics.score(outcome.pairs)
    low, high = metrics.wilson_interval(result.correct, result.total)
    counted = [(item.confidence, item.correct) for item in outcome.predictions if item.correct is not None]
    return {
        **asdict(result),
        "accuracy": result.accuracy,
        "low": low,
        "high": high,
        "protocol": rules.protocol,
        "left_out": dict(outcome.left_out),
        "changed": dict(outcome.changed),
        "by_length": [asdict(row) for row in metrics.by_length(outcome.pairs)],
        "confusion": [asdict(row) for row in metrics.confusion(outcome.pairs)],
        "calibration": asdict(metrics.calibration(counted)),
    }
