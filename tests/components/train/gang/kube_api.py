"""A Kubernetes API server in memory, on the loopback address: REST paths, Status objects, rights, and what goes wrong.

It answers the real client over HTTP. Who may do what is read from the manifests' roles; new jobs go through the schemas
of their kinds. Controllers are played by `steps`, one of which is taken whenever the job is read.
"""

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import jsonschema
import yaml

from tests.manifests.rendered import ROOT
from tests.manifests.test_schemas import check

Document = dict[str, Any]
REASONS = {
    400: "BadRequest", 401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 409: "AlreadyExists", 410: "Expired",
    422: "Invalid", 429: "TooManyRequests", 500: "InternalError", 503: "ServiceUnavailable",
}  # fmt: skip
GROUPS = {
    "batch": ("v1", "jobs"), "mindxdl.gitee.com": ("v1", "ascendjobs"), "batch.volcano.sh": ("v1alpha1", "jobs"),
    "argoproj.io": ("v1alpha1", "workflows"),
}  # fmt: skip
CORE = re.compile(r"/api/v1/namespaces/([^/]+)/(pods|events)(?:/([^/]+))?(?:/(log))?")
CUSTOM = re.compile(r"/apis/([^/]+)/([^/]+)(?:/namespaces/([^/]+)/([^/]+)(?:/([^/]+))?)?")


