import gc
import importlib
import inspect
import os
import secrets
import subprocess
import sys
import time
import traceback
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import hypothesis
import pytest

from tests.memory import give_back
from tests.ports import held_port
from tests.waiting import LIMIT_S
from wordmill.store.storage import Store

# kfp, onnx and MindSpore share the test process: MindSpore cannot follow protobuf's C implementation. Processes started
# from here are as a user's: the servers and stages among them, to which the other one takes seconds to import.
os.environ["PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION"] = "python"
importlib.import_module("google.protobuf.internal.api_implementation")
del os.environ["PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION"]
# The threads of two test processes wait for each other on the same processors: asleep, they leave them to each other.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def stack(context: int = 1) -> list[inspect.FrameInfo]:
    """Return the call stack without what inspect looks for among all modules: each frame's source file and lines."""
    frames = [frame for frame, _ in traceback.walk_stack(sys._getframe(1))]
    return [inspect.FrameInfo(f, f.f_code.co_filename, f.f_lineno, f.f_code.co_name, None, None) for f in frames]


inspect.stack = stack  # kfp asks for it some hundred times a pipeline, and reads names alone

# A busy machine may take its time over any example.
hypothesis.settings.register_profile("busy", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("busy")


# The files that take longest come first: one of them at the end would have one processor wait for the other.
LONG = ("models/test_twins", "local/test_run_whole", "ms/test_train_processes", "training/test_curves",
        "smoke/test_stage", "models/test_twin_decoders", "pipelines/test_training", "pt/test_export",
        "models/test_convert", "training/test_twin_steps", "pt/test_predict", "ms/test_export", "train/test_stage",
        "gate/test_stage", "training/test_worker", "pt/test_train_resume", "inference/test_package")  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the files of tests, each of which stays whole."""
    place = {name: number for number, name in enumerate(LONG)}
    items.sort(key=lambda item: place.get("/".join(item.path.with_suffix("").parts[-2:]), len(LONG)))


@pytest.fixture(autouse=True, scope="module")
def _memory_given_back(request: pytest.FixtureRequest) -> Iterator[None]:
    """Give back what a module has taken; what was there before it is kept out of the garbage collector's way.

    Among all that hundreds of modules leave it takes seconds, at every graph that MindSpore builds and whenever many
    objects are made.
    """
    gc.freeze()
    yield
    if not {"ms", "torch"}.isdisjoint(vars(request.module)):
        gc.unfreeze()
    give_back()


@dataclass(frozen=True, kw_only=True)
class S3:
    """A running S3 server and the keys to it."""

    url: str
    key: str
    secret: str


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """A real S3 server (rclone) on the loopback address, for the whole session."""
    with serve_s3(tmp_path_factory.mktemp("s3"), "127.0.0.1") as server:
        yield server


@contextmanager
def serve_s3(folder: Path, host: str) -> Iterator[S3]:
    """Serve a folder as S3 on one of this machine's addresses."""
    with held_port(host) as port, _rclone(folder, f"{host}:{port}") as server:
        yield server


@contextmanager
def _rclone(folder: Path, address: str) -> Iterator[S3]:
    server = S3(url=f"http://{address}", key=secrets.token_hex(10), secret=secrets.token_hex(20))
    command = [str(Path(sys.executable).with_name("rclone")), "serve", "s3", "--addr", address, str(folder)]
    environment = os.environ | {"RCLONE_AUTH_KEY": f'"{server.key},{server.secret}"', "RCLONE_CONFIG": os.devnull}
    with (folder.parent / "rclone.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        _wait_until_it_answers(process, server.url)
        yield server
    finally:
        process.terminate()
        process.wait(timeout=LIMIT_S)


def _wait_until_it_answers(process: subprocess.Popen[bytes], url: str) -> None:
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        assert process.poll() is None, f"rclone ended with code {process.returncode}"
        try:
            urllib.request.urlopen(url, timeout=2).close()  # noqa: S310 (loopback)
        except urllib.error.HTTPError:
            return  # it answers, if only to refuse
        except OSError:
            time.sleep(0.05)
        else:
            return
    pytest.fail(f"rclone does not answer at {url} after {LIMIT_S:.0f} s")


@pytest.fixture
def port() -> Iterator[int]:
    """A port of the loopback address for a server of the test's own."""
    with held_port() as port:
        yield port


@pytest.fixture
def silent_address(port: int) -> str:
    """An address of this machine at which nothing answers."""
    return f"http://127.0.0.1:{port}"


@pytest.fixture
def store(s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """An empty bucket of the S3 server and an empty cache, reached through the environment as stages reach them."""
    variables = {
        "AWS_ENDPOINT_URL": s3.url,
        "AWS_ACCESS_KEY_ID": s3.key,
        "AWS_SECRET_ACCESS_KEY": s3.secret,
        "AWS_DEFAULT_REGION": "us-east-1",
        "WORDMILL_BUCKET": f"bucket-{secrets.token_hex(6)}",
        "WORDMILL_CACHE": str(tmp_path / "cache"),
    }
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    store = Store.from_environment()
    store.make_bucket()
    return store
