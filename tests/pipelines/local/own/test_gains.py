import json
from pathlib import Path

import pytest

from components.gate.sampling import Paired
from components.report.gather import Gathered
from pipelines.local.own.gains import gain_row, gains_text, known_before, paired
from wordmill.store.artifacts import Manifest
from wordmill.store.stages import StageResult, find_or_make
from wordmill.store.storage import Store
from wordmill.text.charset import Charset


def measured(store: Store, name: str, readings: dict[str, str]) -> Manifest:
    """Store what a recogniser has read of samples by their labels."""

    def make(folder: Path) -> StageResult:
        rows = [
            {"truth": truth, "prediction": text, "picture": f"p{n}"} for n, (truth, text) in enumerate(readings.items())
        ]
        path = folder / "predictions.jsonl"
        path.write_text("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows), encoding="utf-8")
        return StageResult(files={"predictions.jsonl": path}, facts={})

    return find_or_make(store, "evaluate", "own", {"name": name}, make)[0]


def test_both_are_judged_by_the_characters_that_the_new_one_writes(store: Store) -> None:
    charset = Charset(name="c", symbols="aßx")
    now = measured(store, "now", {"ax": "ax", "Aß": "aß", "x-": "x", "xx": "x"})
    then = measured(store, "then", {"ax": "ax", "Aß": "a", "x-": "a", "xx": "xx"})  # it knows a and x alone
    pair = paired(store, now, then, "mindocr", charset)
    assert (pair.candidate, pair.champion) == ([True, True, True, False], [True, False, False, True])
    assert pair.pictures == ["p0", "p1", "p2", "p3"]
    other = measured(store, "other", {"ax": "ax"})
    with pytest.raises(ValueError, match="are not of the same samples of own"):
        paired(store, now, other, "mindocr", charset)


def test_a_label_may_have_what_some_take_for_the_end_of_a_line(store: Store) -> None:
    now, then = (measured(store, name, {"a\u2028x": "ax", "x\u0085": "x"}) for name in ("now", "then"))
    assert len(paired(store, now, then, "mindocr", Charset(name="c", symbols="ax")).candidate) == 2


def test_a_gain_is_told_with_its_interval() -> None:
    # Of 100 words 30 are gained and 10 lost: 20 points, whose deviation is sqrt((0.4 - 0.04) / 100) = 6 points.
    candidate = [True] * 60 + [False] * 40
    champion = [True] * 30 + [False] * 30 + [True] * 10 + [False] * 30
    pair = Paired(name="own", candidate=candidate, champion=champion, pictures=[str(n) for n in range(100)])
    row = gain_row(pair, "own")
    assert (row["own"], row["total"], row["before"], row["now"]) == (True, 100, 0.4, 0.6)
    assert row["difference"] == pytest.approx(0.2)
    assert row["interval"] == pytest.approx([0.2 - 1.96 * 0.06, 0.2 + 1.96 * 0.06], abs=0.012)
    told = gains_text([row, row | {"name": "old", "own": False, "difference": -0.01, "interval": [-0.02, 0.0]}])
    assert "own words, held out  own                       40.00 % before,  60.00 % now: +20.00 points" in told
    assert "others               old" in told
    assert "-1.00 points (95 %: -2.00 to +0.00), 100 words" in told


def test_what_a_run_has_measured_of_the_weights_that_it_started_from_is_taken(store: Store, tmp_path: Path) -> None:
    start, champion = tmp_path / "start.safetensors", tmp_path / "model.safetensors"
    start.write_bytes(b"weights")
    champion.write_bytes(b"weights")

    def trained(_: Path) -> StageResult:
        return StageResult(files={"model.safetensors": champion}, facts={})

    model = find_or_make(store, "train", "crnn", {}, trained)[0]
    then = measured(store, "then", {"ax": "ax"})
    rival = {"model": model.reference, "evaluations": {"own": then.reference}}
    rivals = Manifest(stage="rivals", name="r", key="r", inputs={}, git_commit="", facts={"rivals": [rival]})
    gathered = Gathered(records=[], manifests={"rivals.r": rivals}, datasets={})
    assert known_before(store, gathered, start) == {"own": then}
    start.write_bytes(b"others")
    assert known_before(store, gathered, start) == {}
    assert known_before(store, Gathered(records=[], manifests={}, datasets={}), start) == {}
