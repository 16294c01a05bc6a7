"""What one run of a pipeline leaves in the store beside its results: its stages' records, its training's starts."""

import os

from wordmill.store.storage import Store


def records_prefix(run_tag: str) -> str:
    """Return the place below which a run's stages record themselves, one document to a stage and name."""
    return f"runs/{run_tag}/stages/"


def begin_run(store: Store, run_tag: str, keep: str = "") -> bool:
    """Forget what an earlier run of this tag has recorded, and tell whether there was one: this run continues it.

    keep: how the names of those records begin that are this run's own.
    """
    prefix = records_prefix(run_tag)
    old = [key for key in store.keys(prefix) if not (keep and key.startswith(prefix + keep))]
    for key in old:
        store.delete(key)
    if old:
        store.delete(starts_key(run_tag))
        _reopen(store, run_tag)
    return bool(old)


def starts_key(run_tag: str) -> str:
    """Return where a run's training counts how often it was begun."""
    return f"runs/{run_tag}/starts.json"


def _reopen(store: Store, run_tag: str) -> None:
    """Let MLflow show a continued run as running."""
    if "MLFLOW_RUN_ID" not in os.environ and store.get_json(f"runs/{run_tag}/mlflow.json") is None:
        return
    from wordmill.store import tracking  # MLflow takes seconds to import, and most runs continue none

    try:
        tracking.open_run(store, run_tag).reopen()
    except RuntimeError as error:
        print(f"warning: MLflow shows the run as ended until its report: {error}", flush=True)
