"""Decides whether the trained recogniser becomes the champion, and registers it."""

import dataclasses
import json
import time
from dataclasses import dataclass
from typing import Any

from components.gate.compare import PairedComparison, compare_pairs
from components.gate.drift import compare_runs
from components.gate.histories import both_runs
from components.gate.judged import add_measurements, keep_words, measurements_of, words_of
from components.gate.judging import Decision, disagreeing, judge_candidate, refuse_unjudged
from components.gate.lease import StoreLease, leased
from components.gate.pairing import Pairing, pair_with
from wordmill.inference.package import Lineage, keep_package, log_package, sweep_packages
from wordmill.recipe.parsing import from_json
from wordmill.recipe.sections import Gate
from wordmill.store import tracking
from wordmill.store.artifacts import Manifest, digest, read_manifest, record_manifest, stored_manifest, whole_manifest
from wordmill.store.stages import run_stage, work_folder
from wordmill.store.storage import Store
from wordmill.store.tracking import Version
from wordmill.text.metrics import plain_mean

SMOKE = "gate.promote is false: a smoke run is never champion"


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A recogniser and the manifests of what trained, measured and proved it, in one run of its recipe's pipeline."""

    recipe: str
    trained: Manifest
    measured: list[Manifest]
    proven: list[Manifest]
    rivals: dict[str, dict[str, Any]]  # by version: what it was measured on in this run, and why not on the others
    run_tag: str

    @property
    def accuracies(self) -> dict[str, float]:
        """Return the accuracy on each benchmark."""
        return {manifest.name: manifest.facts["accuracy"] for manifest in self.measured}

    def again(self, rival: Version) -> dict[str, Any]:
        """Return what the run has measured of a rival."""
        return self.rivals.get(rival.version, {"evaluations": {}, "reasons": {}})


@dataclass(frozen=True, kw_only=True)
class Registry:
    """Who holds which alias of a registered model while a gate decides; `version` is the candidate's."""

    name: str
    version: str
    champion: Version | None
    best: Version | None  # of all that were champion

    @property
    def is_champion(self) -> bool:
        """Tell whether the candidate is champion already."""
        return self.champion is not None and self.champion.version == self.version

    @property
    def rivals(self) -> dict[str, Version]:
        """Whom the candidate is compared with, by what they are: each once, and not with itself."""
        found = {"champion": self.champion, "best champion so far": self.best}
        if self.champion and self.best and self.champion.version == self.best.version:
            del found["best champion so far"]
        return {what: one for what, one in found.items() if one and one.version != self.version}

    def called(self, what: str) -> str:
        """Return what a rival is called in a sentence."""
        return f"the {what}, version {self.rivals[what].version}"


def run(
    *, gate: str, recipe: str, model: str, evaluations: str, parities: str, rivals: str, run_tag: str, output: str
) -> str:
    """Compare the candidate with the champion and move the registry's alias if it is good enough.

    gate: JSON of the recipe's gate section; recipe: name of the recipe; model: file with the manifest of train;
    evaluations, parities: JSON lists of manifest references of evaluate and smoke; rivals: reference of what measured
    champions again, "" for a run that promotes nobody; output: file for the manifest.
    """

    def work(store: Store) -> tuple[Manifest, bool]:
        section, trained = from_json(Gate, gate), read_manifest(model)
        measured = [whole_manifest(store, reference) for reference in json.loads(evaluations)]
        proven = [whole_manifest(store, reference) for reference in json.loads(parities)]
        again = {one["version"]: one for one in stored_manifest(store, rivals).facts["rivals"]} if rivals else {}
        candidate = Candidate(
            recipe=recipe, trained=trained, measured=measured, proven=proven, rivals=again, run_tag=run_tag
        )
        return decide(store, section, candidate), False

    return run_stage("gate", recipe, run_tag, output, work)


def decide(store: Store, gate: Gate, candidate: Candidate) -> Manifest:
    """Register, judge and perhaps promote the candidate; the manifest's facts say what was done and why.

    The decision depends on who is champion now, so finished work is never looked up, and gates of one recipe decide one
    after the other. Moving the champion's alias is one request and the registry's last: a gate that fails on the way
    leaves the champion as it was, can be run again, and the next one sweeps what it has logged.
    """
    started, recipe = time.monotonic(), candidate.recipe
    _check(gate, candidate)
    name = tracking.registered_name(recipe)
    with leased(store, f"gate/{recipe}", candidate.run_tag) as lease:
        version = _register(store, name, candidate)
        champion, best = tracking.holder(name, "champion"), tracking.holder(name, "best")
        registry = Registry(name=name, version=version, champion=champion, best=best)
        pairings = _pair(store, gate, candidate, registry)
        decision = _judge(store, gate, candidate, registry, pairings)
        moved = _drift(store, candidate, registry, pairings)
        outcome = _act(store, candidate, registry, decision, lease)
    for reason in decision.reasons:
        print(f"gate {recipe}: version {version} {outcome}: {reason}", flush=True)
    for words in moved["moved"] if moved else []:
        print(f"gate {recipe}: moved since {moved['against'] if moved else ''}: {words}", flush=True)
    mean = plain_mean(list(candidate.accuracies.values()))
    inputs = {
        "gate": dataclasses.asdict(gate),
        "recipe": recipe,
        "model": candidate.trained.reference,
        "evaluations": [manifest.reference for manifest in candidate.measured],
        "parities": [manifest.reference for manifest in candidate.proven],
        "champion": champion and champion.version,
        "best": best and best.version,
    }
    return record_manifest(
        store,
        stage="gate",
        name=recipe,
        key=digest({"stage": "gate", "name": recipe, "run_tag": candidate.run_tag, **inputs}),
        inputs=inputs,
        facts={"version": version, "outcome": outcome, "mean": mean, "drift": moved, **decision.facts()},
        seconds=time.monotonic() - started,
    )


