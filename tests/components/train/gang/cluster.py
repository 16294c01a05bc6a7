"""A cluster, a first node and Kubernetes's own controller of jobs, for the tests of a training's job."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from components.train.gang import api as gang_api
from components.train.gang import job as cluster_job
from components.train.gang.work import Work, job_key
from tests.components.train.gang.kube_api import Cluster, serving, stamp
from tests.golden.jobs import CPUS, KEY, spec
from tests.wordmill.training.tiny import DATA, MODEL, TRAIN
from wordmill.store.pods import RUN
from wordmill.store.stages import StageResult
from wordmill.store.storage import Store

NAME = "wordmill-train-0123456789abcdef"
LEADER = f"{NAME}-node-0"
VOLCANO = f"/apis/batch.volcano.sh/v1alpha1/namespaces/wordmill/jobs/{NAME}"
WORK = Work(
    key=KEY, code="c", resume="k", other_code="", nodes=2, processes=2, device="cpu", data=DATA, model=MODEL,
    train=TRAIN, shards={}, start=None, recipe="tiny", run_tag="tag",
    mlflow_run="",
)  # fmt: skip


@pytest.fixture(name="cluster")
def volcano_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A cluster with Volcano in which the stage runs as a pod of a Workflow."""
    monkeypatch.setattr(cluster_job, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(cluster_job, "WARNINGS_EVERY_S", 0.0)
    monkeypatch.setattr(gang_api, "PAUSES_S", (0.01, 0.01))
    monkeypatch.setenv("KFP_POD_NAME", "stage")
    found = Cluster()
    found.add_pod("stage", "Running", job="none")
    workflow = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "name": "run-x", "uid": "u-1"}
    found.pods["stage"]["metadata"]["ownerReferences"] = [workflow]
    found.pods["stage"]["metadata"]["labels"] = {RUN: "run-id"}
    with serving(found, tmp_path) as kubeconfig:
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
        yield found


def put_result(store: Store, folder: Path, key: str = KEY) -> None:
    """Do what the first node does last."""
    path = folder / "weights"
    path.write_bytes(b"weights")
    entry = vars(store.put_file(path, "model.safetensors"))
    told = {"facts": {"val_accuracy": 0.5}, "metrics": {"m": 1.0}, "curves": {"c": [[1, 2.0, 3.0]]},
            "made_by": []}  # fmt: skip
    store.put_json(job_key(key, "result.json"), {"objects": [entry], **told})


def run(store: Store, profile: Any = CPUS, framework: str = "pytorch") -> StageResult:
    work = dataclasses.replace(WORK, nodes=profile.nodes)
    return cluster_job.train_by_job(store, spec(profile, framework), work)


def left(kind: str, **status: Any) -> dict[str, Any]:
    """Return a job of another attempt."""
    return {"apiVersion": kind, "kind": "Job", "metadata": {"name": NAME, "uid": "u-0"}, "status": status}


def terminated(code: int, reason: str) -> list[dict[str, Any]]:
    return [{"name": "ascend", "image": "i", "imageID": "", "ready": False, "restartCount": 0,
             "state": {"terminated": {"exitCode": code, "reason": reason, "startedAt": stamp(1e9),
                                      "finishedAt": stamp(1e9 + 31)}}}]  # fmt: skip


class JobController:
    """Kubernetes's own controller of jobs of one pod, which tests begin and end: it goes by the job's policies."""

    def __init__(self) -> None:
        self.pods: list[str] = []

    def begin(self, at: Cluster) -> None:
        """Make a pod that runs at once, unless one does or the job has ended."""
        status = at.job().setdefault("status", {"startTime": stamp(1e9)})
        if not status.get("active") and "conditions" not in status:
            status["active"] = 1
            self.pods.append(f"{NAME}-{len(self.pods):05}")
            at.add_pod(self.pods[-1], "Running")

    def end(self, code: int, ended: str = "Error", disrupted: bool = False, **told: str) -> Callable[[Cluster], None]:
        """Return the step in which the pod ends with a code; what disrupts one is a condition of it."""

        def step(at: Cluster) -> None:
            status = at.job()["status"]
            status["active"] = 0
            conditions = [{"type": "DisruptionTarget", "status": "True"}] if disrupted else []
            phase = "Failed" if code else "Succeeded"
            at.add_pod(self.pods[-1], phase, containerStatuses=terminated(code, ended), conditions=conditions, **told)
            action = self.action(at.job(), code, disrupted)
            status["failed"] = status.get("failed", 0) + (action == "Count")
            over = action == "Count" and status["failed"] > at.job()["spec"]["backoffLimit"]
            if action in ("FailJob", "Complete") or over:
                ends = ("SuccessCriteriaMet", "Complete") if action == "Complete" else ("FailureTarget", "Failed")
                reason = "BackoffLimitExceeded" if over else "PodFailurePolicy"
                why = {"reason": reason, "message": f"exit code {code}"} if code else {}
                status["conditions"] = [{"type": end, "status": "True", **why} for end in ends]

        return step

    def action(self, job: dict[str, Any], code: int, disrupted: bool) -> str:
        """Return what the first rule that fits says of a pod that has ended so."""
        for rule in job["spec"]["podFailurePolicy"]["rules"] if code else []:
            fits = code in rule.get("onExitCodes", {"values": []})["values"]
            if fits or (
                disrupted and {"type": "DisruptionTarget", "status": "True"} in rule.get("onPodConditions", [])
            ):
                return str(rule["action"])
        return "Count" if code else "Complete"


def waiting(reason: str, message: str) -> list[dict[str, Any]]:
    return [{"name": "ascend", "image": "i", "imageID": "", "ready": False, "restartCount": 0,
             "state": {"waiting": {"reason": reason, "message": message}}}]  # fmt: skip


def finish(store: Store, folder: Path) -> Any:
    def step(at: Cluster) -> None:
        at.phase("Completed")
        put_result(store, folder)

    return step
