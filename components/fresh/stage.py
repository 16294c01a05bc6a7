"""The freshness check of nightly retraining: is there anything that the last finished night did not train with?"""

import json
import time
from threading import Event
from typing import Any

from components import keys
from wordmill.recipe.catalogue import Entry, from_text
from wordmill.recipe.parsing import from_json
from wordmill.recipe.sections import Data, Evaluation, Export, Train
from wordmill.sources.locating import check_sources, locate
from wordmill.store.artifacts import ROOT, Manifest, digest, read_manifest, record_manifest
from wordmill.store.runs import begin_run, finished_night
from wordmill.store.stages import run_stage
from wordmill.store.storage import Store, hash_file


def run(
    *, recipe: str, sources: str, data: str, model: str, train: str, evaluation: str, gate: str, export: str,
    run_tag: str, output: str,
) -> str:  # fmt: skip
    """Tell whether data, code or recipe differ from those of the last night that finished: changed or unchanged.

    recipe: its name. sources: JSON of catalogue entries by data set name. data, model, train, evaluation, gate, export:
    the recipe's sections as JSON. output: file for this stage's manifest. Nothing is moved and nothing is found by
    digest: it looks every time.
    """
    sections = {"data": data, "model": model, "train": train, "evaluation": evaluation, "gate": gate, "export": export}

    def work(store: Store) -> tuple[Manifest, bool]:
        begin_run(store, run_tag)
        return check(store, recipe, from_text(sources), sections, run_tag), False

    run_stage("fresh", recipe, run_tag, output, work)
    return "changed" if read_manifest(output).facts["changed"] else "unchanged"


def check(store: Store, recipe: str, entries: dict[str, Entry], sections: dict[str, str], run_tag: str) -> Manifest:
    """Compare what tonight would train with, part by part, with what the last finished night did."""
    started = time.monotonic()
    parts = digests_of(store, entries, sections)
    last = finished_night(store, recipe)
    reasons = changes(last["parts"], parts) if last else ["no night has finished yet"]
    for reason in reasons or [f"nothing new since run {last['run_tag'] if last else ''}"]:
        print(f"fresh {recipe}: {reason}", flush=True)
    facts = {"changed": bool(reasons), "reasons": reasons, "parts": parts, "since": last and last["run_tag"]}
    key = digest({"stage": "fresh", "name": recipe, "run_tag": run_tag})
    return record_manifest(store, stage="fresh", name=recipe, key=key, inputs={"run_tag": run_tag}, facts=facts,
                           seconds=time.monotonic() - started)  # fmt: skip


def digests_of(store: Store, entries: dict[str, Entry], sections: dict[str, str]) -> dict[str, str]:
    """Return digests of everything that a recogniser depends on: each data set's content, each section, the code."""
    parts = {}
    check_sources(entries)
    for name, entry in entries.items():
        parts[f"data set {name}"] = digest([locate(store, name, entry, Event()).identity, entry.inside])
    for name, section in sections.items():
        parts[f"section {name} of the recipe"] = digest(json.loads(section))
    parts |= {f"code of {stage}": code for stage, code in stage_codes(entries, sections).items()}
    # What is installed where this stage runs is not all that computes where others do.
    pins = ROOT / "requirements" / "constraints.txt"
    return parts | {"list of versions": hash_file(pins) if pins.is_file() else ""}


def stage_codes(entries: dict[str, Entry], sections: dict[str, str]) -> dict[str, str]:
    """Return digests of what the stages' work is made by."""
    data, train = from_json(Data, sections["data"]), from_json(Train, sections["train"])
    protocol, export = from_json(Evaluation, sections["evaluation"]).protocol, from_json(Export, sections["export"])
    formats = (*export.formats, *export.optional)
    return {
        "shard": digest([keys.of_shard(entry.reader).digest() for entry in entries.values()]),
        "train": keys.of_train(train, data, "cpu").digest(),
        "evaluate": keys.of_evaluate(train.framework, "cpu", protocol).digest(),
        "export": digest([keys.of_export(kind).digest() for kind in formats]),
        "smoke": digest([keys.of_smoke(kind).digest() for kind in formats]),
    }


def changes(before: dict[str, Any], now: dict[str, str]) -> list[str]:
    """Say what is new, gone or changed."""
    words = {(True, False): "is gone", (False, True): "is new", (True, True): "has changed"}
    names = dict.fromkeys((*now, *before))
    return [f"{name} {words[name in before, name in now]}" for name in names if before.get(name) != now.get(name)]
