"""Decides whether the trained recogniser becomes the champion, and registers it."""

import dataclasses
import json
import time
from typing import Any

from components.gate.compare import Decision, Paired, against_champion, against_floor
from components.recognition import tracking
from components.recognition.artifacts import (
    Manifest,
    digest,
    find_manifest,
    git_commit,
    read_manifest,
    to_document,
)
from components.recognition.metrics import plain_mean
from components.recognition.recipe import Gate, from_json
from components.recognition.stages import run_stage
from components.recognition.storage import Store, object_key


def run(*, gate: str, recipe: str, model: str, evaluations: str, parities: str, run_tag: str, output: str) -> str:
    """Compare the candidate with the champion and move the registry's alias if it is good enough.

    gate: JSON of the recipe's gate section; recipe: name of the recipe; model: file with the manifest of train;
    evaluations, parities: JSON lists of manifest references of evaluate and smoke; output: file for the manifest.
    """

    def work(store: Store) -> tuple[Manifest, bool]:
        section, trained = from_json(Gate, gate), read_manifest(model)
        measured = [_manifest(store, reference) for reference in json.loads(evaluations)]
        proven = [_manifest(store, reference) for reference in json.loads(parities)]
        return decide(store, section, recipe, trained, measured, proven, run_tag), False

    return run_stage("gate", recipe, run_tag, output, work)


def decide(
    store: Store,
    gate: Gate,
    recipe: str,
    trained: Manifest,
    measured: list[Manifest],
    proven: list[Manifest],
    run_tag: str,
) -> Manifest:
    """Judge, register and perhaps promote the candidate; the manifest's facts say what was done and why.

    The decision depends on who is champion now, so finished work is never looked up.
    """
    started = time.monotonic()
    _check(trained, measured)
    name = f"wordmill-{recipe}"
    champion = tracking.champion(name)
    is_champion = champion is not None and champion.tags.get("wordmill.model") == trained.reference
    decision = _judge(store, gate, trained, measured, proven, champion)
    version = _register(store, name, recipe, trained, measured, run_tag)
    if decision.promoted and not is_champion:
        tracking.promote(name, version)
    outcome = "kept" if is_champion else "promoted" if decision.promoted else "refused"
    for reason in decision.reasons:
        print(f"gate {recipe}: version {version} {outcome}: {reason}", flush=True)
    accuracies = [manifest.facts["accuracy"] for manifest in measured]
    facts = {"version": version, "outcome": outcome, "mean": plain_mean(accuracies), **dataclasses.asdict(decision)}
    inputs = {
        "gate": dataclasses.asdict(gate),
        "recipe": recipe,
        "model": trained.reference,
        "evaluations": [manifest.reference for manifest in measured],
        "parities": [manifest.reference for manifest in proven],
        "champion": champion and champion.version,
    }
    return _store(store, recipe, run_tag, inputs, facts, time.monotonic() - started)


def _check(trained: Manifest, measured: list[Manifest]) -> None:
    if not measured:
        raise ValueError("evaluations: the list is empty, the gate needs at least one benchmark")
    for manifest in measured:
        if manifest.facts["model"] != trained.reference:
            found = manifest.facts["model"]
            raise ValueError(f"{manifest.reference} ({manifest.name}) measured {found}, expected {trained.reference}")


def _judge(
    store: Store,
    gate: Gate,
    trained: Manifest,
    measured: list[Manifest],
    proven: list[Manifest],
    champion: tracking.Version | None,
) -> Decision:
    if champion is None:
        decision = against_floor({manifest.name: manifest.facts["accuracy"] for manifest in measured}, gate)
    elif champion.tags.get("wordmill.model") == trained.reference:
        reason = f"the same model is the champion already, as version {champion.version}"
        rows = [{"name": manifest.name, "accuracy": manifest.facts["accuracy"]} for manifest in measured]
        decision = Decision(promoted=True, reasons=[reason], champion_mean=None, benchmarks=rows)
    else:
        pairs, left_out = _pairs(store, measured, champion)
        decision = against_champion(pairs, left_out, gate)
    unlike = [manifest.name for manifest in proven if not manifest.facts["ok"]]
    if not unlike:
        return decision
    reason = f"exported files that do not behave like the trained model: {', '.join(unlike)}"
    return dataclasses.replace(decision, promoted=False, reasons=[*decision.reasons, reason])


def _pairs(store: Store, measured: list[Manifest], champion: tracking.Version) -> tuple[list[Paired], list[str]]:
    """Return the benchmarks that both were measured on with the same data set, and the names of the others."""
    references = json.loads(champion.tags.get("wordmill.evaluations", "[]"))
    stored = [find_manifest(store, reference) for reference in references]
    theirs = {manifest.facts["dataset"]: manifest for manifest in stored if manifest}
    pairs, left_out = [], []
    for ours in measured:
        other = theirs.get(ours.facts["dataset"])
        if other is None:
            left_out.append(ours.name)
        else:
            pairs.append(Paired(name=ours.name, candidate=_outcomes(store, ours), champion=_outcomes(store, other)))
    return pairs, left_out


def _outcomes(store: Store, evaluation: Manifest) -> list[bool]:
    """Return for every sample, in order, whether it was read right."""
    path = store.fetch(evaluation.object("predictions.jsonl"))
    with path.open(encoding="utf-8") as file:
        return [bool(json.loads(line)["correct"]) for line in file]


def _register(store: Store, name: str, recipe: str, trained: Manifest, measured: list[Manifest], run_tag: str) -> str:
    weights = trained.object("model.safetensors")
    known = tracking.registered(name, trained.reference)
    before = json.loads(known.tags.get("wordmill.evaluations", "[]")) if known else []
    # What this model was measured on before stays with it: the next candidate may be compared on that.
    evaluations = list(dict.fromkeys([*before, *(manifest.reference for manifest in measured)]))
    return tracking.register(
        name,
        model=trained.reference,
        source=f"s3://{store.bucket}/{object_key(weights)}",
        run_id=tracking.run(store, run_tag, recipe).run_id,
        tags={"wordmill.evaluations": json.dumps(evaluations)},
        description=f"{recipe} trained in run {run_tag}: {trained.reference}",
    )


def _store(
    store: Store, recipe: str, run_tag: str, inputs: dict[str, Any], facts: dict[str, Any], seconds: float
) -> Manifest:
    manifest = Manifest(
        stage="gate",
        name=recipe,
        key=digest({"stage": "gate", "name": recipe, "run_tag": run_tag, **inputs}),
        inputs=inputs,
        git_commit=git_commit(),
        facts=facts,
        seconds=round(seconds, 3),
    )
    store.put_json(f"manifests/{manifest.reference}.json", to_document(manifest))
    return manifest


def _manifest(store: Store, reference: str) -> Manifest:
    found = find_manifest(store, reference)
    if found is None:
        raise RuntimeError(f"manifests/{reference}.json or an object of it is missing in bucket '{store.bucket}'")
    return found
