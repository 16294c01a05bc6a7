"""How sure a champion is of a run's validation sets: beside what it was of its own, that tells whether data moved."""

from pathlib import Path

import numpy as np

from components import keys
from components.evaluate.stage import packed_set
from wordmill.inference.trained import load_trained
from wordmill.recipe import frameworks
from wordmill.shards.loader import pictures_at_once, spread_batches
from wordmill.shards.sets import fetch_index, open_sets
from wordmill.store.artifacts import Manifest
from wordmill.store.stages import StageResult, find_or_make
from wordmill.store.storage import Store
from wordmill.text.temperature import confidence_histogram
from wordmill.training.calibration import CALIBRATED

Histogram = dict[str, int]


def find_or_read(
    store: Store, trained: Manifest, names: tuple[str, ...], combined: Manifest, device: str
) -> tuple[Histogram | None, bool]:
    """Return the confidences of a recogniser on validation sets among the shards, and whether they were there.

    Those of the sets that it was validated on training has counted; None where it had not begun to.
    """
    if trained.inputs.get("val_sets") == [combined.facts["indices"][name] for name in names]:
        return trained.facts.get("confidences"), True
    contents = [combined.facts["contents"][name] for name in names]

    def make(folder: Path) -> StageResult:
        saved = load_trained(store, trained)
        predictor = frameworks.twin(saved.train.framework, "models.predict").Predictor(saved, device, "O0")
        shards = open_sets([fetch_index(store, packed_set(combined, name), name) for name in names])
        batches = spread_batches(shards, CALIBRATED, pictures_at_once(shards.shape))
        sure = [predictor.read(batch.images, 1)[1] for batch in batches]
        return StageResult(files={}, facts={"confidences": confidence_histogram(np.concatenate(sure))})

    inputs = {"model": trained.reference, "contents": contents, "device": device}
    ingredients = keys.of_confidences(trained.facts["framework"], device)
    made, found = find_or_make(store, "evaluate", "validation", inputs, make, ingredients)
    return made.facts["confidences"], found
