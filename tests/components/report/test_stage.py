import dataclasses
import json
import re
import socket
import uuid
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from components.report import stage
from components.report.charts import line_chart, number, thin, ticks
from components.report.cluster import Fate
from components.report.gather import gather_run
from components.report.stage import run
from components.report.summary import LOST, summarise
from pipelines.local.run import _summary, keep_report
from pipelines.local.summary import summary_text
from tests.components.gate.finished_run import FinishedRun
from tests.mlflow_server import mlflow_uri  # noqa: F401 (a fixture)
from wordmill.store import tracking
from wordmill.store.artifacts import read_manifest
from wordmill.store.experiments import run_document
from wordmill.store.storage import Store

pytestmark = pytest.mark.usefixtures("mlflow_uri")
WHOLE = ("fetch.datasets", "shard.datasets", "train.crnn", "evaluate.words", "gate.tiny")


@pytest.fixture
def seed(store: Store, tmp_path: Path) -> FinishedRun:
    return FinishedRun(store=store, folder=tmp_path / "files", run_tag=f"run-{uuid.uuid4().hex[:8]}")


def finish(seed: FinishedRun, *, found: bool = False) -> None:
    """Every stage of a run with two benchmarks: 3 of 4 and 1 of 2 right."""
    seed.fetched("words", "signs")
    seed.shards("words", "signs")
    trained = seed.trained(found=found)
    seed.evaluation("words", "1110", trained)
    seed.evaluation("signs", "10", trained)
    seed.parity("onnx")
    seed.gate()


def report(seed: FinishedRun, folder: Path, state: str = "COMPLETE", *expected: str) -> dict[str, Any]:
    """Run the stage and return the summary in the store."""
    told = json.dumps(expected)
    run(recipe="tiny", run_tag=seed.run_tag, state=state, expected=told, nightly="false", output=str(folder / "out"))
    summary: dict[str, Any] = seed.store.get_json(f"runs/{seed.run_tag}/summary.json")
    return summary


class Outline(HTMLParser):
    """Collects what a page loads, and whether its elements are closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loaded: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.loaded += [value or "" for name, value in attributes if name in ("src", "srcset") or tag == "link"]
        if tag not in ("meta", "img", "line", "rect", "circle", "polyline", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Nothing is opened."""

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_a_set_that_is_drawn_while_training_is_told_of_though_no_file_holds_it(
    seed: FinishedRun, tmp_path: Path
) -> None:
    seed.fetched("drawn", "checks")
    seed.shards("drawn", "checks", streamed="drawn")
    seed.evaluation("words", "1110", seed.trained())
    seed.parity("onnx")
    seed.gate()
    assert report(seed, tmp_path)["ok"]
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.count("drawn while training") == 1
    assert "Samples of checks" in page
    assert "Samples of drawn" not in page


def test_the_summary_of_a_finished_run(seed: FinishedRun, tmp_path: Path) -> None:
    finish(seed)
    summary = report(seed, tmp_path)
    assert summary["trace"] == []
    assert "  trace  " not in summary_text(summary, tmp_path / "report.html")
    assert (summary["schema"], summary["ok"], summary["errors"]) == (1, True, [])
    assert (summary["recipe"], summary["run_tag"], summary["framework"]) == ("tiny", seed.run_tag, "pytorch")
    assert [(row["name"], row["correct"], row["total"]) for row in summary["benchmarks"]] == [
        ("signs", 1, 2), ("words", 3, 4),
    ]  # fmt: skip
    assert (summary["mean_accuracy"], summary["weighted_accuracy"]) == (0.625, 4 / 6)
    assert [stage["stage"] for stage in summary["stages"]] == [
        "fetch",
        "shard",
        "train",
        "evaluate",
        "evaluate",
        "smoke",
        "gate",
    ]
    assert summary["formats"][0]["texts_equal"] == 64
    assert summary["gate"]["version"] == "1"
    assert summary["digests"]["evaluate.words"] == seed.references["evaluate.words"].removeprefix("evaluate/")
    assert "gate.tiny" not in summary["digests"]
    assert summary["versions"]["torch"] == "2.13.0"
    assert summary["training"]["images"] == 5120
    assert summary["report"] == f"runs/{seed.run_tag}/report.html"


