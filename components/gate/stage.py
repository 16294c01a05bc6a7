"""Decides whether the trained recogniser becomes the champion, and registers it."""

import dataclasses
import json
import time
from dataclasses import dataclass

from components.gate.compare import Decision, against_champion, against_floor, below_floors, uncompared
from components.gate.pairing import pair_with
from wordmill.inference.package import Lineage, log_package
from wordmill.recipe.parsing import from_json
from wordmill.recipe.sections import Gate
from wordmill.store import tracking
from wordmill.store.artifacts import Manifest, digest, read_manifest, record_manifest, whole_manifest
from wordmill.store.stages import run_stage, work_folder
from wordmill.store.storage import Store
from wordmill.text.metrics import plain_mean


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A recogniser and the manifests of what trained, measured and proved it, in one run of its recipe's pipeline."""

    recipe: str
    trained: Manifest
    measured: list[Manifest]
    proven: list[Manifest]
    run_tag: str

    @property
    def accuracies(self) -> dict[str, float]:
        """Return the accuracy on each benchmark."""
        return {manifest.name: manifest.facts["accuracy"] for manifest in self.measured}


def run(*, gate: str, recipe: str, model: str, evaluations: str, parities: str, run_tag: str, output: str) -> str:
    """Compare the candidate with the champion and move the registry's alias if it is good enough.

    gate: JSON of the recipe's gate section; recipe: name of the recipe; model: file with the manifest of train;
    evaluations, parities: JSON lists of manifest references of evaluate and smoke; output: file for the manifest.
    """

    def work(store: Store) -> tuple[Manifest, bool]:
        section, trained = from_json(Gate, gate), read_manifest(model)
        measured = [whole_manifest(store, reference) for reference in json.loads(evaluations)]
        proven = [whole_manifest(store, reference) for reference in json.loads(parities)]
        candidate = Candidate(recipe=recipe, trained=trained, measured=measured, proven=proven, run_tag=run_tag)
        return decide(store, section, candidate), False

    return run_stage("gate", recipe, run_tag, output, work)


def decide(store: Store, gate: Gate, candidate: Candidate) -> Manifest:
    """Register, judge and perhaps promote the candidate; the manifest's facts say what was done and why.

    The decision depends on who is champion now, so finished work is never looked up. Moving the alias is one request
    and the registry's last: a gate that fails on the way leaves the champion as it was, and can be run again.
    """
    started, recipe = time.monotonic(), candidate.recipe
    _check(candidate)
    name = f"wordmill-{recipe}"
    version = _register(store, name, candidate)
    champion = tracking.champion(name)
    is_champion = champion is not None and champion.version == version
    decision = _judge(store, gate, version, candidate, champion)
    if not is_champion:
        tracking.explain(name, version, "; ".join(decision.reasons))
        if decision.promoted:
            tracking.promote(name, version)
    outcome = "kept" if is_champion else "promoted" if decision.promoted else "refused"
    for reason in decision.reasons:
        print(f"gate {recipe}: version {version} {outcome}: {reason}", flush=True)
    mean = plain_mean(list(candidate.accuracies.values()))
    inputs = {
        "gate": dataclasses.asdict(gate),
        "recipe": recipe,
        "model": candidate.trained.reference,
        "evaluations": [manifest.reference for manifest in candidate.measured],
        "parities": [manifest.reference for manifest in candidate.proven],
        "champion": champion and champion.version,
    }
    return record_manifest(
        store,
        stage="gate",
        name=recipe,
        key=digest({"stage": "gate", "name": recipe, "run_tag": candidate.run_tag, **inputs}),
        inputs=inputs,
        facts={"version": version, "outcome": outcome, "mean": mean, **dataclasses.asdict(decision)},
        seconds=time.monotonic() - started,
    )


def _check(candidate: Candidate) -> None:
    if not candidate.measured:
        raise ValueError("evaluations: the list is empty, the gate needs at least one benchmark")
    expected = candidate.trained.reference
    for manifest in candidate.measured:
        if (found := manifest.facts["model"]) != expected:
            raise ValueError(f"{manifest.reference} ({manifest.name}) measured {found}, expected {expected}")


def _judge(store: Store, gate: Gate, version: str, candidate: Candidate, champion: tracking.Version | None) -> Decision:
    accuracies = candidate.accuracies
    if not gate.promote:
        return uncompared(False, ["gate.promote is false: a smoke run is never champion"], accuracies, gate)
    if champion is None:
        decision = against_floor(accuracies, gate)
    elif champion.version == version:
        then = champion.tags.get("wordmill.gate", "no reason is written on it")
        reason = f"the same model is the champion already, as version {version}: {then}"
        decision = uncompared(True, [reason], accuracies, gate)
    else:
        decision = _compare(store, gate, candidate, champion)
    refusals = below_floors(accuracies, gate)
    if unlike := [
        manifest.name for manifest in candidate.proven if manifest.facts["made"] and not manifest.facts["ok"]
    ]:
        refusals.append(f"exported files that do not behave like the trained model: {', '.join(unlike)}")
    promoted = decision.promoted and not refusals
    return dataclasses.replace(decision, promoted=promoted, reasons=[*decision.reasons, *refusals])


def _compare(store: Store, gate: Gate, candidate: Candidate, champion: tracking.Version) -> Decision:
    references: list[str] = json.loads(champion.tags.get("wordmill.evaluations", "[]"))
    seen, accuracies = pair_with(store, candidate.measured, references), candidate.accuracies
    blind = f"the champion, version {champion.version}, cannot be"
    if seen.unpaired and seen.gone:
        reason = (
            f"{blind} seen on {', '.join(seen.unpaired)}: {len(seen.gone)} of its measurements are gone from "
            f"bucket '{store.bucket}', such as {seen.gone[0]}: evaluate it again, or take the alias from it"
        )
        return uncompared(False, [reason], accuracies, gate)
    if not seen.pairs:
        reason = f"{blind} compared: no benchmark was measured on the same samples by the same rules for both"
        return uncompared(False, [reason], accuracies, gate)
    decision = against_champion(seen.pairs, gate)
    if not seen.unpaired:
        return decision
    reason = f"not compared, the champion was measured on other samples or not at all: {', '.join(seen.unpaired)}"
    return dataclasses.replace(decision, reasons=[*decision.reasons, reason])


def _register(store: Store, name: str, candidate: Candidate) -> str:
    recipe, trained, measured, run_tag = candidate.recipe, candidate.trained, candidate.measured, candidate.run_tag
    known, run = tracking.registered(name, trained.reference), tracking.open_run(store, run_tag, recipe)
    before = json.loads(known.tags.get("wordmill.evaluations", "[]")) if known else []
    # What this model was measured on before stays with it: the next candidate may be compared on that.
    evaluations = list(dict.fromkeys([*before, *(manifest.reference for manifest in measured)]))
    if known:
        source = known.source
    else:
        exported = [whole_manifest(store, manifest.inputs["exported"]) for manifest in candidate.proven]
        lineage = Lineage(
            recipe=recipe, trained=trained, measured=measured, exported=exported, run_tag=run_tag, run=run
        )
        with work_folder(store, f"gate-{trained.key}") as folder:
            source = log_package(store, lineage, name, folder)
    return tracking.register(
        name,
        model=trained.reference,
        source=source,
        run_id=run.run_id,
        tags={"wordmill.evaluations": json.dumps(evaluations)},
        description=f"{recipe} trained in run {run_tag}: {trained.reference}",
    )
