"""Readings as a table that MLflow shows."""

from typing import Any

import pytest

from components.report.logged import tables
from components.report.logged.tables import prediction_table


def reading(index: int, confidence: float, correct: bool | None) -> dict[str, Any]:
    return {"index": index, "truth": "cat", "prediction": f"p{index}", "confidence": confidence, "correct": correct,
            "picture": "digest"}  # fmt: skip


READINGS = [reading(0, 0.9, True), reading(1, 0.2, False), reading(2, 0.1, None), reading(3, 0.8, False)]


def test_the_surest_mistakes_come_first_and_the_rest_as_it_is_stored() -> None:
    table = prediction_table(READINGS)
    assert table["columns"] == ["label", "prediction", "confidence", "correct", "index"]
    assert table["data"] == [
        ["cat", "p3", 0.8, False, 3],
        ["cat", "p1", 0.2, False, 1],
        ["cat", "p0", 0.9, True, 0],
        ["cat", "p2", 0.1, None, 2],
    ]


def test_a_table_has_the_mistakes_of_a_large_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "ROWS", 3)
    assert [row[-1] for row in prediction_table(READINGS)["data"]] == [3, 1, 0]
