"""The one node of a job: what its pod does, and training rehearsed while its pods are lost."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.train import workers
from components.train.gang import node
from components.train.gang.work import Work, job_key, renew_lease, write_work
from components.train.memory import Machine, MemoryWatch
from pipelines.profiles import PROFILES
from tests.components.train.gang.cluster import WORK, JobController
from tests.components.train.gang.cluster import volcano_cluster as volcano_cluster  # a fixture, "cluster"
from tests.components.train.gang.kube_api import Cluster
from tests.components.train.gang.test_node import fake
from tests.components.train.test_stage import combined_manifest, run
from tests.golden.jobs import spec
from tests.wordmill.training.tiny import TRAIN
from wordmill.models import checkpoint
from wordmill.recipe.frameworks import Framework
from wordmill.store.artifacts import ROOT, read_manifest, to_document
from wordmill.store.runs import starts_key
from wordmill.store.storage import Store
from wordmill.training.state import records

STARTS = starts_key("tag")


@pytest.fixture
def told(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Work:
    """A job of one node of one process, which is told no place."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(workers, "LOOK_EVERY_S", 0.05)
    shards = to_document(read_manifest(combined_manifest(store, tmp_path)))
    work = dataclasses.replace(WORK, key="k", nodes=1, processes=1, shards=shards)
    write_work(store, work)
    renew_lease(store, "k")
    return work


def ended(store: Store) -> tuple[object, dict[str, Any]]:
    """Run the pod's program to its end; return its code and what it has left as its failure."""
    with pytest.raises(SystemExit) as end:
        node.main("k")
    return end.value.code, store.get_json(job_key("k", "failure.0.json")) or {}


