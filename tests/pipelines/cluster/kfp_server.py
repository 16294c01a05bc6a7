"""A Kubeflow Pipelines API server (v2beta1) in memory, on the loopback address, with the real one's failures."""

import json
import os
import re
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
import yaml
from kfp import Client
from kubernetes.config import kube_config

from pipelines.building import build_pipeline, compiled
from pipelines.cli import command_line
from pipelines.cluster import client
from pipelines.cluster.site import VALUES
from tests.pipelines.cluster.kfp_operations import answer
from tests.pipelines.cluster.kfp_state import KfpServer, RefusalError

ROOT = "/apis/v2beta1/"
BEHIND = "/api/v1/namespaces/kubeflow/services/ml-pipeline:http/proxy"  # of Kubernetes, which passes requests on
LOGIN = "<!doctype html><title>Log in</title>"


@contextmanager
def serving(server: KfpServer, tls: ssl.SSLContext | None = None) -> Iterator[KfpServer]:
    """Answer on the loopback address for the time of a `with` block."""
    handler = type("Bound", (Handler,), {"state": server})
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    if tls:
        http.socket = tls.wrap_socket(http.socket, server_side=True)
    threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    server.url = f"{'https' if tls else 'http'}://127.0.0.1:{http.server_port}"
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()


class Handler(BaseHTTPRequestHandler):
    state: KfpServer

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        place = address.path.removeprefix(BEHIND).removeprefix(ROOT)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.state.headers = dict(self.headers)
        self.state.requests.append(f"{self.command} {place}")
        if self.state.late and self.state.late[0] == f"{self.command} {place}":
            self.state.tables[self.state.late[1]] = self.state.late[2]
        fault = self._fault(f"{self.command} {place}")
        try:
            if fault.isdigit():
                raise RefusalError(int(fault), "the database is away")
            if self.state.kubernetes_token:
                self._pass_on(address.path)
            if self.state.token and self.headers.get("authorization") != f"Bearer {self.state.token}":
                raise RefusalError(401, "Request header error: there is no user identity header.")
            status, reply = 200, answer(self.state, self.command, place, dict(parse_qsl(address.query)), body)
        except RefusalError as error:
            status, reply = error.status, {"error": str(error), "code": 3, "message": str(error), "details": []}
            if place.startswith("pipelines/upload"):  # the one call that is no gRPC's
                reply = {"error_message": str(error), "error_details": f"Failed to upload: {error}"}
        if fault == "slow":
            with suppress(OSError):
                self.rfile.read(1)  # nothing comes until the client has given up
            return
        if fault == "lost":
            self.close_connection = True
            return
        self._send(status, LOGIN if fault == "page" else json.dumps(reply))

    do_POST = do_DELETE = do_GET  # noqa: N815 (the base class's names)

    def _pass_on(self, path: str) -> None:
        """Do as Kubernetes does: know the caller by the token, pass the request on to the service without it."""
        if self.headers.get("authorization") != f"Bearer {self.state.kubernetes_token}":
            raise RefusalError(401, "Unauthorized")
        if not path.startswith(BEHIND):
            raise RefusalError(404, "the server could not find the requested resource")
        del self.headers["authorization"]

    def _fault(self, request: str) -> str:
        for fault in self.state.faults:
            if re.fullmatch(fault[1], request):
                self.state.faults.remove(fault)
                return fault[0]
        return ""

    def _send(self, status: int, text: str) -> None:
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(text.encode())
        except OSError:
            return  # the client has given up

    def log_message(self, format: str, *arguments: Any) -> None:
        return


@pytest.fixture
def kfp(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[KfpServer]:
    """A server that the environment names, asked again soon, without the home folder and without a Kubernetes."""
    for name in [name for name in os.environ if name.startswith(("KFP_", "KF_PIPELINES_", "KUBE"))]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "no kubeconfig"))
    monkeypatch.setattr(Client, "_LOCAL_KFP_CONTEXT", str(tmp_path / "kfp" / "context.json"))
    monkeypatch.setattr(client, "PAUSE_S", 0.01)
    with serving(KfpServer()) as server:
        monkeypatch.setenv("KF_PIPELINES_ENDPOINT", server.url)
        yield server


def standalone(folder: Path) -> Path:
    """Return the repository's values, as a site with a standalone Kubeflow has them."""
    values = yaml.safe_load(VALUES.read_text(encoding="utf-8"))
    values["spec"]["kubeflow"]["mode"], values["spec"]["namespace"] = "standalone", "kubeflow"
    (folder / "standalone.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    return folder / "standalone.yaml"


@pytest.fixture(scope="session")
def spec() -> str:
    """The compiled quickstart pipeline."""
    return compiled(build_pipeline(command_line().parse_args(["submit", "quickstart"]))[1])
