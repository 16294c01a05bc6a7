"""What runs leave in the store beside results: records of stages, starts of training, nights, what gates found."""

import os
import time
from typing import Any

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


def judged_key(model: str) -> str:
    """Return where it stands what gates know of a model, by the reference `train/<key>` of its manifest."""
    return f"judged/{model}.json"


def finished_night(store: Store, recipe: str) -> dict[str, Any] | None:
    """Return {run_tag, finished, parts} of the last night that retrained a recipe, None for none."""
    return store.get_json(f"nights/{recipe}.json")


def keep_night(store: Store, recipe: str, run_tag: str, parts: dict[str, str]) -> None:
    """Remember what a night that finished was trained with."""
    store.put_json(f"nights/{recipe}.json", {"run_tag": run_tag, "finished": _now(), "parts": parts})


def beat(store: Store, recipe: str, run_tag: str, outcome: str) -> None:
    """Write the heartbeat: the last night that ended well. Monitoring outside the pipeline looks at its age."""
    store.put_json(f"heartbeats/{recipe}.json", {"run_tag": run_tag, "finished": _now(), "outcome": outcome})


def _now() -> str:
    """Return the time as ISO 8601, UTC, whole seconds."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
