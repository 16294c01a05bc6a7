"""The stage's side of a job, with Kubernetes's real client against kube_api.py and a real S3 server."""

import subprocess
import time
from pathlib import Path

import pytest

from components.train import stage
from components.train.gang.work import job_key, read_work
from components.train.watch import Sender
from pipelines.cluster.tasks import gang_job
from pipelines.profiles import PROFILES
from tests.components.train.gang.cluster import LEADER, NAME, WORK, finish, left, put_result, run, terminated
from tests.components.train.gang.cluster import volcano_cluster as volcano_cluster  # a fixture, "cluster"
from tests.components.train.gang.kube_api import Cluster
from tests.components.train.test_stage import combined_manifest
from tests.golden.jobs import CPUS, KEY, spec
from tests.wordmill.training.tiny import DATA, MODEL, TRAIN
from wordmill.recipe.parsing import struct_text, to_json
from wordmill.store.artifacts import read_manifest
from wordmill.store.storage import Store


def test_a_job_is_made_followed_and_gone_and_its_result_taken(
    cluster: Cluster, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def wait(at: Cluster) -> None:
        at.phase("Pending")
        reason = {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": "0/4 nodes\nare free",
        }
        at.add_pod(LEADER, "Pending", conditions=[reason])
        at.warn("PodGroup", f"{NAME}-1f2e", "Unschedulable", "1/2 tasks in gang unschedulable")
        at.warn("Pod", "another", "Failed", "not ours")

    def work(at: Cluster) -> None:
        at.phase("Running")
        at.add_pod(LEADER, "Running")
        at.print(LEADER, "train  32/64 images")

    def end(at: Cluster) -> None:
        at.phase("Completed")
        at.add_pod(LEADER, "Succeeded", containerStatuses=terminated(0, "Completed"))
        at.print(LEADER, "train  64/64 images")
        put_result(store, tmp_path)

    cluster.steps = [wait, wait, work, work, end]
    made = run(store)
    assert (made.facts, made.metrics, made.curves) == ({"val_accuracy": 0.5}, {"m": 1.0}, {"c": [[1, 2.0, 3.0]]})
    (weights,) = made.stored
    assert (weights.name, store.fetch(weights).read_bytes(), made.files) == ("model.safetensors", b"weights", {})
    assert cluster.jobs == {}
    (job,) = cluster.made
    assert (job["kind"], job["metadata"]["ownerReferences"][0]["name"]) == ("Job", "run-x")
    assert job["spec"]["tasks"][0]["template"]["metadata"]["labels"]["pipeline/runid"] == "run-id"  # for who follows it
    assert read_work(store, KEY) == WORK
    assert store.get_json(job_key(KEY, "lease.json"))["renewed"] > time.time() - 60
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        f"train: made job {NAME}: 2 nodes of 2 processes",
        f"train: job {NAME}: Pending",
        f"train: pod {LEADER}: Pending: Unschedulable: 0/4 nodes are free",
        f"train: PodGroup {NAME}-1f2e: Unschedulable: 1/2 tasks in gang unschedulable",
        f"train: job {NAME}: Running",
        f"train: pod {LEADER}: Running on machine-1",
        "train  32/64 images",
        "train  32/64 images",
        f"train: job {NAME}: Completed",
        f"train: pod {LEADER}: ended with code 0",
        "train  64/64 images",
    ]


def test_npus_get_an_ascend_job_where_mindcluster_is_installed_and_a_volcano_job_elsewhere(
    cluster: Cluster, store: Store, tmp_path: Path
) -> None:
    def end(at: Cluster) -> None:
        at.job()["status"] = {"conditions": [{"type": "Running", "status": "False"}, {"type": "Succeeded"}]}
        put_result(store, tmp_path)

    cluster.installed, cluster.steps = ("batch.volcano.sh", "mindxdl.gitee.com"), [end]
    run(store, PROFILES["ascend-4x8"], "mindspore")
    store.delete(job_key(KEY, "result.json"))
    cluster.installed, cluster.steps = ("batch.volcano.sh",), [finish(store, tmp_path)]
    run(store, PROFILES["ascend-4x8"], "mindspore")
    assert [job["kind"] for job in cluster.made] == ["AscendJob", "Job"]


