"""The MLflow run of a local run, opened in a process of its own, since MLflow takes seconds to import."""

import sys
from pathlib import Path

from wordmill.store.storage import Store


def open_local_run(run_tag: str, recipe: str, runs: Path) -> None:
    """Open a run, and end others as failed whose process was killed before it could, by the marker in their folder."""
    from wordmill.store import tracking

    store = Store.from_environment()
    try:
        for marker in runs.glob("*/open"):
            killed = marker.parent.name
            if killed != run_tag and store.get_json(f"runs/{killed}/mlflow.json"):
                tracking.open_run(store, killed).finish(succeeded=False)
                print(f"run {killed} was killed: marked as failed in MLflow")
            marker.unlink()
        (runs / run_tag / "open").touch()
        tracking.open_run(store, run_tag, recipe)
    except RuntimeError as error:
        sys.exit(f"error: {error}")
