"""`submit --wait`: what is printed while a run goes on, and how it ends."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from components.report.cluster import NODE
from pipelines.cli import main
from pipelines.cluster import client, follow, submit
from pipelines.cluster.client import connect_kubeflow
from tests.components.train.gang.kube_api import Cluster, serving
from tests.pipelines.cluster.clock import Clock
from tests.pipelines.cluster.kfp_state import KfpServer
from wordmill.store.pods import RUN
from wordmill.store.storage import Store

USER = {("", "pods", "list"), ("argoproj.io", "workflows", "list")}  # what Kubeflow gives those who may edit a profile


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Clock:
    """Pauses take no time, and there is no cluster but one that a test has made."""
    found = Clock()
    monkeypatch.setattr(follow, "time", found)
    monkeypatch.setattr("pipelines.cluster.pods.time", found)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    for name in ("WORDMILL_BUCKET", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    return found


@pytest.fixture
def kubernetes(clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    monkeypatch.setattr(submit, "accepted_by", lambda server, spec: spec)  # which looks for what is not in this one
    found = Cluster(rights=set(USER))
    with serving(found, tmp_path) as kubeconfig:
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
        yield found


def tasks(**states: str) -> dict:
    """Return what the server says of a running run; `_` stands for the hyphens of task names."""
    details = [{"display_name": name.replace("_", "-"), "state": state} for name, state in states.items()]
    return {"state": "RUNNING", "run_details": {"task_details": details}}


def followed(kfp: KfpServer, spec: str, *story: dict) -> tuple[int, str]:
    """Start a run that lives through the story, follow it, and return the exit code and the run's id."""
    server = connect_kubeflow()
    run = submit.start_run(
        server, submit.publish(server, "quickstart", spec), "quickstart-1", "quickstart", again=False
    )
    kfp.story = list(story)
    return follow.follow(server, run.run_id, spec, "quickstart-1"), run.run_id


def words(printed: str) -> list[list[str]]:
    return [line.split()[1:] for line in printed.splitlines()]


