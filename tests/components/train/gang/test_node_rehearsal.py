"""Training on two nodes rehearsed on this machine: network namespaces joined by a bridge, as far apart as two pods."""

import dataclasses
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from pipelines.cluster.tasks import gang_job
from tests.components.train.gang.kube_api import Cluster, serving
from tests.components.train.test_stage import combined_manifest, run
from tests.conftest import S3, serve_s3
from tests.golden.jobs import CPUS
from tests.wordmill.training.tiny import TRAIN
from wordmill.models import checkpoint
from wordmill.models.checkpoint import Tensors
from wordmill.recipe import frameworks
from wordmill.recipe.parsing import struct_text
from wordmill.recipe.sections import Train
from wordmill.store.artifacts import ROOT, Manifest, read_manifest
from wordmill.store.storage import Store

pytestmark = pytest.mark.slow

BRIDGE, NAMES = "wordmill0", ("wordmill-node-0", "wordmill-node-1")
SUBNET = "10.213.7"  # .1 is this machine, .2 and .3 are the nodes
HOSTS = ("train-node-0.train", "train-node-1.train")  # as Volcano names them


def ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"


@pytest.fixture(scope="module")
def network() -> Iterator[None]:
    """Two network namespaces that know each other's and their own names, and this machine, through a bridge."""
    if os.geteuid() or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and iproute2")
    links = [["link", "del", name] for name in (BRIDGE, "wordmill-v0", "wordmill-v1")]
    for left in [*links, *(["netns", "del", name] for name in NAMES)]:  # by a test that was killed
        subprocess.run(["ip", *left], capture_output=True)
    for name in NAMES:
        shutil.rmtree(Path("/etc/netns") / name, ignore_errors=True)
    with ExitStack() as undo:
        ip("link", "add", BRIDGE, "type", "bridge")
        undo.callback(ip, "link", "del", BRIDGE)
        ip("addr", "add", f"{SUBNET}.1/24", "dev", BRIDGE)
        ip("link", "set", BRIDGE, "up")
        for number, name in enumerate(NAMES):
            ip("netns", "add", name)
            undo.callback(ip, "netns", "del", name)
            ip("link", "add", f"wordmill-v{number}", "type", "veth", "peer", "name", "eth0", "netns", name)
            ip("link", "set", f"wordmill-v{number}", "master", BRIDGE, "up")
            ip("-n", name, "addr", "add", f"{SUBNET}.{number + 2}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
            ip("-n", name, "link", "set", "lo", "up")
            hosts = Path("/etc/netns") / name / "hosts"  # what `ip netns exec` shows as /etc/hosts
            hosts.parent.mkdir(parents=True)
            undo.callback(shutil.rmtree, hosts.parent)
            known = [f"{SUBNET}.{node + 2} {host}" for node, host in enumerate(HOSTS)]
            own = f"{SUBNET}.{number + 2} {socket.gethostname()}"
            hosts.write_text("\n".join(["127.0.0.1 localhost", own, *known, ""]))
        yield


@pytest.fixture(scope="module")
def s3(network: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """An S3 server where the nodes reach it."""
    with serve_s3(tmp_path_factory.mktemp("s3"), f"{SUBNET}.1") as server:
        yield server


def volcano(rank: int) -> dict[str, str]:
    """The variables that Volcano's plugins set."""
    return {"VC_TASK_INDEX": str(rank), "VC_NODE_HOSTS": ",".join(HOSTS), "VC_NODE_NUM": "2"}


def mindcluster(rank: int) -> dict[str, str]:
    """The variables that MindCluster's operator sets, for both frameworks."""
    return {
        "MASTER_ADDR": HOSTS[0], "MASTER_PORT": "2222", "RANK": str(rank), "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2",
        "LOCAL_RANK": "0,1", "MS_SCHED_HOST": HOSTS[0], "MS_SCHED_PORT": "2222", "MS_NODE_RANK": str(rank),
        "MS_WORKER_NUM": "4", "MS_LOCAL_WORKER": "2", "MS_SERVER_NUM": "0",
        "MS_ROLE": "MS_WORKER" if rank else "MS_SCHED",
    }  # fmt: skip


def send(pod: subprocess.Popen[str], number: int) -> None:
    """Send a signal to a pod's first process, the child of `unshare`."""
    with suppress(psutil.NoSuchProcess):
        for first in psutil.Process(pod.pid).children():
            first.send_signal(number)


class Kubelet:
    """Runs the pods of a Volcano job as processes, each in a namespace of its own, and does as its policies say."""

    def __init__(self, told: Callable[[int], dict[str, str]], folder: Path) -> None:
        self.told, self.folder = told, folder
        self.pods: list[subprocess.Popen[str]] = []
        self.printed = [0, 0]
        self.starts = 0
        self.killed = -1  # the node that was: `unshare` ends with code 1 then
        self.ending = 0.0  # since when the pods are being stopped, to be started again

    def step(self, cluster: Cluster) -> None:
        """Start the pods where none runs; set the state of job and pods, and pass on what they have printed."""
        if not self.pods:
            self.pods = [self.start(cluster.job(), rank) for rank in (0, 1)]
            self.starts, self.printed, self.ending, self.killed = self.starts + 1, [0, 0], 0.0, -1
        codes = [pod.poll() for pod in self.pods]
        if self.killed >= 0 and codes[self.killed]:
            codes[self.killed] = 128 + signal.SIGKILL
        for rank, code in enumerate(codes):
            phase = {None: "Running", 0: "Succeeded"}.get(code, "Failed")
            name = f"{cluster.job()['metadata']['name']}-node-{rank}"
            cluster.add_pod(name, phase)
            lines = (self.folder / f"{rank}.txt").read_text().splitlines()
            for line in lines[self.printed[rank] :]:
                cluster.print(name, line)
            self.printed[rank] = len(lines)
        actions = {self.action(cluster.job(), code) for code in codes if code}
        if self.ending:
            self.end(codes)
        elif "RestartJob" in actions:
            cluster.phase("Restarting")
            self.ending = time.monotonic()
            self.stop(signal.SIGTERM)
        elif actions:
            cluster.phase("Aborted")
            self.stop(signal.SIGTERM)
        else:
            cluster.phase("Completed" if codes == [0, 0] else "Running")

    def action(self, job: dict[str, Any], code: int) -> str:
        """Return what the first policy that fits says of a pod that has ended with this code."""
        policies = job["spec"]["policies"]
        fits = [entry for entry in policies if entry.get("exitCode") == code or entry.get("event") == "PodFailed"]
        return str(fits[0]["action"])

    def end(self, codes: list[int | None]) -> None:
        """Wait for the pods' end, not for ever, and let them be started on fresh machines."""
        if None not in codes:
            for rank in (0, 1):
                shutil.rmtree(self.folder / f"cache{rank}", ignore_errors=True)
            self.pods = []
        elif time.monotonic() - self.ending > 60:
            self.stop(signal.SIGKILL)

    def stop(self, number: int) -> None:
        """Send the pods a signal, as Volcano has them stopped."""
        for pod in self.pods:
            send(pod, number)

    def start(self, job: dict[str, Any], rank: int) -> subprocess.Popen[str]:
        """Start what the job's template says, with nothing in its environment but what that and Volcano give."""
        (container,) = job["spec"]["tasks"][0]["template"]["spec"]["containers"]
        scratch = self.folder / f"scratch{rank}"
        scratch.mkdir(exist_ok=True)
        given = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **self.told(rank)}
        for entry in container["env"]:
            if "value" in entry:
                given[entry["name"]] = entry["value"].replace("/scratch", str(scratch))
            elif entry["name"] == "POD_IP":
                given["POD_IP"] = f"{SUBNET}.{rank + 2}"
            elif entry["name"] in os.environ:  # of secret and config map
                given[entry["name"]] = os.environ[entry["name"]]
        given["WORDMILL_CACHE"] = str(self.folder / f"cache{rank}")
        # Process 1, as in a container: no signal ends it that it does not handle, and all others end with it.
        alone = ["unshare", "--fork", "--pid", "--mount-proc"]
        command = ["ip", "netns", "exec", NAMES[rank], *alone, sys.executable, *container["command"][1:]]
        with (self.folder / f"{rank}.txt").open("w") as log:
            return subprocess.Popen(command, env=given, cwd=scratch, stdout=log, stderr=subprocess.STDOUT, text=True)


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """Kubernetes's API with Volcano, which only the stage reaches."""
    found = Cluster()
    with serving(found, tmp_path) as kubeconfig:
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
        yield found


def last_weights(store: Store, path: Path) -> Tensors:
    return checkpoint.load(store.fetch(read_manifest(path).object("last.safetensors"))).tensors


def learn_what_one_node_does(
    store: Store, cluster: Cluster, kubelet: Kubelet, train: Train, step: Callable[[Cluster], None]
) -> Manifest:
    """Train on one node of four processes, then on two of two; return the latter's manifest, of the same weights."""
    folder = kubelet.folder
    shards = combined_manifest(store, folder)
    reference = run(shards, folder / "one.json", processes=4, train=train)
    alone = last_weights(store, folder / "one.json")
    store.delete(f"manifests/{reference}.json")  # several nodes would find the same work done
    cluster.steps = [step] * 10000
    try:
        again = run(
            shards, folder / "two.json", processes=2, train=train, gang=struct_text(gang_job(CPUS, train.framework))
        )
    finally:
        kubelet.stop(signal.SIGKILL)
    assert again == reference
    together = last_weights(store, folder / "two.json")
    assert alone.keys() == together.keys()
    assert [name for name in alone if not np.array_equal(alone[name], together[name])] == []
    return read_manifest(folder / "two.json")


@pytest.mark.parametrize("told", [volcano, mindcluster])
@pytest.mark.parametrize("framework", ["pytorch", "mindspore"])
def test_two_nodes_of_two_processes_learn_what_one_node_of_four_does(
    framework: frameworks.Framework, told: Any, store: Store, cluster: Cluster, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    train = dataclasses.replace(TRAIN, framework=framework)
    kubelet = Kubelet(told, tmp_path)
    manifest = learn_what_one_node_does(store, cluster, kubelet, train, kubelet.step)
    assert (manifest.facts["processes"], manifest.facts["images"]) == (4, 64)
    assert {"train/loss", "val/accuracy"} <= set(manifest.curves)
    assert "train  64/64 images  100.0 %" in capsys.readouterr().out.partition("train: made job")[2]  # of two nodes
    assert len(cluster.made) == 1
    assert cluster.jobs == {}


@pytest.mark.parametrize("framework", ["pytorch", "mindspore"])
def test_a_node_that_is_killed_is_started_again_with_the_others_and_training_ends_as_if_undisturbed(
    framework: frameworks.Framework, store: Store, cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    train = dataclasses.replace(TRAIN, framework=framework, epochs=40, checkpoint_minutes=0.01)
    kubelet = Kubelet(volcano, tmp_path)

    def step(at: Cluster) -> None:
        kubelet.step(at)
        stored = [key for key in store.keys("checkpoints/") if key.endswith(".json")]
        if kubelet.starts == 1 and kubelet.killed < 0 and stored:
            kubelet.killed = 1
            send(kubelet.pods[1], signal.SIGKILL)

    attempts = learn_what_one_node_does(store, cluster, kubelet, train, step).facts["attempts"]
    assert (kubelet.starts, len(attempts)) == (2, 2)
    assert attempts[1]["step"] > 0
    assert "train: goes on after step " in capsys.readouterr().out
    assert cluster.jobs == {}
    assert list(store.keys("checkpoints/")) == []
    for name in NAMES:
        held = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True, check=True)
        assert held.stdout.split() == []
