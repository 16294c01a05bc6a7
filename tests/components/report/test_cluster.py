"""What the report asks Kubernetes, of the server in memory that has the rights of the manifests and no others."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from components.report.cluster import LABEL, NODE, Fate, fate_of_run
from tests.components.train.gang.kube_api import Cluster, serving
from wordmill.store import pods


@pytest.fixture
def kubernetes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A cluster in which this process is the pod of the report."""
    (tmp_path / "namespace").write_text("wordmill\n")
    monkeypatch.setattr(pods, "NAMESPACE", tmp_path / "namespace")
    monkeypatch.setenv("KFP_POD_NAME", "report-pod")
    found = Cluster(workflows={"run-x": {"metadata": {"name": "run-x", "uid": "u-1"}, "spec": {}}})
    add(found, "report-pod", "report", "Running", 9)
    with serving(found, tmp_path) as kubeconfig:
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
        yield found


def add(found: Cluster, name: str, task: str, phase: str, at: int, workflow: str = "run-x", **status: Any) -> None:
    found.add_pod(name, phase, job="none", **status)
    found.pods[name]["metadata"] |= {
        "labels": {LABEL: workflow}, "creationTimestamp": f"2026-01-01T00:00:0{at}Z",
        "annotations": {NODE: f"{workflow}.root.exit-handler-1.{task}.executor(0)"},
    }  # fmt: skip
    found.pods[name]["spec"]["containers"] = [{"name": "main", "resources": {"limits": {"memory": "1100Mi"}}}]


def killed(reason: str, code: int) -> list[dict[str, Any]]:
    ended = {"exitCode": code, "reason": reason, "startedAt": "2026-01-01T00:00:00Z",
             "finishedAt": "2026-01-01T00:00:31Z"}  # fmt: skip
    return [{"name": "main", "image": "i", "imageID": "", "ready": False, "restartCount": 0,
             "state": {"terminated": ended}}]  # fmt: skip


def test_the_last_pod_of_each_task_says_why_it_failed_or_waits(kubernetes: Cluster) -> None:
    add(kubernetes, "a", "train", "Failed", 1, containerStatuses=killed("OOMKilled", 137))
    add(kubernetes, "b", "evaluate-2", "Failed", 1, reason="Evicted", message="The node was low on memory.")
    add(kubernetes, "c", "evaluate-2", "Succeeded", 2)  # the second attempt
    waits = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "Insufficient cpu"}
    add(kubernetes, "d", "smoke", "Pending", 2, conditions=[waits])
    add(kubernetes, "e", "gate", "Failed", 3, workflow="another")
    add(kubernetes, "f", "evaluate-rivals-driver", "Failed", 3, containerStatuses=killed("Error", 1))
    fate = fate_of_run()
    assert not fate.stopped
    assert {task: text for task, text in fate.pods.items() if not re.match("root|executor|exit", task)} == {
        "train": "OOMKilled: it needs more memory than its limit of 1100Mi, which it reached after 31 s: give the "
        "profile more, spec.sizes of values.yaml, set train.accumulation higher, or lower train.global_batch",
        "evaluate-rivals": "ended with code 1",
        "smoke": "Pending: Unschedulable: Insufficient cpu",
    }


@pytest.mark.parametrize("group", ["batch", "batch.volcano.sh", "mindxdl.gitee.com"])
@pytest.mark.parametrize(
    ("spec", "stopped"),
    [({}, False), ({"activeDeadlineSeconds": 3600}, False), ({"activeDeadlineSeconds": 0}, True),
     ({"shutdown": "Terminate"}, True)],
)  # fmt: skip
def test_a_run_that_somebody_has_stopped_is_known_by_its_workflow(
    kubernetes: Cluster, spec: dict[str, Any], stopped: bool, group: str
) -> None:
    kubernetes.workflows["run-x"]["spec"] = spec
    kubernetes.installed = group, "argoproj.io"
    for name, owner in (("wordmill-train-mine", "u-1"), ("wordmill-train-anothers", "u-2")):
        owners = [{"kind": "Workflow", "name": "x", "uid": owner}]
        kubernetes.jobs[name] = {"metadata": {"name": name, "ownerReferences": owners}}
    assert fate_of_run().stopped is stopped
    # Its training stage was killed: the nodes, which keep a checkpoint when they are told to end, end with the run.
    assert ("wordmill-train-mine" in kubernetes.jobs) is not stopped
    assert "wordmill-train-anothers" in kubernetes.jobs


def test_without_the_right_to_ask_the_report_is_made_from_the_records_alone(
    kubernetes: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    kubernetes.rights.remove(("argoproj.io", "workflows", "get"))
    assert fate_of_run() == Fate()
    assert "warning: Kubernetes does not say how the run's pods ended: (403)" in capsys.readouterr().out


def test_a_run_in_a_pod_of_ones_own_has_no_workflow(kubernetes: Cluster) -> None:
    kubernetes.pods["report-pod"]["metadata"]["labels"] = {}
    assert fate_of_run() == Fate()


def test_outside_of_a_cluster_nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KFP_POD_NAME", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    assert fate_of_run() == Fate()
