"""What goes wrong with a job, and what the stage makes of it; see test_gang_job.py."""

import os
import signal
import threading
from pathlib import Path

import pytest

from components.train.gang import job as cluster_job
from components.train.gang import manifests
from components.train.gang.work import job_key
from pipelines.profiles import PROFILES
from tests.components.train.gang.cluster import LEADER, NAME, VOLCANO, finish, run, terminated, waiting
from tests.components.train.gang.cluster import volcano_cluster as volcano_cluster  # a fixture, "cluster"
from tests.components.train.gang.kube_api import Cluster
from tests.golden.jobs import KEY
from wordmill.store.storage import Store


def test_a_cluster_without_either_is_told_what_it_lacks(cluster: Cluster, store: Store) -> None:
    cluster.installed = ()
    with pytest.raises(
        RuntimeError, match=r"Kubernetes knows no jobs.batch.volcano.sh: install Volcano, or MindCluster"
    ):
        run(store)


def test_a_job_that_ends_without_a_result_has_failed_whatever_it_says(cluster: Cluster, store: Store) -> None:
    def end(at: Cluster) -> None:
        at.phase("Completed", "all is well")
        at.add_pod(LEADER, "Succeeded", containerStatuses=terminated(0, "Completed"))

    cluster.steps = [end]
    with pytest.raises(RuntimeError) as caught:
        run(store)
    assert str(caught.value) == (
        f"training on 2 nodes failed: job {NAME} ended, Completed: all is well, without a result\n"
        f"pod {LEADER}: ended with code 0\nthe nodes' logs are in bucket '{store.bucket}' at jobs/{KEY}/log.<node>.txt"
    )
    assert cluster.jobs == {}


def test_the_node_that_failed_first_is_the_reason(cluster: Cluster, store: Store) -> None:
    def fail(node: int, error: str, time: float, stopped: bool = False) -> None:
        store.put_json(job_key(KEY, f"failure.{node}.json"), {"error": error, "time": time, "stopped": stopped})

    def end(at: Cluster) -> None:
        at.phase("Aborted")
        fail(0, "connection closed by peer", 12.0)
        fail(1, "ValueError in process 3: no label fits", 11.5)
        fail(2, "training was stopped by SIGTERM", 11.0, stopped=True)

    cluster.steps = [lambda at: at.phase("Running"), end]
    with pytest.raises(RuntimeError, match=r"^training on 2 nodes failed: ValueError in process 3: no label fits\n"):
        run(store)


