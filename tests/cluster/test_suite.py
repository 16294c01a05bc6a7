"""The suite for a real site, run against servers in memory on which runs are played as the real engine plays them."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from components.report.cluster import NODE
from pipelines.cluster import follow
from tests.cluster import __main__ as program
from tests.cluster import suite
from tests.cluster.suite import CASES, Suite, run_cases
from tests.components.train.gang.kube_api import Cluster, serving
from tests.pipelines.cluster.clock import Clock
from tests.pipelines.cluster.kfp_server import kfp as kfp  # a fixture
from tests.pipelines.cluster.kfp_state import FINISHED, KfpServer
from wordmill.store.pods import RUN

RIGHTS = {("", "pods", "list"), ("", "pods", "delete"), ("argoproj.io", "workflows", "list")}
STAGES = ("fetch", "shard", "train", "gate")
NIGHT_S = 360.0


@dataclass
class Engine(Clock):
    """Plays the runs of a server while the suite's time passes: each by what it was submitted with."""

    kfp: KfpServer
    kubernetes: Cluster
    begun: dict[str, float] = field(default_factory=dict)
    ticked: float = 0.0
    lost: int = 0  # training pods that were deleted
    broken: bool = False  # every run fails

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        for schedule in self.kfp.made("recurringruns"):
            for name in ("created_at", "updated_at"):
                schedule[name] = (datetime.fromisoformat(schedule[name]) - timedelta(seconds=seconds)).isoformat()
        self.play()

    def play(self) -> None:
        for schedule in self.kfp.made("recurringruns"):
            if schedule["mode"] == "ENABLE" and self.now - self.ticked > NIGHT_S:
                self.ticked = self.now
                self.kfp.tick(schedule["recurring_run_id"])
        for run in self.kfp.made("runs"):
            age_s = self.now - self.begun.setdefault(run["run_id"], self.now)
            if run["state"] == "CANCELING":
                run["state"] = "CANCELED"
            elif run["state"] not in FINISHED:
                self.advance(run, age_s)

    def advance(self, run: dict[str, Any], age_s: float) -> None:
        version = self.kfp.get("versions", run["pipeline_version_reference"]["pipeline_version_id"])
        given = version["pipeline_spec"]["pipeline_spec"]["root"]["inputDefinitions"]["parameters"]
        train = given["train_section"]["defaultValue"]
        run["state"] = "RUNNING"
        if self.broken:
            self.end(run, "FAILED", {"shard": "FAILED"})
        elif "suite_missing" in given["sources"]["defaultValue"]:
            if age_s > 60:
                message = "fetch datasets: data set 'suite_missing': s3://wordmill/suite/none.zip: no such object"
                self.fail(run, "fetch", {"exitCode": 1, "reason": "Error", "message": message})
        elif train["global_batch"] > 1000:
            if age_s > 60:
                self.fail(run, "train", {"exitCode": 137, "reason": "OOMKilled"})
        elif train["epochs"] == 100 and not run["display_name"].endswith("(2)"):
            self.train(run["run_id"], age_s)
        elif age_s > 60:
            nights = [other for other in self.kfp.made("runs") if other.get("recurring_run_id")]
            nothing_new = len(nights) > 1 and run is nights[-1]
            self.end(run, "SUCCEEDED", dict.fromkeys(("fresh",) if nothing_new else STAGES, "SUCCEEDED"))

    def train(self, run_id: str, age_s: float) -> None:
        """Let a training pod run, a new one a minute after another was deleted."""
        if not [pod for pod in self.kubernetes.pods.values() if pod["metadata"]["labels"].get(RUN) == run_id]:
            self.lost += 1
            self.add_pod(run_id, f"train-{self.lost}", "train", "Running")

    def fail(self, run: dict[str, Any], stage: str, ended: dict[str, Any]) -> None:
        status = [{"name": "main", "image": "i", "imageID": "", "ready": False, "restartCount": 0,
                   "state": {"terminated": ended}}]  # fmt: skip
        self.add_pod(run["run_id"], f"{stage}-{run['run_id']}", stage, "Failed", containerStatuses=status)
        self.end(run, "FAILED", {stage: "FAILED"})

    def end(self, run: dict[str, Any], state: str, stages: dict[str, str]) -> None:
        details = [{"display_name": name, "state": ended} for name, ended in stages.items()]
        run.update(state=state, run_details={"task_details": details})

    def add_pod(self, run_id: str, name: str, task: str, phase: str, **status: Any) -> None:
        self.kubernetes.add_pod(name, phase, job="none", **status)
        self.kubernetes.pods[name]["metadata"] |= {
            "labels": {RUN: run_id}, "annotations": {NODE: f"wf.root.exit-handler-1.{task}.executor(0)"},
            "creationTimestamp": "2026-01-01T00:00:00Z",
        }  # fmt: skip


