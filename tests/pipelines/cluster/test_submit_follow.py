"""`submit --wait`: what is printed while a run goes on, and how it ends."""

import pytest

from pipelines.cli import main
from pipelines.cluster import client, submit
from pipelines.cluster.client import connect_kubeflow
from tests.pipelines.cluster.kfp_state import KfpServer


def tasks(**states: str) -> dict:
    """Return what the server says of a running run; `_` stands for the hyphens of task names."""
    details = [{"display_name": name.replace("_", "-"), "state": state} for name, state in states.items()]
    return {"state": "RUNNING", "run_details": {"task_details": details}}


def followed(kfp: KfpServer, spec: str, monkeypatch: pytest.MonkeyPatch, *story: dict) -> tuple[int, str]:
    """Start a run that lives through the story, follow it, and return the exit code and the run's id."""
    monkeypatch.setattr(submit, "POLL_S", 0.0)
    server = connect_kubeflow()
    run = submit.start_run(
        server, submit.publish(server, "quickstart", spec), "quickstart-1", "quickstart", again=False
    )
    kfp.story = list(story)
    return submit.follow(server, run.run_id, spec), run.run_id


def words(printed: str) -> list[list[str]]:
    return [line.split()[1:] for line in printed.splitlines()]


def test_every_change_of_a_stage_is_one_line_under_its_display_name(
    kfp: KfpServer, spec: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _ = followed(
        kfp, spec, monkeypatch,
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
    followed(kfp, spec, monkeypatch, {"state": "SUCCEEDED", "run_details": {"task_details": [task]}})
    assert words(capsys.readouterr().out)[0] == ["onnx", "smoke", "test", "RUNNING"]


@pytest.mark.parametrize("state", ["FAILED", "CANCELED", "SKIPPED"])
def test_a_run_that_does_not_succeed_ends_with_code_1_and_names_what_failed(
    kfp: KfpServer, spec: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], state: str
) -> None:
    end = {**tasks(fetch="SUCCEEDED", train="FAILED"), "state": state, "error": {"code": 2, "message": "out of time"}}
    code, _ = followed(kfp, spec, monkeypatch, end)
    assert code == 1
    assert capsys.readouterr().out.splitlines()[-1] == f"error: the run ended as {state}: train out of time"


def test_interrupting_leaves_the_run_alone(
    kfp: KfpServer, spec: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(submit.time, "sleep", interrupted)
    code, run_id = followed(kfp, spec, monkeypatch, tasks(fetch="RUNNING"))
    assert code == 130
    assert capsys.readouterr().out.endswith(f"the run goes on: {kfp.url}/#/runs/details/{run_id}\n")
    assert [request for request in kfp.requests if "terminate" in request or "DELETE" in request] == []


def test_an_outage_while_waiting_is_sat_out(kfp: KfpServer, spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "TIMEOUT_S", (30, 1))
    kfp.faults = [("503", "GET runs/.*"), ("slow", "GET runs/.*"), ("lost", "GET runs/.*")]
    code, _ = followed(kfp, spec, monkeypatch, tasks(fetch="RUNNING"), {"state": "SUCCEEDED"}, {"state": "SUCCEEDED"})
    assert (code, kfp.faults) == (0, [])


def test_a_token_that_expires_while_waiting_does_not_look_like_a_failed_run(
    kfp: KfpServer, spec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kfp.faults = [("401", "GET runs/.*")]
    with pytest.raises(RuntimeError, match="refuses with 401.*KFP_EXISTING_TOKEN.*the run itself goes on: http"):
        followed(kfp, spec, monkeypatch, tasks(fetch="RUNNING"))


def test_submit_waits_where_told_to(kfp: KfpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submit, "POLL_S", 0.0)
    kfp.story = [{"state": "RUNNING"}, {"state": "FAILED"}]
    with pytest.raises(SystemExit) as end:
        main(["submit", "quickstart", "--wait"])
    assert end.value.code == 1
