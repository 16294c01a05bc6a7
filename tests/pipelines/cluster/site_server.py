"""The other servers of a site, in memory on one loopback port: Kubernetes, MLflow and a registry of images."""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from pipelines.images.references import NAMES

ACCOUNT = "system:serviceaccount:wordmill:wordmill-stage"
NAMESPACE = "/api/v1/namespaces/wordmill"
ARGO = "/api/v1/namespaces/kubeflow/configmaps/workflow-controller-configmap"
STOCK = "spec: {templateDefaults: {retryStrategy: {limit: 2, retryPolicy: OnError}}}"  # as Kubeflow 2.17 sets it
REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


def node(labels: dict[str, str], **devices: str) -> dict:
    """Return a node; `nvidia_com__gpu` is the resource nvidia.com/gpu."""
    offered = {name.replace("__", "/").replace("_", "."): count for name, count in devices.items()}
    return {
        "metadata": {"name": "n", "labels": labels},
        "status": {"allocatable": {"cpu": "191500m", "memory": "1Ti", **offered}},
    }


def documents() -> dict[str, Any]:
    """Return what a healthy site answers, by path; a number is the status of a refusal."""
    keys = {"access_key": base64.b64encode(b"key").decode(), "secret_key": base64.b64encode(b"secret").decode()}
    ascend = {"accelerator-type": "module-910b-8"}
    return {
        "/version/": {"major": "1", "minor": "33", "gitVersion": "v1.33.1", "gitCommit": "", "gitTreeState": "",
                      "buildDate": "", "goVersion": "", "compiler": "", "platform": ""},
        "/api/v1/namespaces/kubeflow/services/ml-pipeline": {"metadata": {"name": "ml-pipeline"}},
        NAMESPACE: {"metadata": {"name": "wordmill"}},
        f"{NAMESPACE}/configmaps/wordmill-settings": {"data": {}},
        f"{NAMESPACE}/secrets/wordmill-s3": {"data": keys},
        f"{NAMESPACE}/configmaps/kfp-launcher": {"data": {}},
        f"{NAMESPACE}/secrets/mlpipeline-minio-artifact": {"data": keys},
        f"{NAMESPACE}/serviceaccounts/wordmill-stage": {"metadata": {}},
        f"{NAMESPACE}/persistentvolumeclaims/wordmill-cache": {"status": {"phase": "Bound"}},
        "/api/v1/nodes": {"items": [node({}, nvidia_com__gpu="4"), node({}),
                                    node(ascend, huawei_com__Ascend910="8"),
                                    node(ascend, huawei_com__Ascend910="8")]},
        "/apis/scheduling.volcano.sh/v1beta1/queues/wordmill": {"status": {"state": "Open"}},
        ARGO: {"data": {"workflowDefaults": STOCK}},
        "/mlflow/version": "3.17.2",
        **{f"/v2/team/{name}/manifests/1.2": {} for name in NAMES},
    }  # fmt: skip


@dataclass
class SiteServer:
    """The state of the servers; tests change it directly."""

    answers: dict[str, Any] = field(default_factory=documents)
    denied: set[tuple[str, str]] = field(default_factory=set)  # (verb, resource or resource/subresource)
    asked: list[dict] = field(default_factory=list)  # what the stages' account was asked about
    impersonation: bool = True
    address: str = ""

    def review(self, user: str, body: dict) -> Any:
        """Answer a SelfSubjectAccessReview in the name of `user`."""
        if user != ACCOUNT or not self.impersonation:
            return 403
        about = body["spec"]["resourceAttributes"]
        self.asked.append(about)
        resource = "/".join(filter(None, (about["resource"], about.get("subresource"))))
        return {"spec": body["spec"], "status": {"allowed": (about["verb"], resource) not in self.denied}}


@contextmanager
def serving_site(server: SiteServer) -> Iterator[SiteServer]:
    """Answer on the loopback address for the time of a `with` block."""
    handler = type("Bound", (Handler,), {"state": server})
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    server.address = f"127.0.0.1:{http.server_port}"
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()


class Handler(BaseHTTPRequestHandler):
    state: SiteServer

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path == REVIEWS:
            reply = self.state.review(self.headers.get("Impersonate-User") or "", json.loads(body))
        else:
            reply = self.state.answers.get(self.path, 404)
        self.send_response(reply if isinstance(reply, int) else 200)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write((reply if isinstance(reply, str) else json.dumps(reply)).encode())

    do_POST = do_HEAD = do_GET  # noqa: N815 (the base class's names)

    def log_message(self, format: str, *arguments: Any) -> None:
        return
