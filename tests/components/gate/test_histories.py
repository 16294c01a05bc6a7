from pathlib import Path

import pytest

from components.gate.histories import both_runs
from tests.components.gate.finished_run import FinishedRun
from wordmill.store.artifacts import Manifest
from wordmill.store.storage import Store


class Runs:
    """Trainings on data sets whose brightness and length are counted; of characters each has as many a."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.store, self.seed = store, FinishedRun(store=store, folder=folder, run_tag="r")

    def packed(self, name: str, lengths: dict[str, int] | None) -> str:
        count = sum(lengths.values()) if lengths else 0
        known = {"histograms": {"length": lengths, "character": {"a": count}, "brightness": {"0": count}}}
        return self.seed.manifest("shard", name, {}, known if lengths else {}).reference

    def trained(self, train: list[str], val: list[str], confidences: dict[str, int] | None) -> Manifest:
        facts = {"train_sets": train, "val_sets": val} | ({"confidences": confidences} if confidences else {})
        return self.seed.manifest("train", "crnn", {}, facts)


@pytest.fixture
def runs(store: Store, tmp_path: Path) -> Runs:
    return Runs(store, tmp_path)


def test_the_sets_of_each_use_are_counted_together(runs: Runs) -> None:
    a, b, c = (runs.packed(str(n), {"3": n, str(n): 1}) for n in (5, 6, 7))
    then = runs.trained([a], [c], {"0.90": 4})
    now = runs.trained([a, b], [c], None)
    found = both_runs(runs.store, now, then.reference, {"confidences": {"0.50": 9}})
    assert found == {
        "training, word length": ({"3": 11, "5": 1, "6": 1}, {"3": 5, "5": 1}),
        "training, characters": ({"a": 13}, {"a": 6}),
        "training, brightness": ({"0": 13}, {"0": 6}),
        "validation, word length": ({"3": 7, "7": 1}, {"3": 7, "7": 1}),
        "validation, characters": ({"a": 8}, {"a": 8}),
        "validation, brightness": ({"0": 8}, {"0": 8}),
        "validation, the champion's confidence": ({"0.50": 9}, {"0.90": 4}),
    }


def test_what_one_run_has_not_recorded_is_not_compared(runs: Runs) -> None:
    counted, streamed = runs.packed("a", {"3": 2}), runs.packed("b", None)
    now = runs.trained([counted, streamed], [counted], None)
    then = runs.trained([counted], ["shard/gone"], {"0.90": 4})
    assert both_runs(runs.store, now, then.reference, {"confidences": None}) == {}
    assert both_runs(runs.store, now, "train/gone", {}) == {}
    assert both_runs(runs.store, now, None, {}) == {}
