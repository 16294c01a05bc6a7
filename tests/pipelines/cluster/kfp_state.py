"""What a Kubeflow Pipelines API server in memory holds, and how it is told to fail."""

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

FINISHED = {"SUCCEEDED", "SKIPPED", "FAILED", "CANCELED"}


class RefusalError(Exception):
    """What the server answers instead of data."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class KfpServer:
    """The state of the server; tests read and change it directly. Entries are JSON documents by id."""

    token: str = ""  # "": anybody may come in
    kubernetes_token: str = ""  # with one, the server is only to be reached through Kubernetes
    multi_user: bool = True
    version: str = "2.17.0"  # "": of a server that does not say
    page_limit: int = 100  # entries in a page, whatever the client asks for
    # (what happens, where): once, on the first request whose "METHOD path" the pattern matches. What happens is a
    # status, `slow` (no answer in time), `lost` (done, but the connection breaks) or `page` (a login page).
    faults: list[tuple[str, str]] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    tables: dict[str, dict[str, dict]] = field(
        default_factory=lambda: {name: {} for name in ("pipelines", "versions", "experiments", "runs", "recurringruns")}
    )
    killed: list[str] = field(default_factory=list)  # runs that went with their schedule
    on_run: Callable[[str], None] = lambda run_id: None  # what a run that has begun does elsewhere
    play: Callable[[], None] = lambda: None  # what has happened since, whenever somebody asks for a run
    story: list[dict] = field(default_factory=list)  # what a run becomes each time that somebody asks for it
    # (request, kind, entries): what another process has made when that request arrives.
    late: tuple[str, str, dict[str, dict]] | None = None
    headers: dict[str, str] = field(default_factory=dict)  # of the last request
    url: str = ""

    def made(self, kind: str) -> list[dict]:
        """Return all entries of a kind, the oldest first."""
        return list(self.tables[kind].values())

    def tick(self, recurring_run_id: str, state: str = "RUNNING") -> dict:
        """Let a schedule start a run, as the cluster's scheduler does."""
        parent = self.tables["recurringruns"][recurring_run_id]
        keys = ("experiment_id", "pipeline_version_reference")
        body = {"display_name": f"{parent['display_name']}-1", **{key: parent[key] for key in keys}}
        run = self.add("runs", "run_id", {**body, "recurring_run_id": recurring_run_id, "state": state})
        # {{workflow.uid}} is replaced all over the workflow that runs, and stays as it is in what the server keeps.
        run["runtime_config"] = parent["runtime_config"]
        return run

    def add(self, kind: str, id_field: str, document: dict) -> dict:
        """Store an entry under a new id, with the time."""
        entry = {**document, id_field: str(uuid.uuid4()), "created_at": now()}
        self.tables[kind][entry[id_field]] = entry
        return entry

    def get(self, kind: str, name: str) -> dict:
        if name not in self.tables[kind]:
            raise RefusalError(404, f"ResourceNotFoundError: {kind} {name} not found.")
        return self.tables[kind][name]


def now(ago: timedelta = timedelta()) -> str:
    return (datetime.now(UTC) - ago).isoformat()
