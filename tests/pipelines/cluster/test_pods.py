"""Which pods are a task's, those of the job that training has made among them."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from components.report.cluster import NODE
from pipelines.cluster.pods import RunPods
from pipelines.cluster.site import TRAINING_LABELS
from tests.components.train.gang.kube_api import Cluster, serving
from wordmill.store.pods import RUN

REFUSED = (
    'Error creating: pods "wordmill-train-1-abcde" is forbidden: exceeded quota: all, requested: '
    "limits.cpu=16,requests.nvidia.com/gpu=1, used: limits.cpu=3,requests.nvidia.com/gpu=0, limited: "
    "limits.cpu={},requests.nvidia.com/gpu=4"
)
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


def test_each_pod_waits_for_itself(kubernetes: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    add(kubernetes, "wordmill-train-1-abcde", TRAINING_LABELS, "Pending", conditions=[WAITS])
    pods = RunPods("r-1", "wordmill", {"train": "train"})
    assert pods.troubles()["train"].waits_s == 0.0
    del kubernetes.pods["wordmill-train-1-abcde"]  # it has begun, and was lost two hours later
    now[0] = 7300.0
    add(kubernetes, "wordmill-train-1-fghij", TRAINING_LABELS, "Pending", conditions=[WAITS])
    assert pods.troubles()["train"].waits_s == 0.0
    now[0] = 7330.0
    told = WAITS | {"message": "1 node is cordoned, Insufficient nvidia.com/gpu"}
    add(kubernetes, "wordmill-train-1-fghij", TRAINING_LABELS, "Pending", conditions=[told])
    assert pods.troubles()["train"].waits_s == 30.0


CREATING = 'Error creating: pods "wordmill-train-1-abcde" is forbidden: '


@pytest.mark.parametrize(
    ("refused", "vain"),
    [
        (REFUSED.format(8), True),
        (REFUSED.format(16), False),
        (CREATING + 'violates PodSecurity "restricted:latest": runAsNonRoot != true', True),
        (CREATING + "maximum cpu usage per Container is 4, but limit is 16", True),
        ('Error creating: admission webhook "policy" denied the request: no such image', True),
        ('Error creating: Internal error occurred: failed calling webhook "policy": connection refused', False),
    ],
)
def test_a_pod_that_a_job_may_not_make_waits_in_vain_where_that_does_not_pass(
    kubernetes: Cluster, refused: str, vain: bool
) -> None:
    for name, run in (("wordmill-train-1", "r-1"), ("wordmill-train-2", "r-2")):
        kubernetes.jobs[name] = {"metadata": {"name": name, "labels": {RUN: run}}, "status": {}}
    kubernetes.warn("Job", "wordmill-train-2", "FailedCreate", "of another run")
    pods = RunPods("r-1", "wordmill", {"train": "train"})
    assert pods.troubles() == {}
    kubernetes.warn("Job", "wordmill-train-1", "FailedCreate", refused)
    (told,) = pods.troubles().items()
    assert (told[0], told[1].text, told[1].vain) == ("train", f"FailedCreate: {refused}", vain)
    assert told[1].waits_s is not None
    kubernetes.jobs["wordmill-train-1"]["status"] = {"active": 1}
    assert (pods.troubles(), pods.seen) == ({}, {})
