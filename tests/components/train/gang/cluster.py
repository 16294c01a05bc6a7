"""A cluster and a first node for the tests of a job of several nodes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from components.train.gang import api as gang_api
from components.train.gang import job as cluster_job
from components.train.gang.work import Work, job_key
from tests.components.train.gang.kube_api import Cluster, serving
from tests.golden.jobs import CPUS, KEY, spec
from tests.wordmill.training.tiny import DATA, MODEL, TRAIN
from wordmill.store.stages import StageResult
from wordmill.store.storage import Store

NAME = "wordmill-train-0123456789abcdef"
LEADER = f"{NAME}-node-0"
VOLCANO = f"/apis/batch.volcano.sh/v1alpha1/namespaces/wordmill/jobs/{NAME}"
WORK = Work(
    key=KEY, code="c", resume="k", other_code="", nodes=2, processes=2, device="cpu", data=DATA, model=MODEL,
    train=TRAIN, shards={}, start=None, recipe="tiny", run_tag="tag",
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
    return cluster_job.train_on_nodes(store, spec(profile, framework), WORK)


def terminated(code: int, reason: str) -> list[dict[str, Any]]:
    return [{"name": "ascend", "image": "i", "imageID": "", "ready": False, "restartCount": 0,
             "state": {"terminated": {"exitCode": code, "reason": reason}}}]  # fmt: skip


def waiting(reason: str, message: str) -> list[dict[str, Any]]:
    return [{"name": "ascend", "image": "i", "imageID": "", "ready": False, "restartCount": 0,
             "state": {"waiting": {"reason": reason, "message": message}}}]  # fmt: skip


def finish(store: Store, folder: Path) -> Any:
    def step(at: Cluster) -> None:
        at.phase("Completed")
        put_result(store, folder)

    return step
