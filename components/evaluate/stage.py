"""Measures the trained recogniser on one benchmark."""

import json
from dataclasses import asdict
from pathlib import Path

from components.recognition import checkpoint, frameworks
from components.recognition.artifacts import Manifest, read_manifest, write_atomically
from components.recognition.charset import load_charset
from components.recognition.evaluation import picture_document, read_all
from components.recognition.metrics import score, wilson_interval
from components.recognition.recipe import nearest
from components.recognition.shards import open_dataset
from components.recognition.stages import Made, find_or_make, run_stage
from components.recognition.storage import Store


def run(*, benchmark: str, model: str, shards: str, device: str, run_tag: str, output: str) -> str:
    """Measure a recogniser on one benchmark: word accuracy with its 95 % interval, 1-NED and every prediction.

    benchmark: name of the data set; model: file with the manifest of train; shards: file with the manifest of
    shard; device: cpu, cuda or npu; output: file for this stage's manifest.
    """

    def work(store: Store) -> tuple[Manifest, bool]:
        frameworks.check_device(device)
        trained, combined = read_manifest(model), read_manifest(shards)
        datasets = combined.facts["datasets"]
        if benchmark not in datasets:
            raise ValueError(f"benchmark '{benchmark}' is not among the shards: {nearest(benchmark, list(datasets))}")
        inputs = {"model": trained.reference, "dataset": datasets[benchmark]}

        def make(folder: Path) -> Made:
            return measure(store, benchmark, trained, combined, device, folder)

        return find_or_make(
            store, "evaluate", benchmark, inputs, make, (frameworks.PACKAGES[trained.facts["framework"]],)
        )

    return run_stage("evaluate", benchmark, run_tag, output, work)


def measure(store: Store, benchmark: str, trained: Manifest, combined: Manifest, device: str, folder: Path) -> Made:
    """Read the benchmark with the recogniser in its own framework and write predictions and worst mistakes."""
    saved = checkpoint.load(store.fetch(trained.object("model.safetensors")))
    charset = load_charset(saved.data.charset)
    shards = open_dataset(store, combined, benchmark)
    predictor = frameworks.twin(saved.train.framework, "predict").Predictor(saved, device)
    predictions, worst = read_all(predictor, shards, charset, f"evaluate {benchmark}")

    files = {"predictions.jsonl": folder / "predictions.jsonl", "mistakes.json": folder / "mistakes.json"}
    lines = (json.dumps(asdict(item), ensure_ascii=False) for item in predictions)
    write_atomically(files["predictions.jsonl"], "".join(f"{line}\n" for line in lines))
    pictures = [picture_document(mistake) for mistake in worst]
    write_atomically(files["mistakes.json"], json.dumps(pictures, ensure_ascii=False))

    result = score([item.prediction for item in predictions], [item.truth for item in predictions], charset)
    low, high = wilson_interval(result.correct, result.total)
    facts = {**asdict(result), "accuracy": result.accuracy, "low": low, "high": high,
             "dataset": combined.facts["datasets"][benchmark], "model": trained.reference}  # fmt: skip
    metrics = {f"{benchmark}/accuracy": result.accuracy, f"{benchmark}/1-NED": result.ned}
    return Made(files=files, facts=facts, metrics=metrics)
