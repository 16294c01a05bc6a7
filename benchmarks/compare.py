"""How long `make compare` takes where MLflow holds thousands of runs: the embedded server, three runs side by side.

python -m benchmarks.compare [--runs 5000] [--json]
"""

import argparse
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from components.report.compare import runs as compare_runs
from components.report.compare.page import CHARTS
from wordmill.recipe.arguments import from_one
from wordmill.store import tracking
from wordmill.store.experiments import InputSet, log_inputs
from wordmill.store.storage import Store

GOAL_S = 5.0
RECIPES = 10
COMPARED = 3
POINTS = 60  # of each training curve; those of the compared runs have LONG points, a day of training
LONG = 40_000
TIMES = 3  # every measurement is the median of so many
BENCHMARKS = (
    "iiit5k",
    "svt",
    "ic03_860",
    "ic03_867",
    "ic13_857",
    "ic13_1015",
    "ic15_1811",
    "ic15_2077",
    "svtp",
    "cute80",
)
# What a copy of a run has of its own: table -> column -> SQL.
OWN = {
    "runs": {"run_uuid": "c.run_id", "start_time": "c.started", "end_time": "c.started + 3600000"},
    "tags": {"run_uuid": "c.run_id", "value": "CASE t.key WHEN 'wordmill.run_tag' THEN c.tag ELSE t.value END"},
    **{table: {"run_uuid": "c.run_id"} for table in ("params", "metrics", "latest_metrics")},
    "inputs": {"destination_id": "c.run_id", "input_uuid": "hex(randomblob(16))"},
}

Row = dict[str, str | float | bool | None]


def curves(points: int) -> list[tracking.Point]:
    """Return what a training of so many lines sends."""
    now, names = time.time(), ("train/loss", "train/lr", "train/images_per_s")
    lines = [(name, 1 / (step + 1), step, now + 2 * step) for step in range(points) for name in names]
    return lines + [(name, 0.5, step, now) for step in range(0, points, 20) for name in ("val/loss", "val/accuracy")]


def log(store: Store, recipe: str, tag: str, points: int) -> str:
    """Log a run as a pipeline does, with the parameters, tags and metrics of a large recipe, and return its id."""
    run = tracking.open_run(store, tag, recipe)
    run.set_tags({"wordmill.recipe": recipe})
    sets = [InputSet(name=name, digest=uuid.uuid4().hex, source=f"file:///{name}", context="benchmark", facts={})
            for name in BENCHMARKS]  # fmt: skip
    log_inputs(run, sets)
    parameters = {f"train.parameter_{number}": str(number) for number in range(60)}
    run.log_params(parameters | {"versions.torch": "2.13.0", "versions.mlflow": "3.17.2"})
    numbers = {"accuracy": 0.8, "1-NED": 0.9, "samples": 1000.0}
    run.log_metrics(
        (f"benchmark/{name}/{key}", value, 0, time.time()) for name in BENCHMARKS for key, value in numbers.items()
    )
    run.log_metrics(curves(points))
    run.finish(succeeded=True)
    return run.run_id


def copy(database: Path, recipe: str, run_id: str, count: int) -> None:
    """Copy a run `count` times in MLflow's tables, each an hour older than the one before."""
    newest = round(time.time() * 1000)
    copies = [(uuid.uuid4().hex, f"{recipe}-{number:05}", newest - 3_600_000 * (number + 1)) for number in range(count)]
    connection = sqlite3.connect(database)
    with connection:
        connection.execute("CREATE TEMP TABLE copies (run_id TEXT, tag TEXT, started INTEGER)")
        connection.executemany("INSERT INTO copies VALUES (?, ?, ?)", copies)
        for table, own in OWN.items():
            columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
            values = ", ".join(own.get(column, f"t.{column}") for column in columns)
            key = "destination_id" if table == "inputs" else "run_uuid"
            chosen = f"SELECT {values} FROM {table} t, copies c WHERE t.{key} = ?"  # noqa: S608 (names from above)
            connection.execute(f"INSERT INTO {table} ({', '.join(columns)}) {chosen}", (run_id,))
    connection.close()


def fill(store: Store, database: Path, runs: int) -> None:
    """Bring so many runs into MLflow: those of RECIPES recipes, the newest few of the first with long curves."""
    for number in range(RECIPES):
        recipe = f"recipe_{number}"
        copy(database, recipe, log(store, recipe, f"{recipe}-first", POINTS), runs // RECIPES - 1)
    for number in range(COMPARED):
        log(store, "recipe_0", f"recipe_0-newest-{number}", LONG)


def row(name: str, work: Callable[[], object]) -> Row:
    """Time a piece of work and return its line of the table; there is no peer here."""
    times = []
    for _ in range(TIMES):
        before = time.perf_counter()
        work()
        times.append(time.perf_counter() - before)
    seconds = sorted(times)[TIMES // 2]
    return {"name": name, "value": round(seconds, 2), "unit": "s", "peer": None, "ratio": None, "goal": GOAL_S,
            "met": seconds <= GOAL_S}  # fmt: skip


def refused() -> None:
    """Look for a run that is not there, the search that goes through everything."""
    try:
        compare_runs.find_run("nowhere")
    except ValueError:
        return
    raise AssertionError("a run of no name was found")


def measure() -> list[Row]:
    """Time the whole command, from the shell and back, and its parts."""
    command = [sys.executable, "-m", "pipelines", "compare"]
    recipe = ["--recipe", "recipe_0", "--last", str(COMPARED)]
    named = [f"recipe_0-newest-{number}" for number in range(COMPARED)]
    chosen = compare_runs.last("recipe_0", COMPARED)
    return [
        row("make compare, last 3", lambda: subprocess.run([*command, *recipe], check=True, capture_output=True)),
        row("make compare, 3 names", lambda: subprocess.run([*command, *named], check=True, capture_output=True)),
        row("the last 3 of a recipe", lambda: compare_runs.last("recipe_0", COMPARED)),
        row("a run by its prefix", lambda: compare_runs.find_run("recipe_7-firs")),
        row("a run that is not there", refused),
        row("curves of 3 runs", lambda: compare_runs.histories(chosen, CHARTS)),
    ]


def main() -> None:
    """Print the table, or its rows as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=from_one, default=5000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["WORDMILL_STATE"] = folder  # read where the services are imported
        from pipelines.local import services

        services.settings()
        try:
            fill(Store.from_environment(), Path(folder) / "mlflow.db", options.runs)
            rows = measure()
        finally:
            services.down()
    if options.json:
        print(json.dumps(rows, indent=1))
        return
    for line in rows:
        print(f"{line['name']:<24} {line['value']:>7} {line['unit']}  goal {line['goal']}  met {line['met']}")


if __name__ == "__main__":
    main()
