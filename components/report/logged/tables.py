"""The readings of each benchmark as a table that MLflow shows: the surest mistakes first."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from components.report.gather import Gathered
from wordmill.inference.evaluation import predictions_of
from wordmill.store.files import write_atomically
from wordmill.store.storage import Store

ROWS = 5000  # MLflow's page takes a table as a whole; all readings are in the store
COLUMNS = ("label", "prediction", "confidence", "correct", "index")


def table_path(benchmark: str) -> str:
    """Return where the readings of a benchmark lie among a run's artifacts."""
    return f"predictions/{benchmark}.json"


def write_tables(store: Store, gathered: Gathered, folder: Path) -> list[str]:
    """Write predictions/<benchmark>.json into a folder, as mlflow.log_table does, and return their paths in it."""
    paths = []
    for measured in gathered.of("evaluate"):
        paths.append(table_path(measured.name))
        table = prediction_table(predictions_of(store, measured))
        write_atomically(folder / paths[-1], json.dumps(table, ensure_ascii=False))
    return paths


def prediction_table(readings: Iterable[dict[str, Any]]) -> dict[str, list[Any]]:
    """Return readings as columns and rows: what is wrong by falling confidence, then the rest as it is stored."""

    def place(reading: dict[str, Any]) -> tuple[bool, float]:
        wrong = reading["correct"] is False
        return (not wrong, -reading["confidence"] if wrong else 0.0)

    chosen = sorted(readings, key=place)[:ROWS]
    rows = [[reading[{"label": "truth"}.get(column, column)] for column in COLUMNS] for reading in chosen]
    return {"columns": list(COLUMNS), "data": rows}
