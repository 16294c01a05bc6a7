"""The trained recogniser out of the store, as the stages behind training take it."""

from wordmill.models.checkpoint import Checkpoint, load
from wordmill.store.artifacts import Manifest
from wordmill.store.storage import Store
from wordmill.text.charset import charset_of


def load_trained(store: Store, trained: Manifest) -> Checkpoint:
    """Return the best weights of a training; ValueError where its charset's file has changed since."""
    saved = load(store.fetch(trained.object("model.safetensors")))
    learnt, found = trained.inputs["symbols"], charset_of(saved.data).symbols
    if found != learnt:
        raise ValueError(f"data.charset {saved.data.charset}: {trained.reference} was trained with {len(learnt)}, not "
                         f"the same in the same order as the {len(found)} characters found here: train again, or "
                         "restore the file")  # fmt: skip
    return saved