def test_every_change_of_a_stage_is_one_line_under_its_display_name(
    kfp: KfpServer, spec: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _ = followed(
        kfp, spec,
        {"state": "PENDING"},
        tasks(root="RUNNING", fetch_driver="SUCCEEDED", executor="RUNNING", fetch="RUNNING"),
        tasks(root="RUNNING", fetch="RUNNING"),
        tasks(fetch="SUCCEEDED", evaluate="RUNNING", evaluate_2="RUNNING", smoke_2="PENDING"),
        tasks(fetch="SUCCEEDED", evaluate="SUCCEEDED", evaluate_2="RUNNING", smoke_2="RUNNING"),
        {**tasks(evaluate_2="SUCCEEDED", smoke_2="SUCCEEDED"), "state": "SUCCEEDED"},
    )  # fmt: skip
    assert code == 0
    assert words(capsys.readouterr().out) == [
        ["fetch", "RUNNING"],
        ["fetch", "SUCCEEDED"],
        ["rendered_easy", "RUNNING"],
        ["rendered_hard", "RUNNING"],
        ["onnx", "smoke", "test", "PENDING"],
        ["rendered_easy", "SUCCEEDED"],
        ["onnx", "smoke", "test", "RUNNING"],
        ["rendered_hard", "SUCCEEDED"],
        ["onnx", "smoke", "test", "SUCCEEDED"],
        ["quickstart-1", "SUCCEEDED"],
    ]


def test_a_server_that_reports_display_names_is_understood_too(
    kfp: KfpServer, spec: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    task = {"display_name": "onnx smoke test", "state": "RUNNING"}
    followed(kfp, spec, {"state": "SUCCEEDED", "run_details": {"task_details": [task]}})
    assert words(capsys.readouterr().out)[0] == ["onnx", "smoke", "test", "RUNNING"]


@pytest.mark.parametrize("state", ["FAILED", "CANCELED", "SKIPPED"])
def test_a_run_that_does_not_succeed_ends_with_code_1_and_names_what_failed(
    kfp: KfpServer, spec: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], state: str
) -> None:
    end = {**tasks(fetch="SUCCEEDED", train="FAILED"), "state": state, "error": {"code": 2, "message": "out of time"}}
    code, run_id = followed(kfp, spec, end)
    assert code == 1
    what = "was stopped by hand" if state == "CANCELED" else f"ended as {state}: out of time"
    assert capsys.readouterr().out.splitlines()[-3:] == [
        f"error: the run {what}",
        "  failed: train; why is in the report on the run's page and in the stages' logs",
        f"  {kfp.url}/#/runs/details/{run_id}",
    ]


def test_interrupting_leaves_the_run_alone(
    kfp: KfpServer, spec: str, clock: Clock, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(clock, "sleep", interrupted)
    code, run_id = followed(kfp, spec, tasks(fetch="RUNNING"))
    assert code == 130
    assert capsys.readouterr().out.endswith(f"the run goes on: {kfp.url}/#/runs/details/{run_id}\n")
    assert [request for request in kfp.requests if "terminate" in request or "DELETE" in request] == []


def test_an_outage_of_any_kind_while_waiting_is_sat_out_and_told_once(
    kfp: KfpServer, spec: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(client, "TIMEOUT_S", (30, 1))
    faults = ["401", "403", "503", "lost", "page", "404"] * 4  # a cluster whose API server is started again
    kfp.faults = [(what, "GET runs/.*") for what in faults]
    code, _ = followed(kfp, spec, tasks(fetch="RUNNING"), {"state": "SUCCEEDED"})
    assert (code, kfp.faults) == (0, [])
    out = capsys.readouterr().out
    assert out.count("refuses with 401: the database is away") == 1
    assert "the run itself goes on, and is asked for again for 10:00" in out
    assert out.count("Kubeflow answers again") == 1


def test_a_server_that_stays_away_ends_the_following_and_not_the_run(kfp: KfpServer, spec: str, clock: Clock) -> None:
    kfp.faults = [("401", "GET runs/.*")] * 80
    with pytest.raises(
        RuntimeError, match="refuses with 401.*KFP_EXISTING_TOKEN.*so for 10:00; the run itself goes on: http"
    ):
        followed(kfp, spec, tasks(fetch="RUNNING"))
    assert 600 < clock.now < 630
    assert not [request for request in kfp.requests if "terminate" in request]


def test_a_failed_run_ends_with_each_stages_own_sentence_and_where_its_log_is(
    kfp: KfpServer, kubernetes: Cluster, spec: str, capsys: pytest.CaptureFixture[str]
) -> None:
    kfp.on_run = lambda run_id: add_pod(
        kubernetes, run_id, "p-1", "train", "Failed", containerStatuses=ended(1, "train crnn: training diverged")
    )
    end = {**tasks(fetch="SUCCEEDED", train="FAILED"), "state": "FAILED"}
    assert followed(kfp, spec, end)[0] == 1
    lines = capsys.readouterr().out.splitlines()
    assert "  train: ended with code 1: train crnn: training diverged" in lines
    assert "  train: its log: kubectl -n wordmill logs p-1 -c main" in lines


def test_what_the_report_found_is_told_where_the_sites_store_is_known(
    kfp: KfpServer, spec: str, store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORDMILL_BUCKET", store.bucket)
    store.put_json("runs/quickstart-1/summary.json", {"errors": ["train crnn: training diverged"]})
    followed(kfp, spec, {**tasks(train="FAILED"), "state": "FAILED"})
    assert capsys.readouterr().out.splitlines()[-3:-1] == [
        "  train crnn: training diverged", "  failed: train; their logs are on the run's page"
    ]  # fmt: skip


def test_what_the_report_found_is_told_where_the_sites_mlflow_is_known(
    kfp: KfpServer, spec: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    logged = {("r1", "summary.json"): {"errors": ["train crnn: training diverged", "gate: x"]}}
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow")
    monkeypatch.setattr("components.report.compare.runs.find_run", lambda name: SimpleNamespace(run_id="r1"))
    monkeypatch.setattr("wordmill.store.experiments.run_document", lambda run_id, path: logged[run_id, path])
    followed(kfp, spec, {**tasks(train="FAILED"), "state": "FAILED"})
    assert {"  train crnn: training diverged", "  gate: x"} <= set(capsys.readouterr().out.splitlines())


def test_pods_that_were_refused_say_so_in_kubernetes_words(
    kfp: KfpServer, kubernetes: Cluster, spec: str, capsys: pytest.CaptureFixture[str]
) -> None:
    message = (
        'pods "x" is forbidden: error looking up service account kubeflow/wordmill-stage: serviceaccount not found'
    )
    kfp.on_run = lambda run_id: add_node(kubernetes, run_id, "fetch-driver", "Error", message)
    followed(kfp, spec, {"state": "FAILED"})
    assert f"  fetch: {message}" in capsys.readouterr().out.splitlines()


def test_a_pod_that_waits_is_told_once_and_waited_for(
    kfp: KfpServer, kubernetes: Cluster, spec: str, capsys: pytest.CaptureFixture[str]
) -> None:
    waits = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": "0/1 nodes: Insufficient cpu",
    }
    kfp.on_run = lambda run_id: add_pod(kubernetes, run_id, "p-1", "shard", "Pending", conditions=[waits])
    code, _ = followed(kfp, spec, *[tasks(shard="PENDING")] * 100, {"state": "SUCCEEDED"})
    assert code == 0
    told = [line for line in capsys.readouterr().out.splitlines() if "Insufficient cpu" in line]
    assert [" ".join(line.split()) for line in told] == [
        "2:00 shard has waited for 2:00: Pending: Unschedulable: 0/1 nodes: Insufficient cpu"
    ]


@pytest.mark.parametrize("may", [True, False])
def test_a_pod_that_is_on_its_node_and_waits_is_told_with_kubernetes_last_warning(
    kfp: KfpServer, kubernetes: Cluster, spec: str, capsys: pytest.CaptureFixture[str], may: bool
) -> None:
    kubernetes.rights |= {("", "events", "list")} if may else set()
    for pod, why in (("p-1", "FailedScheduling: before"), ("p-1", "FailedMount: no cache"), ("p-2", "BackOff: other")):
        kubernetes.warn("Pod", pod, *why.split(": "))
    kfp.on_run = lambda run_id: add_pod(kubernetes, run_id, "p-1", "shard", "Pending")
    followed(kfp, spec, *[tasks(shard="PENDING")] * 20, {"state": "SUCCEEDED"})
    (told,) = [line for line in capsys.readouterr().out.splitlines() if "has waited" in line]
    assert told.endswith(f"shard has waited for 2:00: Pending on machine-1{': FailedMount: no cache' * may}")


def test_a_pod_whose_image_there_is_not_is_not_waited_for_for_ever(
    kfp: KfpServer, kubernetes: Cluster, spec: str, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    state = {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image x"}}
    kfp.on_run = lambda run_id: add_pod(
        kubernetes, run_id, "p-1", "shard", "Pending", containerStatuses=[container(state)]
    )
    code, run_id = followed(kfp, spec, *[tasks(shard="PENDING")] * 100)
    assert (code, clock.now) == (1, 600.0)
    assert f"POST runs/{run_id}:terminate" in kfp.requests
    assert "error: shard waits in vain: ImagePullBackOff: Back-off pulling image x: the run was stopped: " in (
        capsys.readouterr().out
    )


UNSCHEDULABLE = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
                 "message": "0/1 nodes are available: 1 Insufficient memory."}  # fmt: skip


@pytest.mark.parametrize(("memory", "scaled", "ends"), [("30Gi", "", True), ("32Gi", "", False),
                                                        ("30Gi", "TriggeredScaleUp", False)])  # fmt: skip
def test_a_pod_that_no_node_is_large_enough_for_is_not_waited_for_unless_a_node_will_come(
    kfp: KfpServer, kubernetes: Cluster, spec: str, clock: Clock, capsys: pytest.CaptureFixture[str],
    memory: str, scaled: str, ends: bool,
) -> None:  # fmt: skip
    kubernetes.nodes = [{"metadata": {"name": "n"}, "status": {"allocatable": {"cpu": "8", "memory": memory}}}]
    kubernetes.rights |= {("", "events", "list")}
    if scaled:
        kubernetes.warn("Pod", "p-1", scaled, "pod triggered scale-up", "Normal")

    def wait(run_id: str) -> None:
        add_pod(kubernetes, run_id, "p-1", "shard", "Pending", conditions=[UNSCHEDULABLE])
        kubernetes.pods["p-1"]["spec"] = {"containers": [
            {"name": "main", "resources": {"requests": {"cpu": "2", "memory": "31Gi"}}},
            {"name": "wait", "resources": {"requests": {"memory": "64Mi"}}},
        ]}  # fmt: skip

    kfp.on_run = wait
    code, _ = followed(kfp, spec, *[tasks(shard="PENDING")] * 100, {"state": "SUCCEEDED"})
    assert (code, clock.now == 600.0) == (int(ends), ends)
    told = (
        "error: shard waits in vain: Pending: Unschedulable: 0/1 nodes are available: 1 Insufficient memory.: the run"
    )
    assert (told in capsys.readouterr().out) == ends


@pytest.mark.parametrize(("used", "limit", "ends"), [("0", "8", True), ("8", "16", False)])
def test_a_pod_that_its_quota_never_allows_is_not_waited_for(
    kfp: KfpServer, kubernetes: Cluster, spec: str, clock: Clock, used: str, limit: str, ends: bool
) -> None:
    message = (
        'pods "x" is forbidden: exceeded quota: all, requested: limits.cpu=16,limits.memory=2Gi, '
        f"used: limits.cpu={used},limits.memory=1Gi, limited: limits.cpu={limit},limits.memory=2Gi"
    )
    kfp.on_run = lambda run_id: add_node(kubernetes, run_id, "fetch", "Pending", message)
    code, _ = followed(kfp, spec, *[tasks(fetch="PENDING")] * 100, {"state": "SUCCEEDED"})
    assert (code, clock.now == 600.0) == (int(ends), ends)


def test_a_run_that_only_repeats_itself_is_ended(
    kfp: KfpServer, kubernetes: Cluster, spec: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Kubeflow 2.16 drops the security context, every pod is refused, and retries of every level go on for long."""
    message = 'pods "x" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot != true'
    kfp.on_run = lambda run_id: add_node(kubernetes, run_id, "fetch", "Error", message)
    story = []
    for attempt in range(1, 20):
        entries = [{"display_name": "fetch", "task_id": f"t{i}", "state": "FAILED",
                    "start_time": f"2026-01-01T00:00:{i:02}+00:00", "end_time": f"2026-01-01T00:00:{i:02}+00:00"}
                   for i in range(attempt)]  # fmt: skip
        story.append({"state": "RUNNING", "run_details": {"task_details": entries}})
    code, run_id = followed(kfp, spec, *story)
    assert (code, len(kfp.story)) == (1, 14)  # five attempts were seen
    assert f"POST runs/{run_id}:terminate" in kfp.requests
    out = capsys.readouterr().out
    assert f"error: fetch has failed 5 times, each within 2:00: {message}: the run was stopped: " in out
    assert out.count("FAILED") == 1  # of one stage, however many attempts the server lists


def test_attempts_that_get_on_are_not_counted(kfp: KfpServer, spec: str) -> None:
    entries = [{"display_name": "train", "task_id": f"t{i}", "state": "FAILED",
                "start_time": f"2026-01-0{i + 1}T00:00:00+00:00", "end_time": f"2026-01-0{i + 1}T09:00:00+00:00"}
               for i in range(8)]  # fmt: skip
    running = {"state": "RUNNING", "run_details": {"task_details": entries}}
    assert followed(kfp, spec, running, running, {"state": "SUCCEEDED"})[0] == 0


def test_tasks_that_were_left_out_are_no_news(kfp: KfpServer, spec: str, capsys: pytest.CaptureFixture[str]) -> None:
    followed(kfp, spec, {**tasks(fetch="SUCCEEDED", train="RUNTIME_STATE_UNSPECIFIED"), "state": "SUCCEEDED"})
    assert words(capsys.readouterr().out) == [["fetch", "SUCCEEDED"], ["quickstart-1", "SUCCEEDED"]]


def add_pod(cluster: Cluster, run_id: str, name: str, task: str, phase: str, **status: Any) -> None:
    cluster.add_pod(name, phase, job="none", **status)
    cluster.pods[name]["metadata"] |= {
        "labels": {RUN: run_id}, "annotations": {NODE: f"wf.root.exit-handler-1.{task}.executor(0)"},
        "creationTimestamp": "2026-01-01T00:00:00Z",
    }  # fmt: skip


def add_node(cluster: Cluster, run_id: str, task: str, phase: str, message: str) -> None:
    node = {"name": f"wf.root.exit-handler-1.{task}", "type": "Pod", "phase": phase, "message": message}
    cluster.workflows["wf"] = {"metadata": {"name": "wf", "labels": {RUN: run_id}}, "status": {"nodes": {"n": node}}}


def container(state: dict[str, Any]) -> dict[str, Any]:
    return {"name": "main", "image": "i", "imageID": "", "ready": False, "restartCount": 0, "state": state}


def ended(code: int, message: str) -> list[dict[str, Any]]:
    return [container({"terminated": {"exitCode": code, "reason": "Error", "message": message}})]


def test_submit_waits_where_told_to(kfp: KfpServer) -> None:
    kfp.story = [{"state": "RUNNING"}, {"state": "FAILED"}]
    with pytest.raises(SystemExit) as end:
        main(["submit", "quickstart", "--wait"])
    assert end.value.code == 1
