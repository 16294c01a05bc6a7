"""What another model was measured on, read from the store and laid beside the candidate's measurements.

Samples are paired by what they are, label and picture, and measurements by how they were made: protocol, beams, type.
Who has packed, read or stored them does not matter, and no digest of code is looked at.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from components.gate.sampling import Paired
from wordmill.inference.evaluation import predictions_of
from wordmill.store.artifacts import Manifest, find_manifest
from wordmill.store.storage import Store

SampleKey = tuple[str, str, int]  # label, digest of the picture, and which of those that are alike in both


@dataclass(frozen=True, kw_only=True)
class Pairing:
    """What can be seen of another model: pairs, the other benchmarks' names, and its measurements that are gone."""

    pairs: list[Paired]
    unpaired: list[str]
    gone: list[str]  # references `evaluate/<key>`


def pair_with(store: Store, measured: list[Manifest], references: Sequence[str]) -> Pairing:
    """Pair each of the candidate's measurements with one of the other model's, whatever else that was measured on.

    Of several that fit, one by the same code is taken, else the last.
    """
    stored = {reference: find_manifest(store, reference) for reference in references}
    theirs = [manifest for manifest in stored.values() if manifest]
    pairs, unpaired = [], []
    for ours in measured:
        pair = _pair(store, ours, theirs)
        if pair:
            pairs.append(pair)
        else:
            unpaired.append(ours.name)
    gone = [reference for reference, manifest in stored.items() if manifest is None]
    return Pairing(pairs=pairs, unpaired=unpaired, gone=gone)


def rules_of(evaluation: Manifest) -> dict[str, str | int]:
    """Return by which rules a measurement was made: what has to be the same for both of a pair."""
    rules = evaluation.inputs["evaluation"]
    return {key: rules[key] for key in ("protocol", "beams", "amp")}


def _pair(store: Store, ours: Manifest, theirs: list[Manifest]) -> Paired | None:
    """Return both models' outcomes on the same samples; None where no measurement of the other has them all."""
    rules, total = rules_of(ours), ours.facts["total"]
    fitting = [one for one in reversed(theirs) if rules_of(one) == rules and one.facts["total"] == total]
    if not fitting:
        return None
    candidate = outcomes(store, ours)
    for one in sorted(fitting, key=lambda other: other.made_by != ours.made_by):
        other = outcomes(store, one)
        if candidate and other.keys() == candidate.keys():
            labels, pictures, _ = zip(*candidate, strict=True)
            return Paired(name=ours.name, candidate=list(candidate.values()), champion=[other[s] for s in candidate],
                          pictures=list(pictures), lengths=list(map(len, labels)))  # fmt: skip
    return None


def outcomes(store: Store, evaluation: Manifest) -> dict[SampleKey, bool]:
    """Return for every sample that counts, in the stored order, whether it was read right."""
    found, seen = dict[SampleKey, bool](), Counter[tuple[str, str]]()
    for row in predictions_of(store, evaluation):
        content = row["truth"], row.get("picture", "")
        # A measurement of before pictures had digests is of samples that cannot be known again.
        if row["correct"] is not None and content[1]:
            found[*content, seen[content]] = row["correct"]
            seen[content] += 1
    return found
