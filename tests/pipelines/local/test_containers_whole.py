"""The images of `make images`, and the quickstart in them: it needs Docker and takes minutes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import docker as docker_package
import pytest

from pipelines.images.building import ANYWHERE, commit_of, key_of, stages_of
from pipelines.images.references import KEY, split_name, tagged
from pipelines.images.rooms import held
from pipelines.local.containers import run_container

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]
RUN_LIMIT_S = 1800
# As a cluster's restricted pod security runs them, and without a network or a disk to write to besides.
SAFE = [
    "--read-only",
    "--tmpfs",
    "/tmp",
    "--cap-drop",
    "ALL",
    "--security-opt",
    "no-new-privileges",
    "--network",
    "none",
]
IMPORTS = {
    "report": "kfp, mlflow, components.report.stage, components.report.heartbeat",
    "train-pytorch": "kfp, torch, onnxruntime, components.train.stage, wordmill.training.pt.train",
    "train-mindspore": "kfp, mindspore, components.train.stage, wordmill.training.ms.train",
}


def said(*words: str) -> str:
    done = subprocess.run(["docker", *words], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip()


@pytest.fixture(scope="module", autouse=True)
def client() -> docker_package.DockerClient:
    """Docker with the images of this code; without them there is nothing to test."""
    if not shutil.which("docker") or subprocess.run(["docker", "version"], capture_output=True, check=False).returncode:
        pytest.skip("no Docker daemon answers `docker version`")
    client = docker_package.from_env()
    for name in [name for environment in ANYWHERE for name in stages_of(environment)]:
        found = client.images.list(tagged(name))
        if not found or found[0].labels.get(KEY) != key_of(name):
            pytest.skip(f"{tagged(name)} of this code is not here: make images")
    return client


@pytest.mark.parametrize("name", IMPORTS)
def test_an_image_works_as_nobody_without_a_network_a_compiler_or_an_installer(name: str) -> None:
    image, commit = tagged(name), commit_of(held(*split_name(name)))

    def inside(command: str) -> str:
        return said("run", "--rm", *SAFE, image, "sh", "-c", command)

    assert inside("id") == "uid=10001(wordmill) gid=10001(wordmill) groups=10001(wordmill),1000(HwHiAiUser)"
    assert inside("command -v python; command -v python3") == "/opt/wordmill/bin/python\n/opt/wordmill/bin/python3"
    assert inside("for name in gcc g++ cc make nvcc; do command -v $name || true; done") == ""
    assert inside("test -w /tmp && ! test -w /app && ! test -w /opt/wordmill && echo $WORDMILL_COMMIT") == commit
    assert inside(f"cd / && PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION=python python -c 'import {IMPORTS[name]}'"
                  " 2>/tmp/wrong >/tmp/printed || cat /tmp/wrong") == ""  # fmt: skip
    assert inside("python -m pip --version 2>&1 || true").endswith("No module named pip")
    # Whom a platform chooses itself: any number, and group 0.
    assert said("run", "--rm", "--user", "123456:0", *SAFE[3:], image, "sh", "-c", "touch $HOME/x && echo ok") == "ok"


def test_no_failure_is_taken_for_a_success(
    client: docker_package.DockerClient, capfd: pytest.CaptureFixture[str]
) -> None:
    def run(*command: str) -> int:
        return run_container(
            client, tagged("report"), list(command), {}, network_mode="none", labels={"wordmill.test": label}
        )

    label = uuid.uuid4().hex
    assert [run("sh", "-c", "exit 7") for _ in range(20)] == [7] * 20  # over before anybody can ask for the code
    assert run("sh", "-c", "echo last") == 0
    assert run("sh", "-c", "sh -c 'kill -9 $$'") == 137
    assert run("no-such-program") != 0
    assert run("sh", "-c", "true", "x" * 3_000_000) != 0  # more than the kernel takes
    assert capfd.readouterr().out.startswith("last\n")
    assert client.containers.list(all=True, filters={"label": f"wordmill.test={label}"}) == []


def run_here(state: Path, *options: str) -> dict[str, Any]:
    """Run the small quickstart with a state of its own and return its summary."""
    command = [sys.executable, "-m", "pipelines"]
    variables = os.environ | {"WORDMILL_STATE": str(state)}
    try:
        done = subprocess.run([*command, "run", "quickstart", "--smoke", *options], cwd=ROOT, env=variables,
                              capture_output=True, text=True, timeout=RUN_LIMIT_S, check=False)  # fmt: skip
        assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
        return dict(json.loads(Path(done.stdout.splitlines()[-1]).read_text(encoding="utf-8")))
    finally:
        subprocess.run([*command, "down"], cwd=ROOT, env=variables, capture_output=True, check=False)


def outcome(state: Path, *options: str) -> dict[str, Any]:
    """What of a run does not depend on the time or on the machine's load, down to the bytes of shards and weights."""
    summary = run_here(state, *options)
    manifests = [json.loads(path.read_text(encoding="utf-8")) for path in (state / "s3").rglob("manifests/*/*.json")]
    made = [(item["name"], item["sha256"]) for manifest in manifests for item in manifest["objects"]]
    return {
        "ok": summary["ok"],
        "errors": summary["errors"],
        "digests": summary["digests"],
        "benchmarks": [(row["name"], row["correct"], row["total"], row["ned"]) for row in summary["benchmarks"]],
        "formats": sorted((row["format"], row["made"], row["texts_equal"]) for row in summary["formats"]),
        "gate": summary["gate"],
        "stages": sorted((stage["stage"], stage["name"], stage["found"]) for stage in summary["stages"]),
        "weights": [digest for name, digest in made if name == "model.safetensors"],
        "shards": sorted({digest for name, digest in made if name.endswith(".lmdb")}),  # of a part and its set
    }


def test_the_quickstart_in_containers_ends_like_the_one_in_processes(tmp_path: Path) -> None:
    in_processes = outcome(tmp_path / "processes")
    assert outcome(tmp_path / "containers", "--runner", "docker") == in_processes
    assert (in_processes["ok"], in_processes["errors"]) == (True, [])
    assert [len(in_processes[what]) for what in ("stages", "weights", "shards")] == [10, 1, 4]


def test_a_stopped_run_leaves_no_container(client: docker_package.DockerClient, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pipelines", "run", "quickstart", "--smoke", "--runner", "docker"]
    variables = os.environ | {"WORDMILL_STATE": str(tmp_path)}
    filters = {"label": f"wordmill.state={tmp_path}"}
    # A shell's background job, as these tests may be, ignores Ctrl-C, and so would the process.
    process = subprocess.Popen(command, cwd=ROOT, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))  # fmt: skip
    try:
        while not client.containers.list(filters=filters):
            assert process.poll() is None
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        assert b"stopped" in process.communicate(timeout=120)[1]
        assert client.containers.list(all=True, filters=filters) == []
    finally:
        process.kill()
        subprocess.run([*command[:3], "down"], cwd=ROOT, env=variables, capture_output=True, check=False)
