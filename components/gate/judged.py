"""What gates know of a model beside its tags in the registry, which are short: its measurements, and their words on it.

It stands in the store, by the reference `train/<key>` of what trained the model.
"""

import json
from typing import Any

from wordmill.store.runs import judged_key
from wordmill.store.storage import Store
from wordmill.store.tracking import GATE, MODEL, Version

EVALUATIONS = "wordmill.evaluations"  # where versions that were registered by older code have their measurements


def measurements_of(store: Store, version: Version) -> list[str]:
    """Return the references `evaluate/<key>` of all that a registered model was measured on, the first one first."""
    found = _known(store, version.tags[MODEL])["evaluations"] if MODEL in version.tags else []
    return list(dict.fromkeys([*json.loads(version.tags.get(EVALUATIONS, "[]")), *found]))


def add_measurements(store: Store, model: str, evaluations: list[str]) -> None:
    """Note what a model was measured on; what is known already stays: the next candidate may be compared on that."""
    known = _known(store, model)
    store.put_json(judged_key(model), known | {"evaluations": list(dict.fromkeys(known["evaluations"] + evaluations))})


def words_of(store: Store, name: str, version: Version) -> str:
    """Return why the gate of a registered model has decided as it did on a version."""
    told = _known(store, version.tags[MODEL])["words"].get(name) if MODEL in version.tags else None
    return str(told or version.tags.get(GATE, "no reason is known"))


def keep_words(store: Store, name: str, model: str, words: str) -> None:
    """Note why the gate of a registered model decides as it does."""
    known = _known(store, model)
    store.put_json(judged_key(model), known | {"words": known["words"] | {name: words}})


def _known(store: Store, model: str) -> dict[str, Any]:
    return {"evaluations": [], "words": {}} | (store.get_json(judged_key(model)) or {})
