"""The end of a night: the heartbeat, what the next night compares with, and a line to the team's webhook."""

import json
import os
import time
import urllib.request
from typing import Any
from urllib.parse import urlsplit

from wordmill.store.runs import beat, keep_night
from wordmill.store.storage import Store

ATTEMPTS, PAUSE_S, TIMEOUT_S = 3, 2.0, 10


def close_night(store: Store, summary: dict[str, Any]) -> str:
    """Record a night's end and tell the webhook; return what became of the message, never fail for it."""
    outcome = outcome_of(summary)
    if summary["ok"]:
        if summary["fresh"] and summary["fresh"]["changed"]:
            keep_night(store, summary["recipe"], summary["run_tag"], summary["fresh"]["parts"])
        beat(store, summary["recipe"], summary["run_tag"], outcome)
    address = os.environ.get("WORDMILL_WEBHOOK", "")
    return tell(address, message(store, summary, outcome)) if address else "no webhook is set"


def outcome_of(summary: dict[str, Any]) -> str:
    """Return stopped, failed, nothing new, or what the gate did: promoted, refused, kept."""
    if summary["stopped"]:
        return "stopped"
    if not summary["ok"]:
        return "failed"
    if summary["fresh"] and not summary["fresh"]["changed"]:
        return "nothing new"
    return str(summary["gate"]["outcome"])


def message(store: Store, summary: dict[str, Any], outcome: str) -> dict[str, Any]:
    """Return a night as JSON; chat services show its `text`, programs read the rest."""
    mean = summary["mean_accuracy"]
    moved = [f"moved: {words}" for words in (summary["drift"] or {}).get("moved", [])]
    details = summary["errors"] or [*(summary["gate"] or {}).get("reasons", []), *moved]
    accuracy = "" if mean is None else f", mean accuracy {100 * mean:.2f} %"
    return {"text": f"{summary['recipe']}: {outcome}{accuracy}{': ' if details else ''}{'; '.join(details)}",
            "recipe": summary["recipe"], "run_tag": summary["run_tag"], "outcome": outcome, "mean_accuracy": mean,
            "report": f"s3://{store.bucket}/{summary['report']}", "mlflow": summary["mlflow"]["url"]}  # fmt: skip


def tell(address: str, document: dict[str, Any]) -> str:
    """Post JSON, several times where nobody answers; return what became of it."""
    if urlsplit(address).scheme not in ("http", "https"):
        return "not told: WORDMILL_WEBHOOK is no http or https address"
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(address, json.dumps(document).encode(), headers)  # noqa: S310 (checked above)
    error = ""
    for attempt in range(ATTEMPTS):
        time.sleep(PAUSE_S * attempt)
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S):  # noqa: S310 (as above)
                return "told"
        except OSError as found:  # refusals by HTTP are one, too
            error = str(found)
    return f"not told: {error}"  # without the address, which often is a secret