def _check(gate: Gate, candidate: Candidate) -> None:
    if not candidate.measured:
        raise ValueError("evaluations: the list is empty, the gate needs at least one benchmark")
    if not gate.benchmarks:
        raise ValueError("gate.benchmarks: the list is empty, expected the recipe's own, as loading a recipe has them")
    expected = candidate.trained.reference
    for manifest in candidate.measured:
        if (found := manifest.facts["model"]) != expected:
            raise ValueError(f"{manifest.reference} ({manifest.name}) measured {found}, expected {expected}")


def _pair(store: Store, gate: Gate, candidate: Candidate, registry: Registry) -> dict[str, Pairing]:
    """Return what can be seen of whom the candidate is compared with, by what they are; of a smoke run nothing."""
    pairings = {}
    for what, rival in registry.rivals.items() if gate.promote else []:
        again = candidate.again(rival)["evaluations"].values()
        references = [*measurements_of(store, rival), *again]
        pairings[what] = pair_with(store, candidate.measured, references)
    return pairings


def _judge(
    store: Store, gate: Gate, candidate: Candidate, registry: Registry, pairings: dict[str, Pairing]
) -> Decision:
    if not gate.promote:
        return refuse_unjudged(gate, candidate.accuracies, SMOKE)
    refusals, rivals = disagreeing(candidate.proven), dict[str, PairedComparison]()
    for what, seen in pairings.items():
        if seen.pairs:
            rivals[registry.called(what)] = compare_pairs(seen.pairs, gate)
        if seen.unpaired:
            again = candidate.again(registry.rivals[what])["reasons"]
            refusals.append(_blind(store, registry.called(what), seen, again))
    decision = judge_candidate(gate, candidate.accuracies, rivals, refusals)
    if registry.champion is None or not registry.is_champion:
        return decision
    then = words_of(store, registry.name, registry.champion)
    kept = f"the same model is the champion already, as version {registry.version}: {then}"
    return dataclasses.replace(decision, reasons=[kept])


def _drift(
    store: Store, candidate: Candidate, registry: Registry, pairings: dict[str, Pairing]
) -> dict[str, Any] | None:
    """Return what has moved since the champion's run; None without a champion that is compared with."""
    if "champion" not in pairings:
        return None
    champion = registry.rivals["champion"]
    histograms = both_runs(store, candidate.trained, champion.tags.get(tracking.MODEL), candidate.again(champion))
    return compare_runs(histograms, pairings["champion"].pairs, registry.called("champion"))


def _blind(store: Store, called: str, seen: Pairing, reasons: dict[str, str]) -> str:
    """Say on what a rival cannot be seen, and why: reasons are those for which it could not be measured again."""
    where = f"{called} cannot be compared on {', '.join(seen.unpaired)}"
    told = [reasons[name] for name in seen.unpaired if name in reasons]
    again = f", and it could not be measured again: {told[0]}" if told else ""
    if not seen.gone:
        return f"{where}: it was not measured on the same samples by the same rules{again}"
    return (f"{where}: {len(seen.gone)} of its measurements are gone from bucket '{store.bucket}', such as "
            f"{seen.gone[0]}{again}")  # fmt: skip


def _act(store: Store, candidate: Candidate, registry: Registry, decision: Decision, lease: StoreLease) -> str:
    """Note what was found, move the aliases where the candidate is promoted; return the outcome."""
    if registry.is_champion:
        return "kept"
    keep_words(store, registry.name, candidate.trained.reference, "; ".join(decision.reasons))
    tracking.mark(registry.name, registry.version, decision.outcome)
    if decision.promoted:
        lease.check()
        tracking.set_alias(registry.name, "best", best_of(registry, decision))
        tracking.set_alias(registry.name, "champion", registry.version)
    return decision.outcome


def best_of(registry: Registry, decision: Decision) -> str:
    """Return which version has the highest mean, on the same samples, of the candidate and whom it was compared with.

    With that alias the gate compares ever after: a row of champions, each a little worse than the last, sinks nowhere.
    """
    means = {registry.version: 0.0}  # less the candidate's
    means |= {registry.rivals[what].version: -decision.rivals[registry.called(what)].difference
              for what in registry.rivals}  # fmt: skip
    return max(means, key=lambda version: means[version])  # the candidate of those that are equal


def _register(store: Store, name: str, candidate: Candidate) -> str:
    recipe, trained, measured, run_tag = candidate.recipe, candidate.trained, candidate.measured, candidate.run_tag
    known, run = tracking.registered(name, trained.reference), tracking.open_run(store, run_tag, recipe)
    add_measurements(store, trained.reference, [manifest.reference for manifest in measured])
    if swept := sweep_packages(run, name, tracking.sources(name)):
        print(f"gate {recipe}: swept what gates that were killed had logged: {', '.join(swept)}", flush=True)
    if known:
        source = known.source
    else:
        exported = [whole_manifest(store, manifest.inputs["exported"]) for manifest in candidate.proven]
        lineage = Lineage(
            recipe=recipe, trained=trained, measured=measured, exported=exported, run_tag=run_tag, run=run
        )
        with work_folder(store, f"gate-{trained.key}") as folder:
            source = log_package(store, lineage, name, folder)
    version = tracking.register(
        name,
        model=trained.reference,
        source=source,
        run_id=run.run_id,
        description=f"{recipe} trained in run {run_tag}: {trained.reference}",
    )
    if not known:
        keep_package(run, source)
    return version
