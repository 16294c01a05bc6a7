import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import requests

from tests.components.export.exported import pictures, png, write_onnx
from tests.components.serve.test_unpacking import png as raw_png
from tests.waiting import LIMIT_S, wait_until

ROOT = Path(__file__).resolve().parents[3]


def test_the_program_serves_a_folder_and_ends_by_a_signal(tmp_path: Path, port: int) -> None:
    write_onnx(tmp_path / "model")
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "components.serve", str(tmp_path / "model"), "--port", str(port),
               "--receive-timeout", "1000000"]  # fmt: skip
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=log, stderr=log)
    url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + LIMIT_S
    try:
        while True:
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline
            try:
                assert requests.get(f"{url}/health", timeout=LIMIT_S).json() == {"status": "ready"}
                break
            except requests.ConnectionError:
                time.sleep(0.1)
        answer = requests.post(f"{url}/read", files={"word": ("a", png(pictures(1)[0]))}, timeout=LIMIT_S)
        assert answer.json()["readings"][0]["name"] == "a"
        answer = requests.post(f"{url}/read", files={"word": ("b", raw_png(20_000, 20_000, 0, b""))}, timeout=LIMIT_S)
        assert answer.status_code == 422
        assert answer.json()["detail"].endswith("more than 4194304 pixels, or than 16384 wide or high: 20000x20000")
        stalled = socket.create_connection(("127.0.0.1", port), LIMIT_S)
        stalled.sendall(b"POST /read HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 5000\r\n\r\nx")
        wait_until(lambda: "wordmill_body_bytes 1.0" in requests.get(f"{url}/metrics", timeout=LIMIT_S).text)
    finally:
        process.send_signal(signal.SIGTERM)
    assert process.wait(LIMIT_S) in (0, -signal.SIGTERM)
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_a_folder_without_a_model_ends_in_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "components.serve", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [f"error: {tmp_path}: found no card.json in it, expected an exported file or "
                                        "its folder, with card.json, or a registered model's"]  # fmt: skip


def test_a_port_that_is_none_or_is_taken_ends_in_one_line_and_nothing_is_said_to_be_served(tmp_path: Path) -> None:
    write_onnx(tmp_path / "model")
    with socket.create_server(("127.0.0.1", 0)) as other:
        for port, told in (
            (99999, "bind(): port must be 0-65535."),
            (other.getsockname()[1], "Address already in use"),
        ):
            command = [sys.executable, "-m", "components.serve", str(tmp_path / "model"), "--port", str(port)]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S, check=False)
            assert (done.returncode, done.stdout) == (1, "")
            (line,) = done.stderr.splitlines()
            assert line.startswith(f"error: 127.0.0.1:{port}: ")
            assert told in line
