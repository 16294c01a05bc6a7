"""Measures whom the candidate will be compared with, where the store lacks a measurement by this code."""

import json
import time
from dataclasses import asdict
from functools import cache
from typing import Any

from components.evaluate.confidences import find_or_read
from components.evaluate.stage import find_or_measure, packed_set
from wordmill.inference.trained import load_trained
from wordmill.pictures.image import PICTURE_KEYS
from wordmill.recipe.parsing import from_json
from wordmill.recipe.sections import Data, Evaluation
from wordmill.store import tracking
from wordmill.store.artifacts import Manifest, digest, read_manifest, record_manifest, stored_manifest, whole_manifest
from wordmill.store.stages import run_stage
from wordmill.store.storage import Store
from wordmill.store.tracking import Version

WHAT_TO_DO = "take the aliases champion and best away to begin anew"


def run_rivals(
    *, recipe: str, benchmarks: str, data: str, evaluation: str, shards: str, device: str, run_tag: str, output: str
) -> str:
    """Measure a recipe's champion and its best champion so far on the benchmarks of a run.

    And count how sure the champion is of the run's validation sets.

    What they were measured on already, the same samples by the same rules and code, is found; what cannot be measured
    is said with its reason, and is no failure. recipe: its name; benchmarks: JSON list of names; data, evaluation: JSON
    of the recipe's sections; shards: file with the manifest of shard; output: file for this stage's manifest.
    """

    def work(store: Store) -> tuple[Manifest, bool]:
        started, combined = time.monotonic(), read_manifest(shards)
        rules, names = from_json(Evaluation, evaluation), json.loads(benchmarks)
        holders = [tracking.holder(tracking.registered_name(recipe), alias) for alias in ("champion", "best")]
        versions = {version.version: version for version in holders if version}
        found = [_measured(store, version, names, rules, combined, device) for version in versions.values()]
        validation, known = from_json(Data, data).val, True
        for champion, _ in found[:1] if holders[0] else []:
            champion["confidences"], known = _sure(store, champion["model"], validation, combined, device)
        inputs = {"benchmarks": names, "validation": list(validation), "evaluation": asdict(rules),
                  "shards": combined.reference, "run_tag": run_tag, "versions": list(versions)}  # fmt: skip
        key = digest({"stage": "rivals", "name": recipe, **inputs})
        facts = {"rivals": [rival for rival, _ in found]}
        made = record_manifest(store, stage="rivals", name=recipe, key=key, inputs=inputs, facts=facts,
                               seconds=time.monotonic() - started)  # fmt: skip
        return made, known and all(there for _, there in found)

    return run_stage("rivals", recipe, run_tag, output, work)


def _measured(
    store: Store, version: Version, benchmarks: list[str], rules: Evaluation, combined: Manifest, device: str
) -> tuple[dict[str, Any], bool]:
    """Return a version's measurements by benchmark and why the others cannot be made, and whether all were there."""
    reference, evaluations, reasons = version.tags.get(tracking.MODEL), dict[str, str](), dict[str, str]()
    there = True

    @cache
    def trained_by() -> tuple[Manifest, Data]:
        if reference is None:
            raise ValueError(f"it has no tag wordmill.model, which names what trained it: {WHAT_TO_DO}")
        trained = whole_manifest(store, reference)
        return trained, load_trained(store, trained).data

    for name in benchmarks:
        try:
            trained, data = trained_by()
            check_fitting(store, trained.reference, data, combined, name)
            made, found = find_or_measure(store, name, rules, trained, combined, device)
        except (ValueError, RuntimeError, ImportError) as error:
            reasons[name] = str(error)
            print(f"rivals: version {version.version} cannot be measured on {name}: {error}", flush=True)
        else:
            evaluations[name], there = made.reference, there and found
    told = {"version": version.version, "model": reference, "evaluations": evaluations, "reasons": reasons}
    return told, there


def _sure(
    store: Store, reference: str | None, validation: tuple[str, ...], combined: Manifest, device: str
) -> tuple[dict[str, int] | None, bool]:
    """Return the champion's confidences on validation sets, None where they cannot be, and if they were there."""
    try:
        if reference is None:
            raise ValueError(f"it has no tag wordmill.model, which names what trained it: {WHAT_TO_DO}")
        trained = whole_manifest(store, reference)
        data = load_trained(store, trained).data
        for name in validation:
            check_fitting(store, reference, data, combined, name)
        return find_or_read(store, trained, validation, combined, device)
    except (ValueError, RuntimeError, ImportError) as error:
        print(f"rivals: the champion's confidence on {', '.join(validation)} is not known: {error}", flush=True)
        return None, True


def check_fitting(store: Store, trained: str, data: Data, combined: Manifest, benchmark: str) -> None:
    """Refuse a recogniser that reads pictures of another size or fitted otherwise than the benchmark's were."""
    packed = stored_manifest(store, packed_set(combined, benchmark)).inputs["picture"]
    unlike = [
        f"{key} {getattr(data, key)}, not {packed[key]}" for key in PICTURE_KEYS if getattr(data, key) != packed[key]
    ]
    if unlike:
        raise ValueError(f"{trained} reads pictures of {'; '.join(unlike)}: {WHAT_TO_DO}")
