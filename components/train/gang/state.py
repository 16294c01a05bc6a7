"""What Kubernetes says about a job of several nodes, in words."""

from dataclasses import dataclass

from components.train.gang.manifests import Document

ENDED = ("Completed", "Failed", "Aborted", "Terminated")  # Volcano's last phases


@dataclass(frozen=True, kw_only=True)
class JobState:
    """Where a job stands: in words, whether it has ended, and whether it is being deleted."""

    text: str
    ended: bool
    leaving: bool


def job_state(job: Document) -> JobState:
    """Return the state of an AscendJob, by its latest condition, or of a Volcano Job, by its phase."""
    status = job.get("status") or {}
    if job["kind"] == "AscendJob":
        latest = (status.get("conditions") or [{}])[-1]
        now, parts = latest.get("type", ""), (latest.get("reason"), latest.get("message"))
        ended = now in ("Succeeded", "Failed")  # Restarting is on its way
    else:
        state = status.get("state") or {}
        now, parts = state.get("phase", ""), (state.get("reason"), state.get("message"))
        ended = now in ENDED
    text = ": ".join([now or "waits for its controller", *dict.fromkeys(part for part in parts if part)])
    return JobState(text=text, ended=ended, leaving="deletionTimestamp" in job["metadata"])
