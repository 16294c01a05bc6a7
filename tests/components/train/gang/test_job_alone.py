"""A job of one node: its pods are lost in every way, and the stage's side of it."""

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from components.train.gang import job as cluster_job
from components.train.gang.work import job_key
from pipelines.profiles import PROFILES
from tests.components.train.gang.cluster import LEADER, NAME, JobController, left, put_result, run, terminated
from tests.components.train.gang.cluster import volcano_cluster as volcano_cluster  # a fixture, "cluster"
from tests.components.train.gang.kube_api import Cluster
from tests.golden.jobs import KEY
from wordmill.store.runs import starts_key
from wordmill.store.stages import StageResult
from wordmill.store.storage import Store

STARTS = starts_key("tag")  # of the work of these tests
LIMIT = "64Gi"


def train(store: Store) -> StageResult:
    return run(store, PROFILES["gpu-1"])


@pytest.fixture(name="pods")
def controller(cluster: Cluster, store: Store, tmp_path: Path) -> JobController:
    """The controller of a cluster without Volcano; whatever is stored of the run was there when its pod began."""
    cluster.installed = ("batch", "argoproj.io")
    store.put_json(STARTS, {"step": 40, "starts": 1, "pod": "", "limit": 64 * 2**30})
    return JobController()


def done(pods: JobController, store: Store, folder: Path) -> Callable[[Cluster], None]:
    def step(at: Cluster) -> None:
        put_result(store, folder)
        pods.end(0, "Completed")(at)

    return step


EVICTED = {"reason": "Evicted", "message": "The node was low on resource: ephemeral-storage."}
SHUT_DOWN = {"reason": "Terminated", "message": "Pod was terminated in response to imminent node shutdown."}


def test_the_job_outlives_every_loss_that_a_repeat_can_help(
    cluster: Cluster, pods: JobController, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def work(at: Cluster) -> None:
        pods.begin(at)
        at.print(pods.pods[-1], f"train  pod {len(pods.pods)}")

    ends = [
        pods.end(137, disrupted=True, **EVICTED),
        pods.end(1, disrupted=True, **SHUT_DOWN),  # its last words do not decide
        pods.end(75, disrupted=True),  # preempted, or drained from its node
        pods.end(75),  # deleted in order
        pods.end(137),  # deleted by force
        pods.end(255, "Unknown"),  # its machine went off
    ]
    cluster.steps = [step for end in ends for step in (work, end)] + [work, done(pods, store, tmp_path)]
    assert train(store).facts == {"val_accuracy": 0.5}
    assert (len(cluster.made), cluster.jobs, len(pods.pods)) == (1, {}, 7)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:5] == [
        f"train: made job {NAME}: 1 node of 1 process",
        f"train: job {NAME}: 1 active",
        f"train: pod {NAME}-00000: Running on machine-1",
        "train  pod 1",
        f"train: job {NAME}: no pod now",
    ]
    assert f"train: pod {NAME}-00000: Evicted: {EVICTED['message']}" in lines
    assert f"train: job {NAME}: 2 failed" in lines  # what neither says that it is to be repeated nor is a disruption
    assert [line for line in lines if line.startswith("train  pod")] == [f"train  pod {one}" for one in range(1, 8)]


def test_what_fails_by_itself_is_not_repeated(cluster: Cluster, pods: JobController, store: Store) -> None:
    def fail(at: Cluster) -> None:
        failure = {"error": "training failed with code 1: ValueError in process 0: x", "time": 1.0, "stopped": False}
        store.put_json(job_key(KEY, "failure.0.json"), failure)
        pods.end(1)(at)

    cluster.steps = [pods.begin, pods.end(75), pods.begin, fail]
    with pytest.raises(RuntimeError) as caught:
        train(store)
    assert str(caught.value) == (
        f"training failed with code 1: ValueError in process 0: x\npod {NAME}-00001: ended with code 1\n"
        f"its log is in bucket '{store.bucket}' at jobs/{KEY}/log.0.txt"
    )
    assert cluster.jobs == {}


def test_a_pod_that_was_killed_for_memory_is_the_last_and_the_run_begins_none_with_the_same(
    cluster: Cluster, pods: JobController, store: Store
) -> None:
    def kill(at: Cluster) -> None:
        pods.end(137, "OOMKilled")(at)
        at.pods[pods.pods[-1]]["spec"]["containers"][0]["resources"] = {"limits": {"memory": LIMIT}}

    cluster.steps = [pods.begin, kill, pods.begin]
    with pytest.raises(RuntimeError) as caught:
        train(store)
    text = f"OOMKilled: it needs more memory than its limit of {LIMIT}, which it reached after 31 s: give the profile "
    assert str(caught.value).splitlines()[0].startswith(text)
    assert len(pods.pods) == 1
    assert cluster.jobs == {}
    told = store.get_json(STARTS)
    assert told["memory"] == 64 * 2**30
    assert told["error"].startswith(text)


