"""The smoke stage: runs an exported file in its own runtime and compares it with the trained recogniser."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from components import keys
from components.smoke.job import ProbeJob
from components.smoke.launch import Outputs, run_probe
from components.smoke.parity import TOLERANCES, Agreement, agreement, logit_tolerance
from wordmill.inference.card import CARD, REFERENCE, codec_of_card
from wordmill.recipe.parsing import from_json
from wordmill.recipe.sections import Data, Export, Model
from wordmill.store.artifacts import Manifest, read_manifest
from wordmill.store.keys import machine
from wordmill.store.stages import StageResult, find_or_make, run_stage
from wordmill.store.storage import Object, Store
from wordmill.text.decoding import codec_of

MEASURE_S = 1.0  # for each speed: some hundred calls of a small network at batch 1
MEASURED = ("latency_ms_batch1", "latency_p99_ms_batch1", "images_per_s_batch16", "images_per_s_batch64",
            "memory_bytes", "file_bytes", "texts_equal", "max_logit_difference")  # fmt: skip


def run(*, export: str, exported: str, model: str, run_tag: str, output: str) -> str:
    """Prove that an exported file reads the reference images as the trained recogniser does.

    export: JSON of the recipe's export section. exported: file with the manifest of export. model: file with the
    manifest of train. output: file for this stage's manifest. What export could not make is passed on as not made.
    """
    made = read_manifest(exported)

    def work(store: Store) -> tuple[Manifest, bool]:
        settings, trained = from_json(Export, export), read_manifest(model)
        if made.inputs["model"] != trained.reference:
            raise ValueError(f"{made.reference} was made from {made.inputs['model']}, expected {trained.reference}")
        inputs = {"exported": made.reference, "model": trained.reference, "tolerance": settings.logit_tolerance,
                  "machine": machine()}  # fmt: skip

        def make(folder: Path) -> StageResult:
            return prove(store, made, trained, settings, folder)

        return find_or_make(store, "smoke", made.name, inputs, make, keys.of_smoke(made.name))

    return run_stage("smoke", made.name, run_tag, output, work)


def prove(store: Store, made: Manifest, trained: Manifest, settings: Export, folder: Path) -> StageResult:
    """Run the files on the reference images and compare; RuntimeError where one does not agree."""
    if not made.facts["made"]:
        return StageResult(files={}, facts={"format": made.name, "made": False, "reason": made.facts["reason"]})
    reference = store.fetch(trained.object(REFERENCE))
    card = json.loads(store.fetch(made.object(CARD)).read_text(encoding="utf-8"))
    entries = [made.object(name) for name in made.facts["files"].values()]
    check_card(card["files"][made.name], made.name, entries)
    parts = [part["file"] for part in card.get("beam", {}).values()]
    pair = [made.object(part["name"]) for part in parts]
    check_card(parts, made.name, pair)
    for entry in pair:
        link_as(store.fetch(entry), folder / entry.name)
    files = [link_as(store.fetch(entry), folder / entry.name) for entry in entries]
    job = ProbeJob(format=made.name, files=files, card=card, reference=str(reference), measure_s=MEASURE_S)
    found, outputs = run_probe(job, folder)
    facts = compare_outputs(made, outputs, card, reference, settings.logit_tolerance)
    if pair:
        facts["pair_texts_equal"] = compare_pair(found.pop("pair_texts"), card, reference)
    facts |= found | {"file_bytes": sum(entry.bytes for entry in entries)}
    return StageResult(files={}, facts=facts, metrics={f"{made.name}/{name}": float(facts[name]) for name in MEASURED})


def check_card(files: list[dict[str, Any]], export_format: str, entries: list[Object]) -> None:
    """Refuse a card that was not made for these files but for others."""
    told = {file["name"]: file["sha256"] for file in files}
    found = {entry.name: entry.sha256 for entry in entries}
    if told != found:
        raise RuntimeError(f"format {export_format}: {CARD} is of other files: found {found}, it tells of {told}")


def compare_outputs(
    made: Manifest, outputs: Outputs, card: dict[str, Any], reference: Path, recipe_tolerance: float
) -> dict[str, Any]:
    """Compare what files gave in each size of batch with the trained recogniser's logits; return the worst of each."""
    with np.load(reference, allow_pickle=False) as arrays:
        expected = arrays["logits"]
    model, data = from_json(Model, made.facts["model"]), from_json(Data, made.facts["data"])
    codec = codec_of(model, data, made.facts.get("temperature", 1.0))
    precision = made.facts["precision"]
    share, tolerance = TOLERANCES[precision].texts, logit_tolerance(precision, recipe_tolerance, expected)
    found = []
    for size, arrays in outputs.items():
        where = f"format {made.name}, batch {size}"
        found.append(agreement(arrays, card, expected, codec, where))
        if not found[-1].within(share, tolerance):
            raise RuntimeError(_disagreement(where, found[-1], precision, share, tolerance))
    return {
        "format": made.name, "made": True, "precision": precision, "batches": list(outputs),
        "samples": len(expected), "texts_equal": min(one.texts_equal for one in found),
        "texts_needed": math.ceil(share * len(expected)),
        "max_logit_difference": max(one.max_logit_difference for one in found),
        "max_confidence_difference": max(one.max_confidence_difference for one in found), "tolerance": tolerance,
    }  # fmt: skip


def compare_pair(texts: list[str], card: dict[str, Any], reference: Path) -> int:
    """Return how many texts of the encoder and the decoder are the trained recogniser's; RuntimeError if not all."""
    with np.load(reference, allow_pickle=False) as arrays:
        expected = codec_of_card(card).decode(arrays["logits"])[0]
    equal = sum(one == other for one, other in zip(texts, expected, strict=True))
    if equal < len(expected):
        names = " and ".join(part["file"]["name"] for part in card["beam"].values())
        raise RuntimeError(f"format onnx: {names} do not agree with the trained recogniser: {equal} of {len(expected)} "
                           "texts are equal, all must be")  # fmt: skip
    return equal


def _disagreement(where: str, found: Agreement, precision: str, share: float, tolerance: float) -> str:
    source = "export.logit_tolerance is" if precision == "fp32" else f"to {precision} are allowed"
    return (f"{where} does not agree with the trained recogniser: {found.texts_equal} of {found.samples} texts are "
            f"equal, {math.ceil(share * found.samples)} must be; the largest difference of logits is "
            f"{found.max_logit_difference:.2e}, of confidences {found.max_confidence_difference:.2e}, {source} "
            f"{tolerance:.2e}")  # fmt: skip


def link_as(file: Path, path: Path) -> str:
    """Give a cached object the name that its runtime asks for."""
    path.symlink_to(file.resolve())
    return str(path)
