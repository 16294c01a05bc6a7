"""What Kubernetes says about a job, in words."""

from dataclasses import dataclass

from components.train.gang.manifests import Document
from wordmill.store.pods import ASCEND, BATCH, VOLCANO

# The last states of each kind of job, by its API group; others are on their way there.
ENDED = {BATCH[0]: ("Complete", "Failed"), ASCEND[0]: ("Succeeded", "Failed"),
         VOLCANO[0]: ("Completed", "Failed", "Aborted", "Terminated")}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class JobState:
    """Where a job stands: in words, whether it has ended, and whether it is being deleted."""

    text: str
    ended: bool
    leaving: bool


def job_state(job: Document) -> JobState:
    """Return the state of a Volcano Job by its phase, of other jobs by their latest condition."""
    group, status = job["apiVersion"].partition("/")[0], job.get("status") or {}
    if group == VOLCANO[0]:
        state = status.get("state") or {}
        now = state.get("phase", "")
    else:
        held = [one for one in status.get("conditions") or [] if one.get("status") != "False"]
        state = held[-1] if held else {}
        now = state.get("type", "") or pods_text(status)
    parts = (state.get("reason"), state.get("message"))
    text = ": ".join([now or "waits for its controller", *dict.fromkeys(part for part in parts if part)])
    return JobState(text=text, ended=now in ENDED[group], leaving="deletionTimestamp" in job["metadata"])


def pods_text(status: Document) -> str:
    """Return what Kubernetes's own Job says of its pods while it has no condition, "" where it has not begun."""
    told = (f"{status[name]} {name}" for name in ("active", "terminating", "failed") if status.get(name))
    return ", ".join(told) or ("no pod now" if status.get("startTime") else "")