def test_a_pod_of_an_earlier_job_that_was_killed_for_memory_ends_nothing(
    cluster: Cluster, pods: JobController, store: Store, tmp_path: Path
) -> None:
    cluster.jobs[NAME] = left("batch/v1", startTime="2026-01-01T00:00:00Z")
    cluster.add_pod(f"{NAME}-abcde", "Failed", containerStatuses=terminated(137, "OOMKilled"))
    del cluster.jobs[NAME]
    cluster.steps = [pods.begin, done(pods, store, tmp_path)]
    assert train(store).facts == {"val_accuracy": 0.5}


def test_the_deadline_of_the_job_is_a_word_of_its_own(cluster: Cluster, pods: JobController, store: Store) -> None:
    def end(at: Cluster) -> None:
        why = {"reason": "DeadlineExceeded", "message": "Job was active longer than specified deadline"}
        conditions = [{"type": name, "status": "True", **why} for name in ("FailureTarget", "Failed")]
        at.job()["status"] = {"startTime": "2026-01-01T00:00:00Z", "conditions": conditions}
        at.add_pod(pods.pods[-1], "Failed", **SHUT_DOWN)

    cluster.steps = [pods.begin, end]
    with pytest.raises(RuntimeError, match=f"^job {NAME} ended, Failed: DeadlineExceeded: Job was active longer than"):
        train(store)


def test_a_lost_watching_pod_finds_the_job_again_and_a_dead_one_is_made_again(
    cluster: Cluster, pods: JobController, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(at: Cluster) -> None:
        pods.begin(at)
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM)).start()

    cluster.steps = [stop]
    with pytest.raises(RuntimeError, match="stopped by SIGTERM"):
        train(store)
    assert list(cluster.jobs) == [NAME]
    cluster.steps = [pods.end(75), pods.begin, done(pods, store, tmp_path)]
    assert train(store).facts == {"val_accuracy": 0.5}
    assert f"train: job {NAME} is at work already: this stage goes on with it" in capsys.readouterr().out
    assert (len(cluster.made), len(pods.pods)) == (1, 2)

    store.delete(job_key(KEY, "result.json"))
    cluster.jobs[NAME] = left("batch/v1", conditions=[{"type": "Failed", "status": "True"}])
    again = JobController()
    cluster.steps = [lambda _: None, again.begin, done(again, store, tmp_path)]
    assert train(store).facts == {"val_accuracy": 0.5}
    assert f"train: job {NAME} is left from before: it is made again" in capsys.readouterr().out


def test_a_program_that_never_begins_is_not_tried_for_days(cluster: Cluster, pods: JobController, store: Store) -> None:
    """Such as that of an image for other processors: Kubernetes waits ten minutes before each pod at last."""
    cluster.steps = [pods.begin, pods.end(255)] * 20
    with pytest.raises(RuntimeError, match=f"^job {NAME} ended, Failed: BackoffLimitExceeded"):
        train(store)
    assert len(pods.pods) == 11


def test_a_missing_right_is_named(cluster: Cluster, pods: JobController, store: Store) -> None:
    cluster.rights.remove(("batch", "jobs", "create"))
    with pytest.raises(RuntimeError, match=r"asked to create jobs.batch in namespace wordmill: 403 .*: apply the mani"):
        train(store)


def test_several_nodes_that_lack_memory_are_not_started_again_either(cluster: Cluster, store: Store) -> None:
    def kill(at: Cluster) -> None:
        at.phase("Running")
        at.add_pod(LEADER, "Failed", containerStatuses=terminated(137, "OOMKilled"))

    cluster.steps = [kill]
    with pytest.raises(RuntimeError, match="^training on 2 nodes failed: OOMKilled: it needs more memory than its lim"):
        run(store)
    assert cluster.jobs == {}


def test_what_is_asked_often_stays_short(cluster: Cluster, pods: JobController, store: Store, tmp_path: Path) -> None:
    """Every look asks for the job and its pods, and for the log of the newest one alone."""
    cluster.steps = [pods.begin, pods.end(75), pods.begin, done(pods, store, tmp_path)]
    train(store)
    logs = [request.split("/")[-2] for request in cluster.requests if request.endswith("/log")]
    assert list(dict.fromkeys(logs)) == pods.pods
    assert cluster_job.LOOK_EVERY_S < 10  # seconds that Kubernetes waits at least before it makes another pod


def test_work_that_another_run_has_followed_to_its_end_is_not_done_again(
    cluster: Cluster, pods: JobController, store: Store, tmp_path: Path
) -> None:
    def end(at: Cluster) -> None:
        done(pods, store, tmp_path)(at)
        at.jobs.clear()  # by the run that saw it first

    cluster.steps = [pods.begin, end]
    assert train(store).facts == {"val_accuracy": 0.5}
    assert len(cluster.made) == 1


def test_a_job_that_ends_before_it_is_looked_at_is_not_made_again(
    cluster: Cluster, pods: JobController, store: Store, tmp_path: Path
) -> None:
    cluster.jobs[NAME] = left("batch/v1", startTime="2026-01-01T00:00:00Z")
    cluster.steps = [lambda at: (pods.begin(at), done(pods, store, tmp_path)(at))[0]]
    assert train(store).facts == {"val_accuracy": 0.5}
    assert (cluster.made, cluster.jobs) == ([], {})