def test_a_smoke_run_says_what_stands_for_what_and_that_the_loss_has_fallen(seed: FinishedRun, tmp_path: Path) -> None:
    seed.fetched("words", "signs", stands_for=("mj", "st"))
    seed.shards("words", "signs")
    seed.trained()
    seed.gate(promote=False)
    summary = report(seed, tmp_path)
    assert (summary["ok"], summary["loss"]) == (True, {"first": 3.0, "last": 1.0})
    assert summary["stands_for"] == {"words": ["mj", "st"], "signs": ["mj", "st"]}
    text = summary_text(summary, tmp_path / "report.html")
    assert "  data   words stands for mj, st" in text
    assert "  loss   3 at first, 1 at the end" in text
    assert "stands for mj, st" in (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(("losses", "promote", "ok"), [((3.0, 3.0), False, False), ((1.0, 3.0), False, False),
                                                       ((3.0,), False, False), ((1.0, 3.0), True, True)])  # fmt: skip
def test_a_smoke_run_whose_loss_has_not_fallen_has_failed(
    seed: FinishedRun, losses: tuple[float, ...], promote: bool, ok: bool
) -> None:
    curve = [(step, loss, 0.0) for step, loss in enumerate(losses, start=1)]
    seed.shards("words", "signs")
    seed.trained()
    seed.gate(promote=promote)
    found = gather_run(seed.store, seed.run_tag)
    found.manifests["train.crnn"] = dataclasses.replace(found.manifests["train.crnn"], curves={"train/loss": curve})
    summary = summarise(found, "tiny", seed.run_tag)
    assert summary["ok"] is ok
    assert ok or "train crnn: a smoke run's loss is lower at the end than at first" in summary["errors"][0]


def test_the_mlflow_run_holds_everything(seed: FinishedRun, tmp_path: Path) -> None:
    finish(seed, found=True)
    summary = report(seed, tmp_path)
    client: MlflowClient = tracking.connect()
    stored = client.get_run(summary["mlflow"]["run_id"])
    assert stored.info.status == "FINISHED"
    expected = {"benchmark/words/accuracy": 0.75, "benchmark/signs/accuracy": 0.5, "benchmark/signs/low": 0.1,
                "benchmark/signs/high": 0.95, "benchmark/signs/samples": 2, "mean_accuracy": 0.625,
                "best_val_accuracy": 0.75, "mean_images_per_s": 512.0}  # fmt: skip
    assert {name: stored.data.metrics[name] for name in expected} == expected
    assert not {"val_accuracy", "images_per_s"} & set(stored.data.metrics)  # the curves have nearly these names
    assert stored.data.metrics["val/accuracy"] == 0.5
    params = {
        "train.lr": "0.002",
        "model.hidden": "224",
        "gate.floor": "0.4",
        "data.charset": "lower36",
        "device": "cpu",
        "precision": "bf16",
        "versions.torch": "2.13.0",
        "train.start_digest": "none",
    }
    assert {name: stored.data.params[name] for name in params} == params
    shown = {name: value for name, value in stored.data.tags.items() if not name.startswith("mlflow.")}
    assert shown == {"wordmill.run_tag": seed.run_tag, "wordmill.host": socket.gethostname(), "wordmill.recipe": "tiny",
                     "wordmill.protocol": "mindocr", "wordmill.gate": "promoted"}  # fmt: skip
    history = client.get_metric_history(stored.info.run_id, "train/loss")
    assert [(m.step, m.value, m.timestamp) for m in history] == [
        (10, 3.0, 1_000_000), (20, 2.0, 1_002_000), (40, 1.0, 1_004_000),
    ]  # fmt: skip
    names = {file.path for file in client.list_artifacts(stored.info.run_id)}
    assert names == {"report.html", "summary.json", "manifests", "contact_sheets", "predictions"}
    sheets = client.list_artifacts(stored.info.run_id, "contact_sheets")
    assert {file.path for file in sheets} == {"contact_sheets/words.png", "contact_sheets/signs.png"}
    facts = read_manifest(tmp_path / "out").facts
    assert facts["mlflow_url"] == summary["mlflow"]["url"]


def test_work_of_other_code_is_told_for_good(seed: FinishedRun, tmp_path: Path) -> None:
    finish(seed)
    told = {"train crnn": "reused: made by code <a>, this code is b"}
    seed.record(dataclasses.replace(seed.trained(), reused=told))
    summary = report(seed, tmp_path)
    assert summary["reused"] == told
    stored = tracking.connect().get_run(summary["mlflow"]["run_id"]).data.tags
    assert stored["wordmill.reused"] == "train crnn"
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "reused: made by code &lt;a&gt;, this code is b" in page


def test_work_of_this_code_alone_has_no_such_tag(seed: FinishedRun, tmp_path: Path) -> None:
    finish(seed)
    summary = report(seed, tmp_path)
    assert summary["reused"] == {}
    assert "wordmill.reused" not in tracking.connect().get_run(summary["mlflow"]["run_id"]).data.tags
    assert "other code" not in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_curves_that_training_sent_itself_are_not_sent_again(seed: FinishedRun, tmp_path: Path) -> None:
    finish(seed)
    summary = report(seed, tmp_path)
    assert tracking.connect().get_metric_history(summary["mlflow"]["run_id"], "train/loss") == []


def test_the_page_is_one_file_with_everything_escaped(seed: FinishedRun, tmp_path: Path) -> None:
    finish(seed)
    report(seed, tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page == (seed.store.get_bytes(f"runs/{seed.run_tag}/report.html") or b"").decode()
    assert page.startswith("<!doctype html>")
    outline = Outline()
    outline.feed(page)
    assert outline.open == []
    assert all(source.startswith("data:image/png;base64,") for source in outline.loaded)
    assert len(outline.loaded) == 2 + 2 + 2  # two mistakes; of two data sets, samples and what is quarantined
    assert "&lt;dog&gt;" in page
    assert "<dog>" not in page
    assert "a&lt;b&gt;.png: no picture" in page
    assert re.search(
        r"Quarantined in \w+: 1 no picture</summary>\s*<img class=\"sheet\" src=\"data:image/png;base64,i", page
    )
    assert not re.search(r"url\(|@import|<script", page)
    assert page.count("<svg") == 2 + 2  # word length, calibration; loss and validation accuracy were recorded
    for text in ("62.50 %", "3 / 4", "promoted", "good enough", "1 empty label", "0.9000"):
        assert text in page


def test_every_exported_format_is_told_with_its_numbers_or_why_it_was_not_made(
    seed: FinishedRun, tmp_path: Path
) -> None:
    seed.parity("onnx")
    seed.not_made("om", "CANN's atc is not on <PATH>")
    summary = report(seed, tmp_path)
    assert [(facts["format"], facts["made"]) for facts in summary["formats"]] == [("om", False), ("onnx", True)]
    tags = tracking.connect().get_run(summary["mlflow"]["run_id"]).data.tags
    assert tags["wordmill.not_made"] == "om"
    assert "not made: CANN's atc is not on <PATH>" in tags["mlflow.note.content"]
    page = re.sub(r"<[^>]*>", " ", (tmp_path / "report.html").read_text(encoding="utf-8"))
    text = " ".join(page.split())
    for part in (
        "Reading, onnx ONNX Runtime 1.31 900 800 2.50 ms 3.25 ms",
        "om not made CANN&#39;s atc is not on &lt;PATH&gt; onnx equal fp32",
        "64 / 64 64 2.0e-05 1.0e-03 9.00 MB 120.00 MB",
    ):
        assert part in text, part
    lines = summary_text(summary, tmp_path / "report.html").splitlines()
    assert [" ".join(line.split()) for line in lines if line.strip().startswith(("om", "onnx"))] == [
        "om not made: CANN's atc is not on <PATH>",
        "onnx texts equal 64/64, logits within 2.0e-05, 2.50 ms at batch 1 (99 %: 3.25), 800 images/s at batch 16, "
        "900 at 64, 9.0 MB, 120 MB of memory",
    ]


def test_a_trace_of_training_lies_beside_the_report_and_the_end_says_where(seed: FinishedRun, tmp_path: Path) -> None:
    seed.shards("words")
    seed.trained(trace=b'{"traceEvents": []}')
    summary = report(seed, tmp_path)
    assert [entry["name"] for entry in summary["trace"]] == ["trace/steps.json"]
    folder = tmp_path / "run"
    folder.mkdir()
    page = keep_report(seed.store, folder, seed.run_tag, summary)
    assert (folder / "trace" / "steps.json").read_bytes() == b'{"traceEvents": []}'
    assert (
        f"  trace  {folder}/trace, in MLflow among the artifacts: steps.json"
        in summary_text(summary, page).splitlines()
    )


def test_a_run_that_failed_early(seed: FinishedRun, tmp_path: Path) -> None:
    seed.fetched("words")
    seed.shards("words")
    seed.failure("train", "crnn", "no space left on <disk>")
    summary = report(seed, tmp_path, "FAILED", *WHOLE)
    assert (summary["ok"], summary["errors"]) == (False, ["train crnn: no space left on <disk>"])
    assert (summary["benchmarks"], summary["mean_accuracy"], summary["gate"], summary["training"]) == (
        [],
        None,
        None,
        {},
    )
    stored = tracking.connect().get_run(summary["mlflow"]["run_id"])
    assert (stored.info.status, stored.data.tags["wordmill.failed"]) == ("FAILED", "train crnn")
    assert run_document(stored.info.run_id, "summary.json")["errors"] == ["train crnn: no space left on <disk>"]
    assert "train crnn: no space left on &lt;disk&gt;" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(("state", "ok"), [("RUNNING", True), ("FAILED", False)])
def test_a_run_without_any_record(seed: FinishedRun, tmp_path: Path, state: str, ok: bool) -> None:
    summary = report(seed, tmp_path, state)
    assert summary["ok"] is ok
    assert len(summary["errors"]) == (0 if ok else 1)
    assert "No stage recorded anything." in (tmp_path / "report.html").read_text()


def test_a_recorded_failure_outweighs_the_engines_word(seed: FinishedRun, tmp_path: Path) -> None:
    seed.failure("fetch", "datasets", "gone")
    assert report(seed, tmp_path, "COMPLETE")["ok"] is False


def test_what_was_killed_before_it_could_record_itself_is_named_and_what_waits_for_it_is_not(
    seed: FinishedRun, tmp_path: Path
) -> None:
    seed.fetched("words", "signs")
    seed.shards("words", "signs")
    trained = seed.trained()
    seed.evaluation("words", "1110", trained)
    whole = ["fetch.datasets", "shard.datasets", "train.crnn", "evaluate.words", "evaluate.signs", "export.onnx",
             "smoke.onnx", "gate.tiny"]  # fmt: skip
    summary = report(seed, tmp_path, "RUNNING", *whole)
    # The smoke test waits for the export, the gate for both: neither was killed.
    assert summary["errors"] == [f"evaluate signs: {LOST}", f"export onnx: {LOST}"]
    assert tracking.connect().get_run(summary["mlflow"]["run_id"]).info.status == "FAILED"


def test_kubernetes_says_why_where_the_stage_could_not(
    seed: FinishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = "OOMKilled: it needs more memory than its limit of 2Gi, which it reached after 31 s"
    monkeypatch.setattr(stage, "fate_of_run", lambda: Fate(pods={"gate": "not begun", "evaluate-2": words}))
    seed.fetched("words", "signs")
    seed.shards("words", "signs")
    seed.evaluation("words", "1110", seed.trained())
    whole = ["fetch.datasets", "shard.datasets", "train.crnn", "evaluate.words", "evaluate.signs", "gate.tiny"]
    assert report(seed, tmp_path, "RUNNING", *whole)["errors"] == [f"evaluate signs: {words}"]
    assert words in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_task_that_failed_is_red_whatever_is_recorded_of_it(
    seed: FinishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where Kubeflow's launcher is killed behind the stage, or a continued run's first task before it."""
    finish(seed)
    whole = ["fetch.datasets", "shard.datasets", "train.crnn", "evaluate.words", "evaluate.signs", "gate.tiny"]
    assert report(seed, tmp_path, "RUNNING", *whole)["ok"]
    monkeypatch.setattr(stage, "fate_of_run", lambda: Fate(pods={"gate": "OOMKilled: it needs more"}))
    summary = report(seed, tmp_path, "RUNNING", *whole)
    assert summary["errors"] == [
        "gate tiny: its work is recorded, its task failed all the same: OOMKilled: it needs more"
    ]
    assert tracking.connect().get_run(summary["mlflow"]["run_id"]).info.status == "FAILED"


def test_a_second_report_is_like_the_first(seed: FinishedRun, tmp_path: Path) -> None:
    finish(seed)
    assert report(seed, tmp_path) == report(seed, tmp_path)


def test_without_mlflow_the_report_is_written_and_the_stage_fails(
    seed: FinishedRun, tmp_path: Path, silent_address: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    finish(seed)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", silent_address)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(SystemExit):
        report(seed, tmp_path)
    assert "error: report tiny: cannot create a run: MLFLOW_TRACKING_URI" in capsys.readouterr().out
    summary = seed.store.get_json(f"runs/{seed.run_tag}/summary.json")
    assert (summary["ok"], summary["mlflow"]) == (False, {"run_id": None, "url": None})
    assert summary["mean_accuracy"] == 0.625
    assert "MLFLOW_TRACKING_URI" in (tmp_path / "report.html").read_text()


def test_where_the_store_is_full_summary_and_page_are_here_and_in_the_terminal(
    seed: FinishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(store: Store, key: str, *_: object) -> None:
        raise RuntimeError(f"cannot write {key}: refused with XMinioStorageFull: the server's disk is full")

    finish(seed)
    task = tmp_path / "tasks" / "quickstart-1" / "report"
    task.mkdir(parents=True)
    with monkeypatch.context() as patch:
        patch.setattr(Store, "put_bytes", full)
        with pytest.raises(SystemExit):
            report(seed, task)
    assert seed.store.get_json(f"runs/{seed.run_tag}/summary.json") is None
    summary = _summary(seed.store, seed.run_tag, tmp_path / "tasks")
    assert summary
    assert not summary["ok"]
    assert [error for error in summary["errors"] if error.endswith("XMinioStorageFull: the server's disk is full")]
    assert [row["name"] for row in summary["benchmarks"]] == ["signs", "words"]
    page = keep_report(seed.store, tmp_path, seed.run_tag, summary)
    assert "XMinioStorageFull" in page.read_text()
    assert (tmp_path / "summary.json").exists()


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 1.0, [0.0, 0.5, 1.0]),
        (0.13, 0.78, [0.0, 0.2, 0.4, 0.6, 0.8]),
        (0, 1562, [0, 500, 1000, 1500, 2000]),
        (2.0, 2.0, [2.0, 2.5]),
        (0.0, 0.0, [0.0, 0.5]),
    ],
)
def test_ticks_are_round_and_enclose_the_values(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high, 4) == expected


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.25, "0.25"), (0.0005, "5e-4"), (0.0015, "1.5e-3"), (12000, "12k"), (9000, "9000")]
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert number(value) == text


def test_long_curves_are_thinned_and_keep_their_end() -> None:
    points = [(step, float(step)) for step in range(1000)]
    found = thin(points)
    assert len(found) <= 240
    assert found[0] == (2.0, 2.0)  # the mean of steps 0 to 4
    assert found[-1] == (999.0, 999.0)
    assert thin([(1, 1.0), (2, float("nan")), (3, 2.0)]) == [(1.0, 1.0), (3.0, 2.0)]


def test_a_chart_places_its_points() -> None:
    svg = str(line_chart("a & b", {"loss": [(0, 0.0, 0.0), (10, 1.0, 0.0)]}))
    # the plot spans x 46..372 and y 186 (0) .. 10 (1)
    assert 'points="46.0,186.0 372.0,10.0"' in svg
    assert 'aria-label="a &amp; b"' in svg
