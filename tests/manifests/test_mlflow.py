"""MLflow and its garbage collection started with the very commands and variables that the manifests give them."""

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.manifests.rendered import templates, variables
from tests.manifests.test_mlflow_postgres import postgres  # noqa: F401 (a fixture)
from wordmill.store.storage import Store

pytestmark = pytest.mark.slow
API = "/api/2.0/mlflow/experiments/search?max_results=1"


@dataclass(frozen=True, kw_only=True)
class Pod:
    """A container's command and variables, with what this machine has in place of the cluster's."""

    command: list[str]
    environment: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Server:
    address: str
    store: Store
    database: str


def pod(name: str, port: int, store: Store, database: str) -> Pod:
    (container,) = templates("local")[name]["spec"]["containers"]
    address = database.replace("postgresql://wordmill@", "postgresql+psycopg2://")
    here = {
        ("wordmill-settings", "s3_endpoint"): store.endpoint,
        ("wordmill-settings", "region"): "us-east-1",
        ("wordmill-settings", "mlflow"): f"http://127.0.0.1:{port}",
        ("wordmill-s3", "access_key"): os.environ["AWS_ACCESS_KEY_ID"],
        ("wordmill-s3", "secret_key"): os.environ["AWS_SECRET_ACCESS_KEY"],
        ("wordmill-database", "user"): "wordmill",
        ("wordmill-database", "password"): "none is needed here",
    }
    environment = {"PATH": os.environ["PATH"]}
    for key, entry in variables(container).items():
        if "value" in entry:
            environment[key] = entry["value"].replace("postgresql+psycopg2://wordmill-postgres:5432/mlflow", address)
        else:
            ((_, reference),) = entry["valueFrom"].items()
            environment[key] = here[reference["name"], reference["key"]]
    environment["MLFLOW_ARTIFACTS_DESTINATION"] = f"s3://{store.bucket}/mlflow"
    command = [*container["command"], *container.get("args", [])]
    for key, value in environment.items():
        command = [part.replace(f"$({key})", value) for part in command]  # as Kubernetes does
    command = [part.replace("0.0.0.0", "127.0.0.1").replace("=5000", f"={port}") for part in command]  # noqa: S104
    return Pod(command=[sys.executable, *command[1:]], environment=environment)


@pytest.fixture
def server(store: Store, postgres: str, tmp_path: Path, port: int) -> Iterator[Server]:  # noqa: F811 (the fixture)
    start = pod("wordmill-mlflow", port, store, postgres)
    start.environment["MLFLOW_SERVER_ALLOWED_HOSTS"] += f",127.0.0.1:{port}"  # for this test's own client
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(start.command, env=start.environment, stdout=log, stderr=log, cwd=tmp_path)
    try:
        deadline = time.monotonic() + 300  # the startup probe's
        while (state := status(f"http://127.0.0.1:{port}/health", "10.0.0.7:5000")) != 200:
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline, state
            time.sleep(0.2)
        yield Server(address=f"http://127.0.0.1:{port}", store=store, database=postgres)
    finally:
        process.terminate()
        process.wait()


def status(address: str, host: str) -> int:
    """Return the status of an answer to a request under a name, 0 for none."""
    request = urllib.request.Request(address, headers={"Host": host})  # noqa: S310 (loopback)
    with suppress(urllib.error.URLError):
        try:
            with urllib.request.urlopen(request, timeout=10) as reply:  # noqa: S310 (as above)
                return int(reply.status)
        except urllib.error.HTTPError as error:
            return error.code
    return 0


def test_the_server_answers_to_its_own_names_and_the_collector_removes_what_was_deleted(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("wordmill-mlflow:5000", "wordmill-mlflow.wordmill.svc.cluster.local:5000", "localhost:5000")
    assert [status(server.address + API, name) for name in names] == [200, 200, 200]
    assert status(server.address + API, "rebound.example.com") == 403

    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.address)
    client = MlflowClient(server.address)
    experiment = client.create_experiment("letters")
    kept, deleted = (client.create_run(experiment).info.run_id for _ in range(2))
    (tmp_path / "page.html").write_text("<p>")
    for run in (kept, deleted):
        client.log_artifact(run, str(tmp_path / "page.html"))
    assert len(list(server.store.keys("mlflow/"))) == 2
    client.delete_run(deleted)

    collect = pod("wordmill-mlflow-gc", int(server.address.rpartition(":")[2]), server.store, server.database)
    assert "--older-than=30d" in collect.command
    subprocess.run(collect.command, env=collect.environment, cwd=tmp_path, check=True)
    assert client.get_run(deleted).info.lifecycle_stage == "deleted"  # it is younger than that
    command = [part.replace("30d", "0d") for part in collect.command]
    subprocess.run(command, env=collect.environment, cwd=tmp_path, check=True)
    assert [run.info.run_id for run in client.search_runs([experiment], run_view_type=3)] == [kept]
    assert list(server.store.keys("mlflow/")) == [f"mlflow/{experiment}/{kept}/artifacts/page.html"]