def test_it_needs_no_place_and_its_own_failure_is_final(
    told: Work, store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tell = "open(sys.argv[1] + '/failure.0.txt', 'w').write('ValueError in process 0: x')"
    monkeypatch.setenv("MLFLOW_RUN_ID", "")
    write_work(store, dataclasses.replace(told, mlflow_run="r-7"))
    fake(f"import os, sys; print(os.environ['MLFLOW_RUN_ID']); {tell}; sys.exit(5)", monkeypatch)
    code, failure = ended(store)
    assert (code, failure["stopped"]) == (1, False)
    assert "error: train crnn: training failed with code 5: ValueError in process 0: x" in capsys.readouterr().out
    assert b"r-7" in (store.get_bytes(job_key("k", "log.0.txt")) or b"")


def test_lost_workers_are_started_again_in_the_pod(told: Work, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    fake("import sys; sys.exit(9)", monkeypatch)
    code, failure = ended(store)
    assert (code, failure["stopped"]) == (1, False)
    assert "it was started 3 times more without reaching another checkpoint" in failure["error"]


def test_after_three_losses_without_another_checkpoint_it_ends(told: Work, store: Store) -> None:
    store.put_json(STARTS, {"step": 0, "starts": 3, "pod": "", "limit": 1})
    code, failure = ended(store)
    assert (code, failure["stopped"]) == (1, False)
    assert failure["error"].startswith("training was lost or failed 3 times after step 0 without another checkpoint")


def test_a_stop_in_order_asks_for_another_pod_and_counts(
    told: Work, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake("import os, signal, time; os.kill(os.getppid(), signal.SIGTERM); time.sleep(60)", monkeypatch)
    code, failure = ended(store)
    assert (code, failure["stopped"]) == (75, True)
    assert failure["error"] == "training was stopped by SIGTERM: it begins from the start when it is run again"
    assert store.get_json(STARTS)["starts"] == 1


def test_what_lacks_memory_is_not_begun_again_with_the_same(
    told: Work, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MemoryWatch, "shortage", lambda *_: "out of memory: the limit of 1,100 MiB was reached")
    fake("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", monkeypatch)
    code, failure = ended(store)
    assert (code, failure["error"].splitlines()[0]) == (1, "out of memory: the limit of 1,100 MiB was reached")
    code, failure = ended(store)
    assert code == 1
    assert failure["error"].endswith("this run does not start it again with the same memory")
    assert store.get_json(STARTS)["memory"] == Machine().memory_bytes()


class Kubelet:
    """Runs the pods of Kubernetes's own job as processes: one is evicted, one deleted in order, the last one ends."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.controller = JobController()
        self.process: subprocess.Popen[str] | None = None
        self.printed = 0
        self.begun = ""  # the newest checkpoint when the pod began

    def step(self, at: Cluster) -> None:
        """Start a pod where there is none, disturb the first two behind a new checkpoint, and tell of its end."""
        if self.process is None:
            if "conditions" not in at.job().get("status", {}):
                self.controller.begin(at)
                self.process, self.printed, self.begun = self.start(at.job()), 0, self.newest()
            return
        number = len(self.controller.pods)
        if number < 3 and self.process.poll() is None and self.newest() > self.begun:
            self.process.send_signal(signal.SIGKILL if number == 1 else signal.SIGTERM)
            self.process.wait()
        self.tell(at)
        if (code := self.process.poll()) is not None:
            told = {"reason": "Evicted", "message": "The node was low on memory."} if code < 0 else {}
            self.controller.end(code % 256, disrupted=code < 0, **told)(at)
            self.process = None

    def newest(self) -> str:
        """Return the record of the run's newest checkpoint, "" for none; the store may have it a moment later."""
        folders = (self.folder / "cache" / "training").glob("*/checkpoints")
        return max((record.name for folder in folders for record in records(folder)[:1]), default="")

    def tell(self, at: Cluster) -> None:
        """Pass on what the pod has printed."""
        lines = (self.folder / "pod.txt").read_text().splitlines()
        for line in lines[self.printed :]:
            at.print(self.controller.pods[-1], line)
        self.printed = len(lines)

    def start(self, job: dict[str, Any]) -> subprocess.Popen[str]:
        """Start what the template says, with nothing in its environment but what that gives."""
        (container,) = job["spec"]["template"]["spec"]["containers"]
        given = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "WORDMILL_CACHE": str(self.folder / "cache")}
        for entry in container["env"]:
            if entry["name"] in os.environ and "valueFrom" in entry:  # of secret and config map
                given.setdefault(entry["name"], os.environ[entry["name"]])
        with (self.folder / "pod.txt").open("w") as log:
            return subprocess.Popen([sys.executable, *container["command"][1:]], env=given, stdout=log, text=True,
                                    stderr=subprocess.STDOUT)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("framework", ["pytorch", "mindspore"])
def test_a_job_whose_pods_are_lost_learns_what_the_stage_itself_does(
    framework: Framework,
    cluster: Cluster,
    store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    train = dataclasses.replace(TRAIN, framework=framework, epochs=12, checkpoint_minutes=0.01)
    shards = combined_manifest(store, tmp_path)
    reference = run(shards, tmp_path / "here.json", processes=1, train=train)
    alone = checkpoint.load(store.fetch(read_manifest(tmp_path / "here.json").object("last.safetensors"))).tensors
    store.delete(f"manifests/{reference}.json")  # a job would find the same work done
    kubelet = Kubelet(tmp_path)
    cluster.steps = [kubelet.step] * 10000
    on_processors = dataclasses.replace(spec(PROFILES["gpu-1"], framework), device="cpu", resource="")
    gang = json.dumps(dataclasses.asdict(on_processors))
    assert run(shards, tmp_path / "job.json", processes=1, train=train, gang=gang) == reference
    manifest = read_manifest(tmp_path / "job.json")
    together = checkpoint.load(store.fetch(manifest.object("last.safetensors"))).tensors
    assert alone.keys() == together.keys()
    assert [name for name in alone if not np.array_equal(alone[name], together[name])] == []
    steps = [attempt["step"] for attempt in manifest.facts["attempts"]]
    assert (len(kubelet.controller.pods), len(steps), steps[0] < steps[1] < steps[2]) == (3, 3, True)
    assert "train: goes on after step " in capsys.readouterr().out
    assert (len(cluster.made), cluster.jobs, list(store.keys("checkpoints/"))) == (1, {}, [])
    assert store.get_json(STARTS) is None
    # Another night finds it, and asks for no device.
    cluster.requests.clear()
    assert run(shards, tmp_path / "again.json", processes=1, train=train, gang=gang) == reference
    assert cluster.requests == []
