"""Watches from outside the pipeline that nights keep ending well: `python -m components.report.heartbeat`.

A schedule that has stopped cannot report itself. WORDMILL_NIGHTLY names the recipes, separated by commas,
WORDMILL_SILENCE_H the hours without a good night after which WORDMILL_WEBHOOK, where set, is told. Code 1: there was
something to tell.
"""

import os
import sys
from datetime import UTC, datetime, timedelta

from components.report.notify import tell
from wordmill.store.storage import Store

CLOCKS = timedelta(minutes=5)  # that those of two machines may differ by


def silence(store: Store, recipe: str, limit: timedelta, now: datetime) -> str:
    """Say for how long a recipe's nights have stayed out, "" where that is within the limit."""
    last = store.get_json(f"heartbeats/{recipe}.json")
    if last is None:
        return f"{recipe}: no night has ended well yet"
    age = now - datetime.fromisoformat(last["finished"])
    if age < -CLOCKS:
        return (
            f"{recipe}: its last night, {last['run_tag']}, ends in the future, {last['finished']}: set the clocks right"
        )
    if age <= limit:
        return ""
    return f"{recipe}: no night has ended well for {age.total_seconds() / 3600:.0f} h, the last was {last['run_tag']}"


def main() -> int:
    """Look at every recipe, tell the webhook; return 1 if one's nights stay out."""
    recipes = [name.strip() for name in os.environ.get("WORDMILL_NIGHTLY", "").split(",") if name.strip()]
    limit = timedelta(hours=int(os.environ["WORDMILL_SILENCE_H"]))
    store, now = Store.from_environment(), datetime.now(UTC)
    try:
        silences = [found for recipe in recipes if (found := silence(store, recipe, limit, now))]
    except RuntimeError as error:
        silences = [f"the heartbeats of {', '.join(recipes)} cannot be read: {error}"]
    for line in silences or [f"nights are in time: {', '.join(recipes) or 'none is watched'}"]:
        print(line, flush=True)
    address = os.environ.get("WORDMILL_WEBHOOK", "")
    if silences and address:
        print(tell(address, {"text": "\n".join(silences)}), flush=True)
    return 1 if silences else 0


if __name__ == "__main__":
    sys.exit(main())
