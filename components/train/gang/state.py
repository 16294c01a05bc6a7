"""What Kubernetes says about a job of several nodes, in words."""

from dataclasses import dataclass
from typing import Any

from components.train.gang.manifests import Document

ENDED = ("Completed", "Failed", "Aborted", "Terminated")  # Volcano's last phases
QUIET = ("ContainerCreating", "PodInitializing")  # what every pod waits for at first


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


def pod_text(pod: Any) -> str:
    """Return in one line what a pod (V1Pod) does or waits for, or why it ended."""
    status = pod.status
    for container in status.container_statuses or []:
        state = container.state
        if state.terminated:
            why = "OOMKilled: it needs more memory than its limit" if state.terminated.reason == "OOMKilled" else ""
            return why or f"ended with code {state.terminated.exit_code}"
        if state.waiting and state.waiting.reason not in QUIET:
            return _joined(state.waiting)
    if status.reason:  # Evicted, DeadlineExceeded
        return _joined(status)
    for condition in status.conditions or []:
        if condition.type == "PodScheduled" and condition.status == "False":
            return f"Pending: {_joined(condition)}"
    return f"{status.phase} on {pod.spec.node_name}" if pod.spec.node_name else str(status.phase)


def _joined(told: Any) -> str:
    """Return a reason and a message as one line."""
    return " ".join(f"{told.reason}: {told.message}".split()) if told.message else str(told.reason)
