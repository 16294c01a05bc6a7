"""Measures the trained recogniser on one benchmark."""

import json
from dataclasses import asdict
from pathlib import Path

from components import keys
from wordmill.inference.evaluation import facts_of, picture_document, read_all
from wordmill.inference.trained import load_trained
from wordmill.recipe import frameworks
from wordmill.recipe.parsing import from_json, nearest
from wordmill.recipe.sections import Evaluation
from wordmill.shards.sets import open_dataset
from wordmill.store.artifacts import Manifest, read_manifest, whole_manifest
from wordmill.store.files import write_atomically
from wordmill.store.stages import StageResult, find_or_make, run_stage
from wordmill.store.storage import Store


def run(*, benchmark: str, evaluation: str, model: str, shards: str, device: str, run_tag: str, output: str) -> str:
    """Measure a recogniser on one benchmark: word accuracy with its 95 % interval, 1-NED and every prediction.

    benchmark: name of the data set; evaluation: JSON of the recipe's evaluation section; model: file with the
    manifest of train; shards: file with the manifest of shard; device: cpu, cuda or npu; output: file for this
    stage's manifest.
    """

    def work(store: Store) -> tuple[Manifest, bool]:
        rules = from_json(Evaluation, evaluation)
        return find_or_measure(store, benchmark, rules, read_manifest(model), read_manifest(shards), device)

    return run_stage("evaluate", benchmark, run_tag, output, work)


def find_or_measure(
    store: Store, benchmark: str, rules: Evaluation, trained: Manifest, combined: Manifest, device: str
) -> tuple[Manifest, bool]:
    """Return the measurement of a recogniser on a benchmark among the shards, and whether it was there."""
    frameworks.check_device(device)
    packed, contents = packed_set(combined, benchmark), combined.facts["contents"]
    inputs = {"model": trained.reference, "content": contents[benchmark], "evaluation": asdict(rules), "device": device}

    def make(folder: Path) -> StageResult:
        _check_whole(store, benchmark, packed)
        return measure(store, benchmark, rules, trained, combined, device, folder)

    ingredients = keys.of_evaluate(trained.facts["framework"], device, rules.protocol)
    return find_or_make(store, "evaluate", benchmark, inputs, make, ingredients)


def packed_set(combined: Manifest, benchmark: str) -> str:
    """Return the reference of a benchmark's shards; ValueError where the shard stage has none of that name."""
    datasets: dict[str, str] = combined.facts["datasets"]
    if benchmark not in datasets:
        raise ValueError(f"benchmark '{benchmark}' is not among the shards: {nearest(benchmark, list(datasets))}")
    return datasets[benchmark]


def _check_whole(store: Store, benchmark: str, reference: str) -> None:
    """Refuse a benchmark that has other samples than the catalogue says: its accuracy would be another figure."""
    packed = whole_manifest(store, reference, benchmark)
    found, expected = packed.facts["samples"], packed.inputs["reading"]["samples"]
    if found != expected:
        lost = "".join(f": {item['where']}: {item['reason']}" for item in packed.facts["quarantine"][:1])
        raise ValueError(f"benchmark '{benchmark}' ({reference}): expected the catalogue's {expected} samples, found "
                         f"{found}, with {packed.facts['quarantined']} put aside by the shard stage{lost}")  # fmt: skip


def measure(
    store: Store, benchmark: str, rules: Evaluation, trained: Manifest, combined: Manifest, device: str, folder: Path
) -> StageResult:
    """Read the benchmark with the recogniser in its own framework and write predictions and worst mistakes."""
    saved = load_trained(store, trained)
    shards = open_dataset(store, combined, benchmark)
    predictor = frameworks.twin(saved.train.framework, "models.predict").Predictor(saved, device, rules.amp)
    outcome = read_all(predictor, shards, rules, f"evaluate {benchmark}")

    files = {"predictions.jsonl": folder / "predictions.jsonl", "mistakes.json": folder / "mistakes.json"}
    outcome.write(files["predictions.jsonl"])
    pictures = [picture_document(mistake) for mistake in outcome.worst]
    write_atomically(files["mistakes.json"], json.dumps(pictures, ensure_ascii=False))

    facts = {**facts_of(outcome, rules.protocol, predictor.codec.temperature), "precision": predictor.precision,
             "dataset": combined.facts["datasets"][benchmark], "content": combined.facts["contents"][benchmark],
             "model": trained.reference}  # fmt: skip
    measured = {"accuracy": facts["accuracy"], "1-NED": facts["ned"], "ECE": facts["calibration"]["ece"],
                "character_precision": facts["character_precision"]}  # fmt: skip
    metrics = {f"{benchmark}/{name}": value for name, value in measured.items()}
    return StageResult(files=files, facts=facts, metrics=metrics)
