import json
from pathlib import Path
from typing import Any

import pytest

from components.gate.pairing import pair_with
from components.gate.sampling import Paired
from tests.components.gate.finished_run import FinishedRun
from wordmill.store.artifacts import Manifest
from wordmill.store.storage import Store


class Measured:
    """Measurements of benchmark "a", whose samples are named by a letter each."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.seed = FinishedRun(store=store, folder=folder, run_tag="pairs")

    def of(self, samples: str, outcomes: str, made_by: str = "code", **rules: Any) -> Manifest:
        """Samples "xy" with outcomes "1?" are a picture x that was read and a picture y that does not count."""
        rows = [{"index": number, "truth": sample.upper(), "picture": sample, "correct": None if c == "?" else c == "1"}
                for number, (sample, c) in enumerate(zip(samples, outcomes, strict=True))]  # fmt: skip
        predictions = "\n".join(map(json.dumps, rows)).encode()
        facts = {"total": len(outcomes.replace("?", "")), "content": f"{samples} {made_by}"}
        inputs = {"evaluation": {"protocol": "dtrb", "beams": 1, "amp": "O0", **rules}}
        return self.seed.manifest("evaluate", "a", {"predictions.jsonl": predictions}, facts, inputs=inputs,
                                  made_by=(made_by,))  # fmt: skip


@pytest.fixture
def measured(store: Store, tmp_path: Path) -> Measured:
    return Measured(store, tmp_path)


def paired(store: Store, ours: Manifest, *theirs: Manifest) -> list[Paired]:
    found = pair_with(store, [ours], [one.reference for one in theirs])
    assert found.unpaired == ([] if found.pairs else ["a"])
    return found.pairs


def test_samples_that_the_protocol_leaves_out_are_not_paired(store: Store, measured: Measured) -> None:
    ours, theirs = measured.of("xyz", "1?0"), measured.of("xyz", "0?0")
    expected = Paired(name="a", candidate=[True, False], champion=[False, False], pictures=["x", "z"],
                      lengths=[1, 1])  # fmt: skip
    assert paired(store, ours, theirs) == [expected]
    # As many samples, not the same ones.
    assert paired(store, measured.of("xyz", "10?"), theirs) == []


def test_samples_are_known_by_label_and_picture_whatever_their_order(store: Store, measured: Measured) -> None:
    ours, theirs = measured.of("xyzx", "1001"), measured.of("zxxy", "1100", made_by="other code")
    # The first x is paired with the first, the second with the second.
    expected = Paired(name="a", candidate=[True, False, False, True], champion=[True, False, True, False],
                      pictures=["x", "y", "z", "x"], lengths=[1, 1, 1, 1])  # fmt: skip
    assert paired(store, ours, theirs) == [expected]
    assert paired(store, ours, measured.of("zxwy", "1100")) == []


@pytest.mark.parametrize("rules", [{"beams": 5}, {"amp": "O2"}, {"protocol": "mindocr"}])
def test_a_measurement_by_other_rules_neither_pairs_nor_hides_one_that_does(
    store: Store, measured: Measured, rules: dict[str, Any]
) -> None:
    ours, theirs, later = measured.of("xy", "11"), measured.of("xy", "10"), measured.of("xy", "00", **rules)
    assert [pair.champion for pair in paired(store, ours, theirs, later)] == [[True, False]]
    assert paired(store, ours, later) == []


def test_of_several_measurements_the_one_by_the_same_code_counts_else_the_last(
    store: Store, measured: Measured
) -> None:
    ours, same = measured.of("xy", "11"), measured.of("xy", "10")
    older, newer = measured.of("xy", "01", made_by="older"), measured.of("xy", "00", made_by="newer")
    assert [pair.champion for pair in paired(store, ours, older, same, newer)] == [[True, False]]
    assert [pair.champion for pair in paired(store, ours, older, newer)] == [[False, False]]


def test_a_measurement_of_before_pictures_had_digests_is_no_pair(store: Store, measured: Measured) -> None:
    old = measured.of("xy", "11")
    rows = [{"index": number, "truth": "X", "correct": True} for number in range(2)]
    text = "\n".join(map(json.dumps, rows)).encode()
    bare = measured.seed.manifest("evaluate", "a", {"predictions.jsonl": text}, old.facts, inputs=old.inputs)
    assert paired(store, old, bare) == []
    assert paired(store, bare, bare) == []
