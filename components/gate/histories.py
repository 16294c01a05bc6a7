"""What two runs have recorded of their data, brought together for a comparison."""

from collections import Counter
from typing import Any

from components.gate.drift import Histogram
from wordmill.store.artifacts import Manifest, find_manifest
from wordmill.store.storage import Store

USES = {"train_sets": "training", "val_sets": "validation"}
KINDS = {"length": "word length", "character": "characters", "brightness": "brightness"}


def recorded(store: Store, trained: Manifest) -> dict[str, Histogram]:
    """Return the histograms of all that a recogniser was trained and validated on, by what they are of.

    Those of which a data set has none, because it was packed before there were any or is drawn while training, are left
    out.
    """
    found = dict[str, Histogram]()
    for use, called in USES.items():
        facts = [made.facts if made else {} for made in (find_manifest(store, one) for one in trained.facts[use])]
        for kind, told in KINDS.items():
            parts = [one["histograms"][kind] for one in facts if "histograms" in one]
            if parts and len(parts) == len(facts):
                found[f"{called}, {told}"] = sum((Counter(part) for part in parts), Counter[str]())
    return found


def both_runs(
    store: Store, trained: Manifest, reference: str | None, rival: dict[str, Any]
) -> dict[str, tuple[Histogram, Histogram]]:
    """Return this night's and the champion's histograms by what they are of, as far as both runs have recorded them.

    reference: what trained the champion; rival: what the run has measured of it. Confidences are those of the champion
    alone, on validation: another model's would differ whatever the data, and of what it was trained on it is surer than
    of anything new.
    """
    champion = find_manifest(store, reference) if reference else None
    if champion is None:
        return {}
    ours, theirs = recorded(store, trained), recorded(store, champion)
    found = {what: (ours[what], theirs[what]) for what in ours if what in theirs}
    now, then = rival.get("confidences"), champion.facts.get("confidences")
    return found | ({"validation, the champion's confidence": (now, then)} if now and then else {})
