"""The image, built and run as its Dockerfile says: it needs Docker, the base image and the Python registry."""

import json
import re
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.components.export.exported import pictures, png, write_onnx
from wordmill.inference.packaged.pyfunc import find_card, open_onnx

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]
DOCKERFILE = ROOT / "images" / "serve" / "Dockerfile"
BUILD_TIMEOUT_S = 900
TIMEOUT_S = 120
SAFE = ["--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--network", "none"]
CLIENT = r"""
import json, sys, urllib.error, urllib.request

def ask(path, body=None, kind="image/png"):
    request = urllib.request.Request("http://127.0.0.1:8000" + path, body, {"Content-Type": kind})
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()

picture = sys.stdin.buffer.read()
head = b'--e\r\nContent-Disposition: form-data; name="a"; filename="a"\r\n\r\n'
form = head + picture + b"\r\n" + head + bytes(1_500_000) + b"\r\n--e--\r\n"
print(json.dumps([ask("/health"), ask("/read", picture), ask("/read", form, "multipart/form-data; boundary=e"),
                  ask("/metrics")]))
"""


def docker(*arguments: str, timeout: int = TIMEOUT_S, given: bytes = b"", code: int = 0) -> str:
    done = subprocess.run(["docker", *arguments], input=given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          timeout=timeout, check=False)  # fmt: skip
    said = done.stdout.decode().strip()
    assert done.returncode == code, said[-2000:]
    return said


def works(*arguments: str) -> bool:
    command = ["docker", *arguments]
    return subprocess.run(command, capture_output=True, timeout=BUILD_TIMEOUT_S, check=False).returncode == 0


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    """The image, built of this tree."""
    found = re.search(r"^ARG BASE=(\S+)$", DOCKERFILE.read_text(encoding="utf-8"), re.MULTILINE)
    assert found
    if not shutil.which("docker") or not works("version"):
        pytest.skip("no Docker daemon answers `docker version`")
    if not works("image", "inspect", found[1]) and not works("pull", found[1]):
        pytest.skip(f"{found[1]} is not here and cannot be pulled")
    name = f"wordmill/serve:test-{uuid.uuid4().hex}"
    docker("build", "--network", "host", "--file", str(DOCKERFILE), "--tag", name, str(ROOT), timeout=BUILD_TIMEOUT_S)
    yield name
    docker("image", "rm", name)


@contextmanager
def running(image: str, model: Path) -> Iterator[str]:
    """Run the service of a folder without a network, and yield the container's name once it is healthy."""
    name = f"wordmill-serve-{uuid.uuid4().hex}"
    docker("run", "--detach", "--name", name, *SAFE, "--volume", f"{model}:/model:ro", image)
    try:
        deadline = time.monotonic() + TIMEOUT_S
        while (health := state(name, "Health.Status")) != "healthy":
            assert health == "starting", docker("logs", name)
            assert state(name, "Status") == "running", docker("logs", name)
            assert time.monotonic() < deadline
            time.sleep(0.5)
        yield name
    finally:
        docker("rm", "--force", name)


def state(name: str, field: str) -> str:
    return docker("inspect", "--format", f"{{{{.State.{field}}}}}", name)


def test_the_image_reads_pictures_as_nobody_without_a_network_or_a_disk_to_write_to(image: str, tmp_path: Path) -> None:
    write_onnx(tmp_path / "model")
    picture = png(pictures(1)[0])
    reader = open_onnx(find_card(tmp_path / "model"))
    (text,), (confidence,) = reader.read(reader.fit(picture)[None])
    with running(image, tmp_path / "model") as name:
        assert docker("exec", name, "id") == "uid=10001 gid=10001 groups=10001"
        said = docker("exec", "--interactive", name, "python", "-c", CLIENT, given=picture)
        health, one, two, metrics = json.loads(said)
        assert (health[0], json.loads(health[1])) == (200, {"status": "ready"})
        assert one[0] == 200
        (reading,) = json.loads(one[1])["readings"]
        assert (reading["text"], reading["confidence"]) == (text, pytest.approx(confidence, abs=1e-3))
        # More than what the form's parser keeps in memory: it was in /tmp.
        assert (two[0], json.loads(two[1])["detail"][:36]) == (422, "1 of 2 cannot be read: image 1 (a): ")
        assert 'wordmill_requests_total{status="200"} 1.0' in metrics[1].splitlines()
        docker("stop", name)
        assert state(name, "ExitCode") == "0"
        # Nothing of ONNX Runtime's telemetry, which complains where it has neither a home nor a network.
        assert docker("logs", name) == "serving /model on http://0.0.0.0:8000"


def test_the_image_without_a_model_ends_in_one_line(image: str) -> None:
    said = docker("run", "--rm", *SAFE, image, code=1)
    assert said.startswith("error: /model: ")
    assert said.endswith(", expected an exported file or its folder, with card.json, or a registered model's")
