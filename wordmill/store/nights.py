"""What nightly retraining leaves in the store for the next night, and for those who watch that it still runs."""

import time
from typing import Any

from wordmill.store.storage import Store


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
