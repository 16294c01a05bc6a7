"""Real training stages whose S3 server is stopped while they run, and started again or not."""

import dataclasses
import json
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.components.train.killing import StageProcess, left_over
from tests.components.train.test_stage import combined_manifest
from tests.waiting import wait_until
from tests.wordmill.training.tiny import TRAIN
from wordmill.store.stages import RESUME
from wordmill.store.storage import Store
from wordmill.training.state import check_state

pytestmark = pytest.mark.slow

AWAY_S = 120.0
SHORT = "import components.train.mirror\ncomponents.train.mirror.AWAY_S = 8.0\n"  # what is ten minutes long otherwise
OFTEN = dataclasses.replace(TRAIN, epochs=100, checkpoint_minutes=0.01)
ENDLESS = dataclasses.replace(OFTEN, epochs=10_000)


class Server:
    """An S3 server that has, whenever it is started, what it was given before."""

    def __init__(self, folder: Path, port: int) -> None:
        self.port = port
        self.key, self.secret, self.folder = secrets.token_hex(10), secrets.token_hex(20), folder
        (folder / "bucket").mkdir(parents=True)
        self.start()

    def start(self) -> None:
        rclone, address = Path(sys.executable).with_name("rclone"), f"127.0.0.1:{self.port}"
        variables = {"RCLONE_AUTH_KEY": f'"{self.key},{self.secret}"', "RCLONE_CONFIG": os.devnull}
        self.process = subprocess.Popen(
            [rclone, "serve", "s3", "--addr", address, self.folder], env=os.environ | variables,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        wait_until(self.answers)

    def answers(self) -> bool:
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def server(tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server of the test's own, to which the environment leads."""
    server = Server(tmp_path / "s3", port)
    variables = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.port}", "AWS_ACCESS_KEY_ID": server.key,
        "AWS_SECRET_ACCESS_KEY": server.secret, "AWS_DEFAULT_REGION": "us-east-1", "WORDMILL_BUCKET": "bucket",
        "WORDMILL_CACHE": str(tmp_path / "cache"),
    }  # fmt: skip
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_SESSION_TOKEN", "AWS_PROFILE", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    yield server
    server.stop()


def stored(store: Store) -> int:
    """The step of the newest checkpoint in the store."""
    names = [Path(key).name for key in store.keys("checkpoints/") if key.endswith(".json")]
    return max((int(name.removeprefix("step-").removesuffix(".json")) for name in names), default=0)


def test_two_minutes_without_the_store_lose_nothing(server: Server, tmp_path: Path) -> None:
    store = Store.from_environment()
    process = StageProcess(store, combined_manifest(store, tmp_path), OFTEN, tmp_path)
    try:
        process.wait(lambda: process.steps() >= 20, "20 steps")
        server.stop()
        away, step = time.monotonic(), process.steps()
        process.wait(lambda: process.kept() > step + 10, "a checkpoint without the store")
        time.sleep(max(0.0, AWAY_S - (time.monotonic() - away)))
        assert process.process.poll() is None
        server.start()
        manifest = process.manifest()
    finally:
        process.stop()
    assert [attempt["step"] for attempt in manifest.facts["attempts"]] == [0]
    assert manifest.curves["val/loss"][-1][0] == 400
    assert store.fetch(manifest.object("model.safetensors")).stat().st_size > 0
    assert "the store" in process.printed()
    assert not list(store.keys("checkpoints/"))
    assert not process.run_folder().exists()


def test_uploads_catch_up_and_another_machine_goes_on(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.from_environment()
    shards = combined_manifest(store, tmp_path)
    process = StageProcess(store, shards, ENDLESS, tmp_path)
    try:
        process.wait(lambda: stored(store) > 0, "a stored checkpoint")
        server.stop()
        before = process.kept()
        process.wait(lambda: process.kept() >= before + 20, "checkpoints without the store")
        newest = process.kept()
        server.start()
        process.wait(lambda: stored(store) >= newest, "the checkpoints in the store")
        process.process.terminate()
        assert process.end() == RESUME, process.tail()
        kept, done = process.kept(), process.steps()
        assert kept == done == stored(store)
        monkeypatch.setenv("WORDMILL_CACHE", str(tmp_path / "other"))
        store = Store.from_environment()
        process = StageProcess(store, shards, ENDLESS, tmp_path)
        assert process.wait_for_attempt(None).step == done
    finally:
        process.stop()
    wait_until(lambda: not left_over(tmp_path / "cache") + left_over(tmp_path / "other"))


def test_without_the_store_for_good_training_stops_and_names_the_checkpoint_that_it_goes_on_from(
    server: Server, tmp_path: Path
) -> None:
    store = Store.from_environment()
    shards = combined_manifest(store, tmp_path)
    process = StageProcess(store, shards, ENDLESS, tmp_path, SHORT)
    try:
        process.wait(lambda: process.steps() >= 20, "20 steps")
        server.stop()
        assert process.end() == 1
        error = json.loads((tmp_path / "error.json").read_text())["error"]
        named = process.run_folder() / "checkpoints" / f"step-{process.steps():08}.json"
        assert "the store has been away" in error
        assert f"its last checkpoint is on this machine alone, {named}:" in error
        check_state(named)
        stopped, step = process.attempt(), process.steps()
        server.start()
        process.start()
        assert process.wait_for_attempt(stopped).step == step
    finally:
        process.stop()
