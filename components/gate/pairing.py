"""What the champion was measured on, read from the store and laid beside the candidate's measurements."""

import json
from dataclasses import dataclass

from components.gate.compare import Paired
from wordmill.store.artifacts import Manifest, find_manifest
from wordmill.store.storage import Store
from wordmill.store.tracking import Version


@dataclass(frozen=True, kw_only=True)
class Pairing:
    """What can be seen of the champion: pairs, the other benchmarks' names, and its measurements that are gone."""

    pairs: list[Paired]
    unpaired: list[str]
    gone: list[str]  # references `evaluate/<key>`


def pair_with_champion(store: Store, measured: list[Manifest], champion: Version) -> Pairing:
    """Pair the benchmarks that both were measured on, with the same samples by the same protocol."""
    references: list[str] = json.loads(champion.tags.get("wordmill.evaluations", "[]"))
    stored = {reference: find_manifest(store, reference) for reference in references}
    theirs = {_ground(manifest): manifest for manifest in stored.values() if manifest}
    pairs, unpaired = [], []
    for ours in measured:
        other = theirs.get(_ground(ours))
        pair = other and _pair(store, ours, other)
        if pair:
            pairs.append(pair)
        else:
            unpaired.append(ours.name)
    gone = [reference for reference, manifest in stored.items() if manifest is None]
    return Pairing(pairs=pairs, unpaired=unpaired, gone=gone)


def _ground(evaluation: Manifest) -> tuple[str, str]:
    """Return the digest of the samples, which old measurements have not got, and the protocol."""
    return evaluation.facts.get("content", ""), evaluation.facts["protocol"]


def _pair(store: Store, ours: Manifest, theirs: Manifest) -> Paired | None:
    """Return both recognisers' outcomes; None where their charsets leave different samples to be counted."""
    candidate, champion = _outcomes(store, ours), _outcomes(store, theirs)
    if candidate.keys() != champion.keys():
        return None
    return Paired(name=ours.name, candidate=list(candidate.values()), champion=list(champion.values()))


def _outcomes(store: Store, evaluation: Manifest) -> dict[int, bool]:
    """Return for every sample that counts, by its index and in that order, whether it was read right."""
    path = store.fetch(evaluation.object("predictions.jsonl"))
    with path.open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return {row["index"]: row["correct"] for row in rows if row["correct"] is not None}
