"""The smoke stage: runs an exported file in its own runtime and compares it with the trained recogniser."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from components.recognition import frameworks
from components.recognition.artifacts import SOURCE, Manifest, read_manifest, write_atomically
from components.recognition.decoding import Codec, Logits, codec_of
from components.recognition.recipe import Data, Export, Model, from_json
from components.recognition.stages import Made, find_or_make, run_stage
from components.recognition.storage import Store

PROBE_LIMIT_S = 600
LAST_LINES = 5  # of the probe's output in an error
FRAMEWORKS = {"onnx": "pytorch", "mindir": "mindspore"}  # whose environment the format's runtime gets


def run(*, export: str, exported: str, model: str, run_tag: str, output: str) -> str:
    """Prove that an exported file reads the reference images as the trained recogniser does.

    export: JSON of the recipe's export section. exported: file with the manifest of export. model: file with the
    manifest of train. output: file for this stage's manifest. Texts must be equal, logits within the tolerance.
    """
    made = read_manifest(exported)

    def work(store: Store) -> tuple[Manifest, bool]:
        settings, trained = from_json(Export, export), read_manifest(model)
        if made.inputs["model"] != trained.reference:
            raise ValueError(f"{made.reference} was made from {made.inputs['model']}, expected {trained.reference}")
        if made.name not in FRAMEWORKS:
            raise RuntimeError(f"format {made.name} runs on its own chip alone, runtimes here are for "
                               f"{', '.join(FRAMEWORKS)}: take it out of the recipe's export.formats")  # fmt: skip
        inputs = {"exported": made.reference, "model": trained.reference, "tolerance": settings.logit_tolerance}

        def make(folder: Path) -> Made:
            return compare(store, made, trained, settings.logit_tolerance, folder)

        return find_or_make(store, "smoke", made.name, inputs, make, (frameworks.PACKAGES[FRAMEWORKS[made.name]],))

    return run_stage("smoke", made.name, run_tag, output, work)


def compare(store: Store, made: Manifest, trained: Manifest, tolerance: float, folder: Path) -> Made:
    """Run the file on the reference images and compare; RuntimeError where it does not agree."""
    entry = made.object(f"model.{made.name}")
    reference = store.fetch(trained.object("reference.npz"))
    data, model = from_json(Data, made.facts["data"]), from_json(Model, made.facts["model"])
    found, logits = run_probe(made.name, store.fetch(entry), reference, data.middle, folder)
    with np.load(reference, allow_pickle=False) as arrays:
        expected = arrays["logits"]
    equal, difference = agreement(logits, expected, codec_of(model, data), f"format {made.name}")
    ok = equal == len(expected) and difference <= tolerance
    if not ok:
        raise RuntimeError(f"format {made.name} does not agree with the trained recogniser: {equal} of {len(expected)} "
                           f"texts are equal, the largest logit difference is {difference:.2e}, "
                           f"export.logit_tolerance is {tolerance:.2e}")  # fmt: skip
    facts = {"format": made.name, "samples": len(expected), "texts_equal": equal, "max_logit_difference": difference,
             "tolerance": tolerance, "ok": ok, "file_bytes": entry.bytes, **found}  # fmt: skip
    metrics = {f"{made.name}/{name}": float(facts[name]) for name in ("latency_ms_batch1", "images_per_s_batch64")}
    return Made(files={}, facts=facts, metrics=metrics)


def agreement(logits: Logits, expected: Logits, codec: Codec, where: str) -> tuple[int, float]:
    """Return how many texts are equal and the largest difference of logits (N, T, C); RuntimeError for no logits."""
    if logits.shape[-1] != codec.classes:
        raise RuntimeError(f"{where}: logits have {logits.shape[-1]} classes, "
                           f"charset {codec.charset.name} needs {codec.classes}")  # fmt: skip
    if logits.shape != expected.shape:
        raise RuntimeError(f"{where}: logits have shape {logits.shape}, the trained recogniser's {expected.shape}")
    if not np.isfinite(logits).all():
        raise RuntimeError(f"{where}: {np.count_nonzero(~np.isfinite(logits))} of {logits.size} logits are not finite")
    texts, truth = codec.decode(logits)[0], codec.decode(expected)[0]
    equal = sum(one == other for one, other in zip(texts, truth, strict=True))
    return equal, float(np.abs(logits - expected).max())


def run_probe(
    export_format: str, file: Path, reference: Path, middle: float, folder: Path
) -> tuple[dict[str, Any], Logits]:
    """Run the file in a process of its own; return what was measured, and the logits of the reference images."""
    job, answer, logits = folder / "job.json", folder / "answer.json", folder / "logits.npy"
    told = {"format": export_format, "file": str(named(file, folder / f"model.{export_format}")),
            "reference": str(reference), "middle": middle}  # fmt: skip
    write_atomically(job, json.dumps(told))
    search = frameworks.prepended("PYTHONPATH", SOURCE.parent)
    variables = frameworks.environment(FRAMEWORKS[export_format], "cpu") | {"PYTHONPATH": search}
    command = [sys.executable, "-m", "components.smoke.probe", str(job), str(answer), str(logits)]
    try:
        done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, errors="replace",
                              timeout=PROBE_LIMIT_S, check=False)  # fmt: skip
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"format {export_format}: its runtime did not finish within {PROBE_LIMIT_S} s") from None
    if not answer.exists():
        said = "\n".join(done.stderr.splitlines()[-LAST_LINES:])
        raise RuntimeError(f"format {export_format}: its runtime ended with code {done.returncode}: {said}")
    found = json.loads(answer.read_text(encoding="utf-8"))
    if "error" in found:
        raise RuntimeError(f"format {export_format}: the file does not run: {found['error']}")
    return found, np.load(logits, allow_pickle=False)


def named(file: Path, path: Path) -> Path:
    """Give a cached object the name that its runtime asks for."""
    path.symlink_to(file.resolve())
    return path