@pytest.fixture
def engine(kfp: KfpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    found = Engine(kfp=kfp, kubernetes=Cluster(rights=set(RIGHTS)))
    kfp.play = found.play
    for module in (suite, follow):
        monkeypatch.setattr(module, "time", found)
    monkeypatch.setattr("pipelines.cluster.pods.time", found)
    for name in ("WORDMILL_BUCKET", "MLFLOW_TRACKING_URI", "WORDMILL_SECOND_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    with serving(found.kubernetes, tmp_path) as kubeconfig:
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
        yield found


def ran(folder: Path, *cases: Any) -> int:
    (folder / "suite_x.yaml").write_bytes(program.RECIPE.read_bytes())
    with (folder / "log").open("w", encoding="utf-8") as log:
        return run_cases(Suite(folder=folder, recipe="suite_x", log=log), cases)


@pytest.mark.slow
def test_every_case_is_met_and_nothing_is_left(
    engine: Engine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # What doctor asks has servers and tests of its own.
    missed = ran(tmp_path, *(case for case in CASES if case is not suite.doctor))
    lines = capsys.readouterr().out.splitlines()
    assert missed == 0, "\n".join(lines)
    outcomes = [line.split(maxsplit=1)[1] for line in lines]
    assert [line for line in outcomes if not line.endswith(" ok")] == [
        "wrong token            left out: this server asks nobody for a token",
        "somebody elses token   left out: WORDMILL_SECOND_TOKEN names no second person",
    ]
    assert {kind: table for kind, table in engine.kfp.tables.items() if table} == {}
    assert engine.lost == 3
    assert engine.now < 45 * 60


def test_a_case_that_is_missed_says_what_was_said_instead(
    engine: Engine, kfp: KfpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KFP_EXISTING_TOKEN", "right")
    kfp.token = "right"
    assert ran(tmp_path, suite.wrong_token) == 0
    engine.broken = True
    assert ran(tmp_path, suite.submit_and_follow) == 1
    token, submitted = capsys.readouterr().out.splitlines()
    assert token.split(maxsplit=1)[1] == "wrong token            ok"
    assert "submit and follow      MISSED: " in submitted
    assert "error: the run ended as FAILED" in submitted


def test_without_a_way_to_kubernetes_nothing_is_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.setattr(program, "STATE", tmp_path)
    assert program.test_site() == 1
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(
        "error: Invalid kube-config file. No configuration found. The suite watches and deletes pods"
    )


def test_a_token_cannot_be_tried_where_kubernetes_is_asked(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("KF_PIPELINES_ENDPOINT")
    monkeypatch.setenv("WORDMILL_SECOND_TOKEN", "hers")
    assert ran(tmp_path, suite.wrong_token, suite.somebody_elses_token) == 0
    assert capsys.readouterr().out.count("left out: without KF_PIPELINES_ENDPOINT Kubernetes is asked") == 2


def test_what_nobody_has_thought_of_is_one_line_and_the_rest_is_tried(
    engine: Engine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def odd(_: Suite) -> None:
        raise TypeError("a field that is\nnot there")

    assert ran(tmp_path, odd, suite.clean_up) == 1
    assert [line.split(maxsplit=1)[1] for line in capsys.readouterr().out.splitlines()] == [
        "odd                    MISSED: TypeError: a field that is not there",
        "clean up               ok",
    ]
    assert "in odd" in (tmp_path / "log").read_text(encoding="utf-8")


@pytest.mark.parametrize("stopped_in", ["case", "verb"])
def test_ctrl_c_leaves_nothing_on_the_server(
    engine: Engine, kfp: KfpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], stopped_in: str,
) -> None:  # fmt: skip
    def stopped(_: Any) -> int:
        raise KeyboardInterrupt

    def case(tried: Suite) -> None:
        monkeypatch.setattr("pipelines.cluster.doctor.examined", stopped)
        tried.verb("doctor") if stopped_in == "verb" else stopped(tried)

    left_behind(kfp)
    kfp.faults = [("400", "DELETE pipelines/[^/]+")]  # keeps nothing else from being removed
    assert ran(tmp_path, case, suite.submit_and_follow, suite.clean_up) == 2
    first, second = [line.split(maxsplit=1)[1] for line in capsys.readouterr().out.splitlines()]
    assert first == "case                   stopped"
    assert second.startswith("clean up               MISSED: cannot delete the pipeline: ")
    assert {kind for kind, table in kfp.tables.items() if table} == {"pipelines"}


def left_behind(kfp: KfpServer) -> None:
    """Let the server have what a suite makes: a run and a schedule of a pipeline."""
    pipeline = kfp.add("pipelines", "pipeline_id", {"display_name": "wordmill-suite-x"})["pipeline_id"]
    kfp.add("versions", "pipeline_version_id", {"display_name": "v", "name": "v", "pipeline_id": pipeline})
    experiment = kfp.add("experiments", "experiment_id", {"display_name": "wordmill/suite_x"})["experiment_id"]
    of = {"experiment_id": experiment, "pipeline_version_reference": {"pipeline_id": pipeline}}
    kfp.add("runs", "run_id", {"display_name": "r", "state": "RUNNING", **of})
    kfp.add("recurringruns", "recurring_run_id", {"display_name": "suite_x nightly", "mode": "ENABLE", **of})


def test_the_cases_end_in_time_whatever_they_wait_for(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def waits(_: Suite) -> None:
        threading.Event().wait(60)

    def later(_: Suite) -> None:
        raise AssertionError

    monkeypatch.setattr(suite, "LIMIT_S", 120.05)  # two minutes are kept for cleaning up
    assert ran(tmp_path, waits) == 1
    monkeypatch.setattr(suite, "LIMIT_S", 120.0)
    assert ran(tmp_path, later, suite.clean_up) == 1
    assert [line.split(maxsplit=1)[1] for line in capsys.readouterr().out.splitlines()] == [
        "waits                  MISSED: the 2:00 of all cases are over",
        "later                  MISSED: the 2:00 of all cases are over",
        "clean up               ok",
    ]
