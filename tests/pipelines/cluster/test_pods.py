"""Which pods are a task's, those of the job that training has made among them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from components.report.cluster import NODE
from pipelines.cluster.pods import RunPods
from pipelines.cluster.site import TRAINING_LABELS
from tests.components.train.gang.kube_api import Cluster, serving
from wordmill.store.pods import RUN

WAITS = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "Insufficient nvidia.com/gpu"}


@pytest.fixture
def kubernetes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    found = Cluster()
    found.rights.add(("argoproj.io", "workflows", "list"))
    with serving(found, tmp_path) as kubeconfig:
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
        yield found


def add(cluster: Cluster, name: str, labels: dict[str, str], phase: str, **status: Any) -> None:
    cluster.add_pod(name, phase, job="none", **status)
    cluster.pods[name]["metadata"]["labels"] = {RUN: "r-1"} | labels


def test_training_waits_where_the_pod_of_its_job_does(kubernetes: Cluster) -> None:
    add(kubernetes, "watching", {}, "Running")
    kubernetes.pods["watching"]["metadata"]["annotations"] = {NODE: "wf.root.exit-handler-1.train.executor(0)"}
    add(kubernetes, "wordmill-train-1-abcde", TRAINING_LABELS, "Pending", conditions=[WAITS])
    add(kubernetes, "stranger", {"app.kubernetes.io/name": "notebook"}, "Pending", conditions=[WAITS])
    pods = RunPods("r-1", "wordmill", {"train": "train"})
    (told,) = pods.troubles().items()
    assert (told[0], told[1].text, told[1].pod) == (
        "train", "Pending: Unschedulable: Insufficient nvidia.com/gpu", ""
    )  # fmt: skip
    assert told[1].waits_s is not None
    add(kubernetes, "wordmill-train-1-abcde", TRAINING_LABELS, "Running")
    assert pods.troubles() == {}
