"""A real MLflow server for tests: SQLite, artifacts in the tests' S3 server, on the loopback address."""

import atexit
import os
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

from components.recognition.frameworks import free_port
from components.recognition.storage import Store

START_TIMEOUT_S = 120


@cache
def start(bucket: str, endpoint: str) -> str:
    """Start the server once per test process and return its address; it ends with the process."""
    folder = Path(tempfile.mkdtemp(prefix="wordmill-mlflow-"))
    uri = f"http://127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", uri.rpartition(":")[2],
               "--workers", "1", "--serve-artifacts", "--artifacts-destination", f"s3://{bucket}/mlflow",
               "--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"]  # fmt: skip
    variables = {"MLFLOW_S3_ENDPOINT_URL": endpoint, "MLFLOW_DISABLE_TELEMETRY": "true"}
    log = (folder / "log").open("wb")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")} | variables
    process = subprocess.Popen(
        command, env=environment, cwd=folder, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
    )
    atexit.register(stop, process)
    wait_until_it_answers(uri, process, folder / "log")
    return uri


def stop(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def wait_until_it_answers(uri: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(OSError), urllib.request.urlopen(f"{uri}/health", timeout=2):
            return
        time.sleep(0.1)
    raise RuntimeError(f"MLflow does not answer at {uri}:\n{log.read_text()[-2000:]}")


@pytest.fixture
def mlflow_uri(store: Store, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of the server, which MLFLOW_TRACKING_URI names during the test."""
    uri = start(store.bucket, store.endpoint)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    return uri