def test_a_stage_that_starts_again_goes_on_with_the_job_at_work(
    cluster: Cluster, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.jobs[NAME] = left("batch.volcano.sh/v1alpha1", state={"phase": "Running"})
    cluster.steps = [lambda _: None, finish(store, tmp_path)]
    run(store)
    assert cluster.made == []
    assert f"train: job {NAME} is at work already: this stage goes on with it" in capsys.readouterr().out
    assert cluster.jobs == {}


def test_a_job_that_another_attempt_left_dead_is_made_again(
    cluster: Cluster, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.jobs[NAME] = left("batch.volcano.sh/v1alpha1", state={"phase": "Aborted"})
    store.put_json(job_key(KEY, "failure.1.json"), {"error": "of the attempt before", "time": 1.0, "stopped": False})
    store.put_json(job_key(KEY, "starts.json"), {"step": 0, "starts": 4})
    cluster.lingers = 3
    cluster.steps = [lambda _: None, finish(store, tmp_path)]
    run(store)
    assert len(cluster.made) == 1
    assert f"train: job {NAME} is left from before: it is made again" in capsys.readouterr().out
    assert [*store.keys(job_key(KEY, "failure.")), *store.keys(job_key(KEY, "starts."))] == []


def test_a_result_that_is_there_needs_no_job(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    put_result(store, tmp_path)
    assert run(store).facts == {"val_accuracy": 0.5}


def test_a_restarting_ascend_job_is_waited_for(cluster: Cluster, store: Store, tmp_path: Path) -> None:
    def restart(at: Cluster) -> None:
        failed = {"type": "Failed", "status": "False"}
        at.job()["status"] = {"conditions": [failed, {"type": "Restarting", "status": "True"}]}

    def end(at: Cluster) -> None:
        at.job()["status"] = {"conditions": [{"type": "Succeeded", "status": "True"}]}
        put_result(store, tmp_path)

    cluster.installed, cluster.steps = ("mindxdl.gitee.com",), [restart, restart, end]
    assert run(store, PROFILES["ascend-4x8"]).facts == {"val_accuracy": 0.5}


def test_several_nodes_and_one_node_with_as_many_processes_do_the_same_work(
    cluster: Cluster, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end(at: Cluster) -> None:
        (told,) = [store.get_json(key) for key in store.keys("jobs/") if key.endswith("/job.json")]
        assert (told["nodes"], told["processes"], told["recipe"], told["run_tag"]) == (2, 2, "tiny", "tag")
        assert told["mlflow_run"] == "r-7"
        assert told["shards"]["facts"]["datasets"] == {"t": "shard/key-t", "v": "shard/key-v"}
        at.phase("Completed")
        put_result(store, tmp_path, told["key"])

    cluster.steps = [end]
    monkeypatch.setenv("MLFLOW_RUN_ID", "r-7")  # of Kubeflow's MLflow plugin
    arguments = {
        "recipe": "tiny", "data": to_json(DATA), "model": to_json(MODEL), "train": to_json(TRAIN), "device": "cpu",
        "shards": str(combined_manifest(store, tmp_path)), "run_tag": "tag", "output": str(tmp_path / "out.json"),
    }  # fmt: skip
    reference = stage.run(processes=2, gang=struct_text(gang_job(CPUS, "pytorch")), **arguments)
    manifest = read_manifest(tmp_path / "out.json")
    sets = {"train_sets": ["shard/key-t"], "val_sets": ["shard/key-v"]}
    assert (manifest.inputs["processes"], manifest.facts) == (4, {"val_accuracy": 0.5, **sets})
    assert [entry.name for entry in manifest.objects] == ["model.safetensors"]
    monkeypatch.setattr(subprocess, "Popen", None)  # nothing may be started again
    assert stage.run(processes=4, gang="", **arguments) == reference


def test_a_gang_that_does_not_fit_the_other_parameters_is_refused(store: Store, tmp_path: Path) -> None:
    shards = read_manifest(combined_manifest(store, tmp_path))
    message = "gang: it is made for 2 processes on cpu with mindspore, not 2 on cpu with pytorch: compile"
    with pytest.raises(ValueError, match=message):
        stage.train_or_find(store, DATA, MODEL, TRAIN, shards, "cpu", 2, Sender(store, "tag", "tiny"),
                            spec(CPUS, "mindspore"))  # fmt: skip
