"""What a job's pods print, passed on by the stage's pod: of each pod all, in order, and once."""

import time
from pathlib import Path

import pytest

from tests.components.train.gang.cluster import NAME, JobController, left, terminated
from tests.components.train.gang.cluster import volcano_cluster as volcano_cluster  # a fixture, "cluster"
from tests.components.train.gang.kube_api import Cluster
from tests.components.train.gang.test_job_alone import controller as controller  # a fixture, "pods"
from tests.components.train.gang.test_job_alone import done, train
from wordmill.store.storage import Store

GONE = "unable to retrieve container logs for containerd://3bb6fd00e2a1"


def test_what_the_kubelet_says_instead_of_a_log_is_told_once_and_hides_nothing(
    cluster: Cluster, pods: JobController, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def lose(at: Cluster) -> None:
        pods.end(75, disrupted=True)(at)
        at.refused_logs[pods.pods[-1]] = GONE

    def work(at: Cluster) -> None:
        pods.begin(at)
        at.print(pods.pods[-1], "train  64/64 images")

    cluster.steps = [pods.begin, lose, lambda _: None, work, done(pods, store, tmp_path)]
    train(store)
    lines = capsys.readouterr().out.splitlines()
    assert lines.count(f"train: log of pod {NAME}-00000: {GONE}") == 1
    assert "train  64/64 images" in lines


def test_another_pods_clock_may_be_behind(
    cluster: Cluster, pods: JobController, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def work(at: Cluster) -> None:
        pods.begin(at)
        hours = 8 * len(pods.pods)
        at.logs[pods.pods[-1]] = [(time.time() - 3600 * hours, f"train  pod {len(pods.pods)}")]

    cluster.steps = [work, pods.end(75), work, done(pods, store, tmp_path)]
    train(store)
    printed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("train  pod")]
    assert printed == ["train  pod 1", "train  pod 2"]


def test_a_line_is_what_ends_with_a_line_feed(
    cluster: Cluster, pods: JobController, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def work(at: Cluster) -> None:
        pods.begin(at)
        at.print(pods.pods[-1], "label 'a\u2028b\x85c' fits")
        at.print(pods.pods[-1], "train  64/64 images")

    cluster.steps = [work, done(pods, store, tmp_path)]
    train(store)
    out = capsys.readouterr().out
    assert "\nlabel 'a\u2028b\x85c' fits\n" in out
    assert "\ntrain  64/64 images\n" in out


def test_pods_that_a_deleted_job_of_the_same_name_has_left_say_nothing(
    cluster: Cluster, pods: JobController, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.jobs[NAME] = left("batch/v1", startTime="2026-01-01T00:00:00Z")
    cluster.add_pod(f"{NAME}-abcde", "Failed", containerStatuses=terminated(137, "OOMKilled"))
    cluster.print(f"{NAME}-abcde", "of the job before")
    del cluster.jobs[NAME]
    cluster.steps = [lambda at: at.job().update(status={}), pods.begin, done(pods, store, tmp_path)]
    train(store)
    out = capsys.readouterr().out
    assert f"{NAME}-abcde" not in out
    assert "of the job before" not in out


def test_a_pod_that_lacked_memory_is_the_last_where_its_log_cannot_be_had(
    cluster: Cluster, pods: JobController, store: Store
) -> None:
    def kill(at: Cluster) -> None:
        pods.end(137, "OOMKilled")(at)
        at.faults = [("400", "GET .*/log")] * 9

    cluster.steps = [pods.begin, kill, pods.begin, pods.end(1)]
    with pytest.raises(RuntimeError, match="^OOMKilled"):
        train(store)
    assert len(pods.pods) == 1
