"""Where training starts: from fresh weights, from a checkpoint's or from those of a recipe's champion."""

from pathlib import Path
from typing import Any

from wordmill.models.characters import start_from, symbols_text
from wordmill.models.checkpoint import load
from wordmill.models.pretrained import pretrained
from wordmill.recipe.sections import Data, Model, Train
from wordmill.store.artifacts import Manifest, whole_manifest
from wordmill.store.storage import Object, Store


def find_start(store: Store, start_from: str) -> Path | None:
    """Return a local file with the weights that train.start_from names, None where it names nothing.

    A name that ends in .safetensors is a file's, any other a recipe's: its champion's, or what comes with the project.
    ValueError where there is neither.
    """
    if not start_from:
        return None
    if start_from.endswith(".safetensors"):
        path = Path(start_from).absolute()
        if not path.is_file():
            raise ValueError(f"train.start_from: {path}: no such file")
        return path
    champion = find_champion(store, start_from)
    if champion is None:
        if shipped := pretrained(start_from):
            return shipped
        from wordmill.store import tracking

        raise ValueError(f"train.start_from: recipe '{start_from}' has no champion in the registry at "
                         f"{tracking.tracking_uri()}: train it first, or name a .safetensors file")  # fmt: skip
    return store.fetch(champion.object("model.safetensors"))


def find_champion(store: Store, recipe: str) -> Manifest | None:
    """Return the manifest of what trained a recipe's champion; None where there is none."""
    from wordmill.store import tracking  # MLflow takes seconds to import, and most recipes start afresh

    champion = tracking.holder(tracking.registered_name(recipe), "champion")
    if champion is None:
        return None
    try:
        return whole_manifest(store, champion.tags[tracking.MODEL])
    except RuntimeError as error:
        raise RuntimeError(f"train.start_from: champion of recipe '{recipe}': {error}") from None


def start_without(store: Store, recipe: str, own: str) -> Path | None:
    """Return the weights of a recipe's champion, None where there is none.

    Of one that has learnt the data set `own`, those that it started from: it may know words of it that are held out
    now, and training done again on the same words begins as it did.
    """
    champion = find_champion(store, recipe)
    if champion is None:
        return None
    path = store.fetch(champion.object("model.safetensors"))
    before = champion.facts.get("start_weights")
    return store.fetch(Object(**before)) if before and own in load(path).data.train else path


def fitted_start(path: Path | None, data: Data, model: Model, train: Train) -> dict[str, Any]:
    """Return what a manifest says of the weights that training starts from; ValueError where they do not fit."""
    if path is None:
        return {}
    start = start_from(load(path), model, data, train.start_charset, f"train.start_from {train.start_from}")
    if start.new or start.forgotten:
        kinds = (("new", start.new), ("forgotten", start.forgotten))
        told = "".join(f"; {len(symbols)} {kind}: {symbols_text(symbols)}" for kind, symbols in kinds if symbols)
        print(
            f"train: starts from {train.start_from}: {len(start.kept)} characters keep their weights{told}", flush=True
        )
    return {"start": start.facts()}