def test_why_pods_wait_or_died_is_said_once(cluster: Cluster, store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    def pull(at: Cluster) -> None:
        at.phase("Running")
        at.add_pod(LEADER, "Pending", containerStatuses=waiting("ImagePullBackOff", 'Back-off pulling image "x"'))
        at.add_pod(f"{NAME}-node-1", "Pending", containerStatuses=waiting("ContainerCreating", ""))

    def die(at: Cluster) -> None:
        at.phase("Failed")
        store.put_json(job_key(KEY, "failure.1.json"), {"error": "by SIGTERM", "time": 1.0, "stopped": True})
        at.add_pod(LEADER, "Failed", containerStatuses=terminated(137, "OOMKilled"))
        at.add_pod(f"{NAME}-node-1", "Failed", reason="DeadlineExceeded", message="Pod was active too long")

    cluster.steps = [pull, pull, pull, die]
    with pytest.raises(RuntimeError, match="pod .*-node-0: OOMKilled: it needs more memory than its limit"):
        run(store)
    lines = capsys.readouterr().out.splitlines()
    assert lines.count(f'train: pod {LEADER}: ImagePullBackOff: Back-off pulling image "x"') == 1
    assert f"train: pod {NAME}-node-1: Pending on machine-1" in lines
    assert f"train: pod {NAME}-node-1: DeadlineExceeded: Pod was active too long" in lines


def test_an_ascend_job_that_its_operator_refuses_has_failed(cluster: Cluster, store: Store) -> None:
    def refuse(at: Cluster) -> None:
        message = "QueueGetFailed: queues wordmill not found"
        failed = {"type": "Failed", "status": "True", "reason": "JobValidFailed", "message": message}
        at.job()["status"] = {"conditions": [{"type": "Created", "status": "True"}, failed]}

    cluster.installed, cluster.steps = ("mindxdl.gitee.com",), [refuse]
    with pytest.raises(RuntimeError, match="Failed: JobValidFailed: QueueGetFailed: queues wordmill not found"):
        run(store, PROFILES["ascend-4x8"])


@pytest.mark.parametrize("fault", ["lost before", "lost after", "401", "500", "503", "429", "410"])
def test_what_passes_is_ridden_out(fault: str, cluster: Cluster, store: Store, tmp_path: Path) -> None:
    def work(at: Cluster) -> None:
        at.phase("Running")
        at.add_pod(LEADER, "Running")

    requests = ("GET .*/pods/stage", "POST /apis/", f"GET {VOLCANO}", "GET .*/pods$", "GET .*/log", "GET .*/events",
                f"DELETE {VOLCANO}")  # fmt: skip
    cluster.faults = [(fault, request) for request in requests]
    cluster.steps = [work, work, work, finish(store, tmp_path)]
    assert run(store).facts == {"val_accuracy": 0.5}
    assert (len(cluster.made), cluster.jobs, cluster.faults) == (1, {}, [])


def test_kubernetes_may_be_away_for_some_minutes_and_no_longer(
    cluster: Cluster, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.faults = [("503", f"GET {VOLCANO}")] * 8
    cluster.steps = [finish(store, tmp_path)]
    run(store)
    assert capsys.readouterr().out.count("Kubernetes, asked to read jobs in namespace wordmill: 503 Service") == 1
    store.delete(job_key(KEY, "result.json"))
    monkeypatch.setattr(cluster_job, "AWAY_S", 0.0)
    cluster.faults = [("503", f"GET {VOLCANO}")] * 8
    with pytest.raises(RuntimeError, match=r"no answer for 0 s: Kubernetes, asked to read jobs .*: 503"):
        run(store)


def test_a_missing_right_is_named_with_what_to_do(cluster: Cluster, store: Store) -> None:
    cluster.rights.remove(("batch.volcano.sh", "jobs", "create"))
    with pytest.raises(
        RuntimeError, match=r"asked to create jobs.batch.volcano.sh in namespace wordmill: 403 .*: apply"
    ):
        run(store)


def test_what_a_quota_or_a_policy_refuses_is_quoted(cluster: Cluster, store: Store) -> None:
    cluster.refused = (403, 'jobs.batch "x" is forbidden: exceeded quota: all, requested: count/jobs.batch=1')
    with pytest.raises(RuntimeError, match=r": 403 Forbidden: .*exceeded quota: all, .*=1: apply the manifests"):
        run(store)


def test_what_an_admission_check_refuses_is_quoted(
    cluster: Cluster, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(manifests.MAKERS, manifests.VOLCANO, lambda *_: {"metadata": {"name": NAME}, "kind": "Job",
                                                               "apiVersion": "batch.volcano.sh/v1alpha1"})  # fmt: skip
    with pytest.raises(RuntimeError, match="422.*'spec' is a required property"):
        run(store)


def test_a_job_that_is_deleted_is_made_again_but_not_for_ever(cluster: Cluster, store: Store) -> None:
    cluster.steps = [lambda at: at.jobs[NAME]["metadata"].update(deletionTimestamp="now")] * 3
    with pytest.raises(RuntimeError, match=f"job {NAME} has been made 3 times and is gone again"):
        run(store)
    assert len(cluster.made) == 3


@pytest.mark.parametrize("in_workflow", [True, False])
def test_the_job_lives_through_the_loss_of_its_watching_pod_and_the_next_one_takes_it_up(
    in_workflow: bool, cluster: Cluster, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(at: Cluster) -> None:
        at.phase("Running")
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM)).start()

    if not in_workflow:
        cluster.pods["stage"]["metadata"]["ownerReferences"] = []
    cluster.steps = [stop]
    with pytest.raises(RuntimeError, match="stopped by SIGTERM"):
        run(store)
    assert (len(cluster.made), len(cluster.jobs)) == (1, int(in_workflow))
    if in_workflow:
        # One step may be taken by the request in which the signal came.
        cluster.steps = [lambda at: None, lambda at: None, finish(store, tmp_path)]
        run(store)
        assert (len(cluster.made), cluster.jobs) == (1, {})
        assert "is at work already: this stage goes on with it" in capsys.readouterr().out


def test_a_store_that_is_away_for_a_while_stops_nothing(
    cluster: Cluster, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = iter([True, False, False, True, True])

    def renew(*_: object) -> None:
        if not next(answers):
            raise RuntimeError("cannot write s3://b/jobs")

    monkeypatch.setattr(cluster_job, "RENEW_EVERY_S", 0.0)
    monkeypatch.setattr(cluster_job, "renew_lease", renew)
    cluster.steps = [lambda at: at.phase("Running"), lambda _: None, finish(store, tmp_path)]
    run(store)
    assert capsys.readouterr().out.count("train: lease: cannot write s3://b/jobs") == 1
    assert list(answers) == [True]


def test_a_log_that_cannot_be_had_stops_nothing(
    cluster: Cluster, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def work(at: Cluster) -> None:
        at.phase("Running")
        at.add_pod(LEADER, "Running")
        at.faults = [("500", "GET .*/log")] * 3

    monkeypatch.setattr(cluster_job, "AWAY_S", 0.0)
    cluster.steps = [work, work, work, finish(store, tmp_path)]
    assert run(store).facts == {"val_accuracy": 0.5}
    assert capsys.readouterr().out.count("train: report: Kubernetes, asked to read pods/log") == 1


def test_without_a_cluster_there_is_no_job(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(RuntimeError, match="a training's job needs a cluster"):
        run(store)


def test_a_job_that_is_started_again_after_a_node_has_failed_by_itself_is_ended(cluster: Cluster, store: Store) -> None:
    def restart(at: Cluster) -> None:
        at.job()["status"] = {"conditions": [{"type": "Restarting", "status": "True"}]}

    def fail(at: Cluster) -> None:
        restart(at)
        store.put_json(job_key(KEY, "failure.0.json"), {"error": "lost", "time": 1.0, "stopped": True})
        store.put_json(job_key(KEY, "failure.1.json"), {"error": "no label fits", "time": 2.0, "stopped": False})

    cluster.installed, cluster.steps = ("mindxdl.gitee.com",), [restart, fail]
    with pytest.raises(RuntimeError, match=r"^training on 4 nodes failed: no label fits\n"):
        run(store, PROFILES["ascend-4x8"])
    assert cluster.jobs == {}