class RefusalError(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def granted() -> set[tuple[str, str, str]]:
    """Return (group, resource, verb) that the manifests give to a stage."""
    files = [ROOT / "base" / "accounts.yaml", *sorted((ROOT / "components").glob("*/rights.yaml"))]
    roles = [
        item for path in files for item in yaml.load_all(path.read_text(), yaml.CSafeLoader) if item["kind"] == "Role"
    ]
    return {
        (group, resource, verb)
        for role in roles
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


@dataclass
class Cluster:
    """What the server holds. `faults` are (status or "lost", pattern of "VERB path"), each for one request."""

    installed: tuple[str, ...] = ("batch", "batch.volcano.sh", "argoproj.io")
    rights: set[tuple[str, str, str]] = field(default_factory=granted)
    jobs: dict[str, Document] = field(default_factory=dict)
    workflows: dict[str, Document] = field(default_factory=dict)
    pods: dict[str, Document] = field(default_factory=dict)
    nodes: list[Document] = field(default_factory=list)  # none: they may not be read
    events: list[Document] = field(default_factory=list)
    logs: dict[str, list[tuple[float, str]]] = field(default_factory=dict)
    refused_logs: dict[str, str] = field(default_factory=dict)  # by pod: what the kubelet says instead, with code 200
    steps: list[Callable[["Cluster"], None]] = field(default_factory=list)
    faults: list[tuple[str, str]] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    made: list[Document] = field(default_factory=list)
    errors: list[Exception] = field(default_factory=list)  # of steps and checks here, not of the client
    refused: tuple[int, str] | None = None  # code and message of a plugin that admits no job
    lingers: int = 0  # how often a deleted job is still found

    def job(self) -> Document:
        return next(iter(self.jobs.values()))

    def phase(self, phase: str, message: str = "") -> None:
        """Set the state of the Volcano job."""
        self.job()["status"] = {"state": {"phase": phase, "message": message}}

    def add_pod(self, name: str, phase: str, job: str = "", **status: Any) -> None:
        job = job or next(iter(self.jobs))
        known = self.jobs.get(job, {"kind": "", "apiVersion": "", "metadata": {"name": "", "uid": ""}})
        owner = {key: known[key] for key in ("kind", "apiVersion")} | {
            key: known["metadata"][key] for key in ("name", "uid")
        }
        before = self.pods.get(name, {"metadata": {"creationTimestamp": stamp(1e9 + len(self.pods))}})
        self.pods[name] = {
            "metadata": {
                "name": name,
                "uid": f"uid-{name}",
                "labels": {"app.kubernetes.io/instance": job},
                "ownerReferences": [owner],
                "creationTimestamp": before["metadata"]["creationTimestamp"],
            },
            "spec": {"nodeName": "machine-1", "containers": [{"name": "ascend"}]},
            "status": {"phase": phase, **status},
        }

    def warn(self, kind: str, name: str, reason: str, message: str, mood: str = "Warning") -> None:
        self.events.append({"metadata": {"name": f"e{len(self.events)}"}, "type": mood, "reason": reason,
                            "involvedObject": {"kind": kind, "name": name}, "message": message})  # fmt: skip

    def print(self, pod: str, line: str) -> None:
        self.logs.setdefault(pod, []).append((time.time(), line))

    def answer(self, verb: str, path: str, query: dict[str, str], body: bytes) -> Any:
        if match := CORE.fullmatch(path):
            return self._core(verb, *match.groups(), query)
        if path == "/api/v1/nodes" and self.nodes:
            return {"kind": "NodeList", "apiVersion": "v1", "metadata": {}, "items": self.nodes}
        match = CUSTOM.fullmatch(path)
        if match is None or match[1] not in self.installed or GROUPS[match[1]][0] != match[2]:
            raise RefusalError(404, "the server could not find the requested resource")
        if match[3] is None:
            return {"kind": "APIResourceList", "groupVersion": f"{match[1]}/{match[2]}", "resources": []}
        return self._custom(verb, match[1], match[4], match[5], body, query)

    def _may(self, group: str, resource: str, verb: str) -> None:
        if (group, resource, verb) not in self.rights:
            raise RefusalError(403, f'cannot {verb} resource "{resource}" in API group "{group}"')

    def _core(self, verb: str, space: str, kind: str, name: str | None, log: str | None, query: dict[str, str]) -> Any:
        assert space == "wordmill"
        asked = {"GET": "get" if name else "list", "DELETE": "delete"}[verb]
        self._may("", "pods/log" if log else kind, asked)
        if kind == "events":
            return {"kind": "EventList", "apiVersion": "v1", "metadata": {}, "items": self._events(query)}
        if name is None:
            return {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": _labelled(self.pods, query)}
        if name not in self.pods:
            raise RefusalError(404, f'pods "{name}" not found')
        if verb == "DELETE":
            return self.pods.pop(name)
        return self._log(name, query) if log else self.pods[name]

    def _events(self, query: dict[str, str]) -> list[Document]:
        what, _, value = query["fieldSelector"].partition("=")
        owner, _, key = what.rpartition(".")
        return [event for event in self.events if (event[owner] if owner else event)[key] == value]

    def _log(self, name: str, query: dict[str, str]) -> str:
        assert (query["container"], query["timestamps"]) == ("ascend", "True")
        if name in self.refused_logs:
            return self.refused_logs[name]
        since = time.time() - int(query["sinceSeconds"]) if "sinceSeconds" in query else 0.0
        lines = [(moment, line) for moment, line in self.logs.get(name, []) if moment >= since]
        return "".join(f"{stamp(moment)} {line}\n" for moment, line in lines)

    def _custom(self, verb: str, group: str, kind: str, name: str | None, body: bytes, query: dict[str, str]) -> Any:
        assert kind == GROUPS[group][1]
        asked = {"GET": "get" if name else "list", "POST": "create", "DELETE": "delete"}[verb]
        self._may(group, kind, asked)
        if kind == "workflows":
            return self.workflows[name] if name else {"items": _labelled(self.workflows, query)}
        if name is None and verb == "GET":
            return {"items": _labelled(self.jobs, query) if "labelSelector" in query else list(self.jobs.values())}
        if verb == "POST":
            return self._create(json.loads(body))
        if name not in self.jobs:
            raise RefusalError(404, f'{kind} "{name}" not found')
        if verb == "DELETE":
            return self._delete(str(name))
        if "deletionTimestamp" in self.job()["metadata"]:
            self.lingers -= 1
            if self.lingers < 0:
                del self.jobs[str(name)]
                raise RefusalError(404, f'{kind} "{name}" not found')
        elif self.steps:
            self.steps.pop(0)(self)
        if not self.jobs:
            raise RefusalError(404, f'{kind} "{name}" not found')
        return self.job()

    def _create(self, job: Document) -> Document:
        name = job["metadata"]["name"]
        if self.refused:
            raise RefusalError(*self.refused)
        if name in self.jobs:
            raise RefusalError(409, f'jobs "{name}" already exists')
        try:
            check(job, "1.37")
        except jsonschema.ValidationError as error:
            raise RefusalError(422, error.message) from None
        self.made.append(job)
        self.jobs[name] = job | {"metadata": job["metadata"] | {"uid": f"job-{len(self.made)}"}}
        return job

    def _delete(self, name: str) -> Document:
        if self.lingers:
            self.jobs[name]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        else:
            del self.jobs[name]
            self.pods = {key: pod for key, pod in self.pods.items() if name not in pod["metadata"]["labels"].values()}
        return {"kind": "Status", "status": "Success"}


def _labelled(entries: dict[str, Document], query: dict[str, str]) -> list[Document]:
    label, _, value = query["labelSelector"].partition("=")
    return [entry for entry in entries.values() if entry["metadata"]["labels"].get(label) == value]


def stamp(moment: float) -> str:
    """Return a time as the kubelet writes it before a line, with nine digits of the second."""
    whole, part = divmod(round(moment * 1e9), 10**9)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{part:09}Z"


class Handler(BaseHTTPRequestHandler):
    cluster: Cluster

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        request = f"{self.command} {unquote(address.path)}"
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.cluster.requests.append(request)
        fault = next((fault for fault in self.cluster.faults if re.search(fault[1], request)), None)
        try:
            if fault:
                self.cluster.faults.remove(fault)
                if fault[0] == "lost before":
                    self.close_connection = True
                    return
                if fault[0].isdigit():
                    raise RefusalError(int(fault[0]), "for a test")
            status, reply = 200, self.cluster.answer(self.command, address.path, dict(parse_qsl(address.query)), body)
        except Exception as error:
            if not isinstance(error, RefusalError):
                self.cluster.errors.append(error)
            status = error.status if isinstance(error, RefusalError) else 422
            reply = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": REASONS[status],
                     "message": str(error), "code": status}  # fmt: skip
        if fault and fault[0] == "lost after":
            self.close_connection = True
            return
        self._send(status, reply)

    do_POST = do_DELETE = do_GET  # noqa: N815 (the base class's names)

    def _send(self, status: int, reply: Any) -> None:
        data = reply.encode() if isinstance(reply, str) else json.dumps(reply).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain" if isinstance(reply, str) else "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@contextmanager
def serving(cluster: Cluster, folder: Path) -> Iterator[Path]:
    """Answer for the time of a `with` block; gives the file for KUBECONFIG."""
    http = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"cluster": cluster}))
    threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    file = folder / "kubeconfig.yaml"
    file.write_text(yaml.safe_dump({
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        "clusters": [{"name": "test", "cluster": {"server": f"http://127.0.0.1:{http.server_port}"}}],
        "users": [{"name": "test", "user": {"token": "secret"}}],
    }))  # fmt: skip
    try:
        yield file
    finally:
        http.shutdown()
        http.server_close()
    assert cluster.errors == []
