import json
import threading
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from components.report import kubeflow, notify, stage
from components.report.cluster import Fate
from components.report.stage import run
from components.report.summary import LOST
from tests.components.gate.finished_run import FinishedRun
from tests.mlflow_server import mlflow_uri  # noqa: F401 (a fixture)
from wordmill.store import tracking
from wordmill.store.runs import finished_night
from wordmill.store.storage import Store

pytestmark = pytest.mark.usefixtures("mlflow_uri")
WHOLE = """["fresh.tiny", "fetch.datasets", "shard.datasets", "train.crnn", "evaluate.words", "gate.tiny"]"""
PARTS = {"code": "1", "data set words": "2"}


class Team(BaseHTTPRequestHandler):
    """A chat service's webhook: it refuses as often as it is told to, and keeps what it was told."""

    told: list[dict[str, Any]]
    refusals: int

    def do_POST(self) -> None:
        """Take a message."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.refusals:
            type(self).refusals -= 1
            self.send_error(503)
            return
        self.told.append(json.loads(body))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *values: Any) -> None:
        """Say nothing."""


@pytest.fixture
def team(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Team]]:
    handler = type("Handler", (Team,), {"told": [], "refusals": 0})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(notify, "PAUSE_S", 0.01)
    monkeypatch.setenv("WORDMILL_WEBHOOK", f"http://127.0.0.1:{server.server_port}/secret-path")
    yield handler
    server.shutdown()
    server.server_close()


@pytest.fixture
def seed(store: Store, tmp_path: Path) -> FinishedRun:
    return FinishedRun(store=store, folder=tmp_path / "files", run_tag=f"run-{uuid.uuid4().hex[:8]}")


def night(seed: FinishedRun, folder: Path, *, changed: bool = True, state: str = "COMPLETE") -> dict[str, Any]:
    """Run the stage as the end of a night, for a recipe of its own; return the summary."""
    reasons = ["code has changed"] if changed else []
    facts = {"changed": changed, "reasons": reasons, "parts": PARTS, "since": None if changed else "last"}
    seed.record(seed.manifest("fresh", "tiny", {}, facts))
    output = str(folder / "out")
    run(recipe=seed.run_tag, run_tag=seed.run_tag, state=state, expected=WHOLE, nightly="true", output=output)
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return summary


def finish(seed: FinishedRun) -> None:
    seed.fetched("words", "signs")
    seed.shards("words", "signs")
    seed.evaluation("words", "1110", seed.trained())
    seed.parity("onnx")
    seed.gate()


def test_a_night_that_trained_tells_the_team_and_the_next_night(
    seed: FinishedRun, team: type[Team], tmp_path: Path
) -> None:
    finish(seed)
    summary = night(seed, tmp_path)
    (told,) = team.told
    outcome = summary["gate"]["outcome"]
    assert told["outcome"] == outcome
    assert told["text"].startswith(f"{seed.run_tag}: {outcome}, mean accuracy 75.00 %: ")
    assert told["report"] == f"s3://{seed.store.bucket}/runs/{seed.run_tag}/report.html"
    kept = finished_night(seed.store, seed.run_tag)
    assert kept is not None
    assert (kept["run_tag"], kept["parts"]) == (seed.run_tag, PARTS)
    assert seed.store.get_json(f"heartbeats/{seed.run_tag}.json")["outcome"] == outcome


def test_a_night_without_news_is_green_and_keeps_what_the_last_one_trained_with(
    seed: FinishedRun, team: type[Team], tmp_path: Path
) -> None:
    summary = night(seed, tmp_path, changed=False, state="RUNNING")  # what Kubeflow calls it behind a skipped branch
    assert summary["ok"]
    assert tracking.connect().get_run(summary["mlflow"]["run_id"]).info.status == "FINISHED"
    assert team.told[0]["text"] == f"{seed.run_tag}: nothing new"
    assert finished_night(seed.store, seed.run_tag) is None
    assert seed.store.get_json(f"heartbeats/{seed.run_tag}.json")["outcome"] == "nothing new"
    assert "since run last" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_night_that_failed_beats_no_heart(seed: FinishedRun, team: type[Team], tmp_path: Path) -> None:
    seed.failure("train", "crnn", "training diverged")
    seed.fetched("words")
    seed.shards("words")
    night(seed, tmp_path, state="FAILED")
    assert team.told[0]["text"] == f"{seed.run_tag}: failed: train crnn: training diverged"
    assert seed.store.get_json(f"heartbeats/{seed.run_tag}.json") is None
    assert finished_night(seed.store, seed.run_tag) is None


def test_a_night_whose_training_was_killed_before_it_could_say_so_is_a_failed_one(
    seed: FinishedRun, team: type[Team], tmp_path: Path
) -> None:
    seed.fetched("words")
    seed.shards("words")
    summary = night(seed, tmp_path, state="RUNNING")
    assert summary["errors"] == [f"train crnn: {LOST}"]
    assert team.told[0]["text"] == f"{seed.run_tag}: failed: train crnn: {LOST}"
    assert seed.store.get_json(f"heartbeats/{seed.run_tag}.json") is None
    assert tracking.connect().get_run(summary["mlflow"]["run_id"]).info.status == "FAILED"


def test_a_night_that_somebody_stopped_is_neither_failed_nor_well(
    seed: FinishedRun, team: type[Team], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "fate_of_run", lambda: Fate(stopped=True, pods={"train": "ended with code 143"}))
    seed.fetched("words")
    seed.shards("words")
    summary = night(seed, tmp_path, state="RUNNING")
    assert (summary["ok"], summary["stopped"]) == (False, True)
    told = f"stopped by hand; --run-tag {seed.run_tag}, in make RUN_TAG={seed.run_tag}, goes on with it"
    assert summary["errors"] == [told]
    assert team.told[0]["text"] == f"{seed.run_tag}: stopped: {told}"
    assert seed.store.get_json(f"heartbeats/{seed.run_tag}.json") is None
    assert tracking.connect().get_run(summary["mlflow"]["run_id"]).info.status == "KILLED"
    assert "Stopped by hand" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_webhook_that_refuses_is_asked_again_and_never_fails_the_night(
    seed: FinishedRun, team: type[Team], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    team.refusals = 2
    assert night(seed, tmp_path, changed=False)["ok"]
    assert len(team.told) == 1
    team.refusals = 3
    night(seed, tmp_path, changed=False)
    said = capsys.readouterr().out
    assert "webhook: not told: HTTP Error 503" in said
    assert "secret-path" not in said


def test_an_address_of_another_kind_is_not_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("urllib.request.urlopen", lambda *args, **kwargs: pytest.fail("opened"))
    assert notify.tell("file:///etc/passwd", {}) == "not told: WORDMILL_WEBHOOK is no http or https address"


def test_kubeflow_shows_accuracies_and_the_parity_table(seed: FinishedRun, tmp_path: Path) -> None:
    finish(seed)
    seed.not_made("om", "no atc here")
    summary = night(seed, tmp_path)
    shown = kubeflow.metrics(summary)
    assert (shown["words %"], shown["mean %"]) == (75.0, 75.0)
    table = (tmp_path / "summary.md").read_text(encoding="utf-8").splitlines()
    assert "| onnx | 64/64 | 2.0e-05 | 2.50 | 900 | 9.0 |" in table
    assert "| om | not made: no atc here | | | | |" in table
    assert "| words | 75.00 % | 10.00 to 95.00 | 3 / 4 |" in table
    assert kubeflow.places(summary)["mlflow"] == summary["mlflow"]["url"]
    # One word of four was read as <dog>: a g where nothing is, and c as <.
    assert kubeflow.confusion_matrix(summary) == (
        ["nothing", "g", "c", "<"], [[0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0]],
    )  # fmt: skip
    assert kubeflow.confusion_matrix(summary | {"reading": None}) is None
