"""A real MLflow server for tests: SQLite or PostgreSQL, artifacts in the tests' S3 server, on the loopback address."""

import atexit
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import suppress
from functools import cache
from pathlib import Path

import pytest

from tests.ports import held_port
from tests.waiting import LIMIT_S
from wordmill.store.storage import Store

BUCKET = "mlflow"


@cache
def start(endpoint: str, database: str = "") -> str:
    """Start the server once per test process and return its address; it ends with the process.

    endpoint: address of the S3 server; database: address of PostgreSQL, none for an SQLite file.
    """
    folder = Path(tempfile.mkdtemp(prefix="wordmill-mlflow-"))
    Store(BUCKET, folder).make_bucket()
    with held_port() as port:
        return start_at(port, endpoint, database, folder)


def start_at(port: int, endpoint: str, database: str, folder: Path) -> str:
    """Start the server at a port and return its address once it answers."""
    uri = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port),
               "--workers", "1", "--serve-artifacts", "--artifacts-destination", f"s3://{BUCKET}/artifacts",
               "--backend-store-uri", database or f"sqlite:///{folder / 'mlflow.db'}"]  # fmt: skip
    # Without the last one the server starts ten processes for jobs that nobody sends.
    variables = {"MLFLOW_S3_ENDPOINT_URL": endpoint, "MLFLOW_DISABLE_TELEMETRY": "true",
                 "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # fmt: skip
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")} | variables
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, env=environment, cwd=folder, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    atexit.register(stop, process, folder)
    wait_until_it_answers(uri, process, folder / "log")
    return uri


def stop(process: subprocess.Popen[bytes], folder: Path) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    shutil.rmtree(folder)


def wait_until_it_answers(uri: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + LIMIT_S
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(OSError), urllib.request.urlopen(f"{uri}/health", timeout=2):  # noqa: S310
            return
        time.sleep(0.1)
    raise RuntimeError(f"MLflow does not answer at {uri}:\n{log.read_text()[-2000:]}")


@pytest.fixture
def mlflow_uri(store: Store, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of the server, which MLFLOW_TRACKING_URI names during the test."""
    uri = start(store.endpoint)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    return uri
