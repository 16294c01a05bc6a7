"""The embedded servers where starting them goes wrong: nothing is left running, and nobody else is ended."""

import json
import multiprocessing
import os
import random
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest

from pipelines.local import services
from tests.pipelines.local.test_services import OUTSIDE
from tests.waiting import LIMIT_S

FIRST_PORT = 19_000
TROUBLES = ("none", "port taken", "stranger's pid", "server killed", "starter killed", "two at once", "clock set")
STARTS = 200


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An own state folder, without MLflow; what was started in it is stopped."""
    for name in OUTSIDE:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setattr(services, "STATE", tmp_path / "state")
    ports = services._free_ports
    monkeypatch.setattr(services, "_free_ports", lambda first: ports(FIRST_PORT))
    yield services.STATE
    services.down()


@pytest.fixture
def stranger() -> Iterator[psutil.Process]:
    """A process that is none of ours."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield psutil.Process(process.pid)
        assert process.poll() is None
        process.kill()


def start() -> dict[str, str]:
    """Start the servers, or find them, as a new process does."""
    for name in OUTSIDE:
        os.environ.pop(name, None)
    return services.settings()


def in_a_process() -> multiprocessing.process.BaseProcess:
    process = multiprocessing.get_context("fork").Process(target=start)
    process.start()
    return process


class _Ok(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


@contextmanager
def taken_port() -> Iterator[int]:
    """A server of somebody else's, which is well, where ours would be."""
    port = next(services._free_ports(0))
    with ThreadingHTTPServer((services.HOST, port), _Ok) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield port
        server.shutdown()


def write_record(pid: int, born: float) -> None:
    service = services._read("s3")
    record = {"pid": pid, "born": born, "port": service.port if service else FIRST_PORT}
    services.write_atomically(services._record("s3"), json.dumps(record))


def running() -> list[psutil.Process]:
    return [process for process in services._marked("s3") if process.status() != psutil.STATUS_ZOMBIE]


def meet(trouble: str, stranger: psutil.Process, draw: random.Random) -> None:
    """Let one thing go wrong before the next start."""
    if trouble == "stranger's pid":
        write_record(stranger.pid, stranger.create_time() - 100)
    if trouble == "server killed":
        start()
        killed = running()
        for process in killed:
            process.kill()
        psutil.wait_procs(killed, timeout=LIMIT_S)  # one that is about to die is still found
    if trouble == "clock set":
        start()
        service = services._read("s3")
        assert service
        write_record(service.pid, service.born - 7200)
    if trouble == "starter killed":
        process = in_a_process()
        process.join(draw.random() * 0.3)
        process.kill()
        process.join()
    if trouble == "two at once":
        starters = [in_a_process() for _ in range(2)]
        for starter in starters:
            starter.join(LIMIT_S)
        assert [starter.exitcode for starter in starters] == [0, 0]


def held_by_one(trouble: str, stranger: psutil.Process, draw: random.Random) -> None:
    """Start after a trouble, and stop: one server, then none."""
    meet(trouble, stranger, draw)
    before = running()
    assert start()["AWS_ENDPOINT_URL"].startswith("http://127.0.0.1:19")
    (server,) = running()
    if trouble in ("clock set", "two at once"):
        assert before == [server]  # it was found
    assert services.down() == ["s3"]
    assert running() == []
    assert services.down() == []


@pytest.mark.parametrize("trouble", ["stranger's pid", "clock set", "two at once"])
def test_a_trouble_leaves_one_server_and_then_none(trouble: str, state: Path, stranger: psutil.Process) -> None:
    held_by_one(trouble, stranger, random.Random(1))


def test_another_server_at_the_port_is_not_taken_for_ours(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with taken_port() as port:
        assert start()["AWS_ENDPOINT_URL"] != f"http://127.0.0.1:{port}"
        services.down()
        # Quicker than ours: it has come between the choice of the port and our server's start.
        monkeypatch.setattr(services, "_free_ports", lambda first: iter([port]))
        monkeypatch.setattr(services, "_held", lambda port: socket.socket())
        with pytest.raises(RuntimeError, match=r"the embedded s3 server has ended: see .*s3\.log"):
            start()
    assert running() == []


def test_a_server_that_nobody_knows_of_is_ended(state: Path) -> None:
    start()
    (server,) = running()
    services._record("s3").unlink()
    start()
    assert not server.is_running() or server.status() == psutil.STATUS_ZOMBIE
    services._record("s3").unlink()
    assert services.down() == ["s3"]
    assert running() == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_two_hundred_starts(seed: int, state: Path, stranger: psutil.Process) -> None:
    draw = random.Random(seed)
    for _ in range(STARTS // 4):
        trouble = draw.choice(TROUBLES)
        if trouble == "port taken":
            with taken_port():
                held_by_one(trouble, stranger, draw)
        else:
            held_by_one(trouble, stranger, draw)
    assert stranger.is_running()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KB, as root."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if os.getuid() != 0 or subprocess.run(mounted, capture_output=True, check=False).returncode:
        pytest.skip("a small file system needs root")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path, free: int) -> None:
    """Leave so many bytes of a disk."""
    with (folder / "filler").open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    with (folder / "filler").open("rb+") as file:
        file.truncate((folder / "filler").stat().st_size - free)


@pytest.mark.slow
@pytest.mark.parametrize("free", [0, 4096, 8192, 12288, 16384, 20480, 32768])
def test_a_full_disk_leaves_no_server_that_nobody_knows_of(
    free: int, small_disk: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services, "STATE", small_disk / "state")
    fill(small_disk, free)
    told = ""
    try:
        start()
    except RuntimeError as error:
        told = str(error)
    assert told or free
    assert ("no space left" in told or "s3" in told) if told else len(running()) == 1
    (small_disk / "filler").unlink()
    assert len(running()) <= 1
    start()
    services.down()
    assert running() == []
