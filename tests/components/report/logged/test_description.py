"""A run in Markdown, apart from any store."""

from typing import Any

import pytest

from components.report.gather import Gathered
from components.report.logged.description import (
    benchmark_table,
    decision,
    description,
    links_in_kubeflow,
    links_in_mlflow,
    trained_on,
)
from wordmill.store.artifacts import Manifest
from wordmill.store.tracking import Run

ROW = {"name": "words", "accuracy": 0.75, "low": 0.3, "high": 0.954, "correct": 3, "total": 4, "protocol": "mindocr",
       "published": None}  # fmt: skip


def summary(**more: Any) -> dict[str, Any]:
    return {"recipe": "tiny", "run_tag": "tiny-1", "errors": [], "benchmarks": [ROW], "published": None, "formats": [],
            "mean_accuracy": 0.75, "gate": {"outcome": "refused", "version": "7", "reasons": ["too few", "too late"]},
            "report": "runs/tiny-1/report.html", "kubeflow": "", "mlflow": {"url": "http://x/#/runs/1"},
            **more}  # fmt: skip


def gathered(**facts: Any) -> Gathered:
    facts = {"parameters": 2_240_000, "images": 5120, "steps": 40, "framework": "pytorch", "processes": 2,
             "device": "cpu", "precision": "float32", "val_accuracy": 0.5, **facts}  # fmt: skip
    inputs = {"model": {"name": "crnn", "backbone": "compact"}, "start": "0123456789abcdef", "train_sets": ["a"],
              "val_sets": ["b"]}  # fmt: skip
    trained = Manifest(stage="train", name="crnn", key="k", inputs=inputs, git_commit="", facts=facts)
    packed = Manifest(stage="shard", name="datasets", key="s", inputs={}, git_commit="",
                      facts={"indices": {"mj": "a", "checks": "b"}})  # fmt: skip
    sets = {name: Manifest(stage="shard", name=name, key=name, inputs={}, git_commit="", facts={"samples": count})
            for name, count in (("mj", 1234), ("checks", 9))}  # fmt: skip
    return Gathered(records=[], manifests={"shard.datasets": packed, "train.crnn": trained}, datasets=sets)


def test_what_was_trained_on_what() -> None:
    assert trained_on(gathered()) == (
        "Trained: crnn with compact backbone, 2,240,000 parameters, on mj (1,234 pictures), begun from weights "
        "0123456789ab: 5,120 pictures in 40 steps, pytorch, 2 cpu processes, float32. Validated on checks "
        "(9 pictures): 50.00 %."
    )


def test_the_benchmarks_are_a_table_with_intervals_and_published_figures() -> None:
    assert benchmark_table(summary()).splitlines() == [
        "| benchmark | accuracy | 95 % interval | right / all |",
        "|---|---|---|---|",
        "| words | 75.00 % | 30.00 to 95.40 | 3 / 4 |",
        "",
        "Words compared by protocol mindocr.",
    ]
    known = {"by": "Them", "source": "https://x.example", "protocol": "dtrb", "mean": None}
    rows = [ROW | {"published": 0.7}, ROW | {"name": "signs"}]
    lines = benchmark_table(summary(benchmarks=rows, published=known)).splitlines()
    assert (lines[2], lines[3]) == ("| words | 75.00 % | 30.00 to 95.40 | 3 / 4 | 70.00 % |",
                                    "| signs | 75.00 % | 30.00 to 95.40 | 3 / 4 |  |")  # fmt: skip
    assert lines[-1].endswith("published by [Them](https://x.example), protocol dtrb.")


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, "**75.00 %** of words read right on words. The gate has **refused** version 7 of wordmill-tiny: too few; "
             "too late."),
        ({"gate": None, "benchmarks": [ROW, ROW]}, "**75.00 %** of words read right over 2 benchmarks."),
        ({"mean_accuracy": None}, ""),
    ],
)  # fmt: skip
def test_what_the_gate_has_done_is_one_sentence(more: dict[str, Any], expected: str) -> None:
    assert decision(summary(**more)) == expected


def test_a_run_that_failed_says_why_first() -> None:
    early = Gathered(records=[], manifests={}, datasets={})
    told = summary(errors=["train crnn: no room"], benchmarks=[], mean_accuracy=None, gate=None)
    assert description(early, told, "Pages: none.") == "**train crnn: no room**\n\nPages: none."


def test_links_lead_where_the_reader_is() -> None:
    run = Run(None, "r1", "7")  # type: ignore[arg-type]
    told = links_in_mlflow(summary(kubeflow="k-9"), run)
    assert "[report](#/experiments/7/runs/r1/artifacts/report.html?workflowType=machine_learning)" in told
    assert "[registered model](#/models/wordmill-tiny/versions/7?workflowType=machine_learning)" in told
    assert told.endswith("Kubeflow's run: `k-9`.")
    elsewhere = links_in_kubeflow(summary(), "bucket")
    assert "[MLflow run](http://x/#/runs/1)" in elsewhere
    assert "`s3://bucket/runs/tiny-1/report.html`" in elsewhere
    assert "MLflow" not in links_in_kubeflow(summary(mlflow={"url": None}), "bucket")


def test_in_a_cluster_links_go_where_the_site_says_that_browsers_reach_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://wordmill-mlflow:5000")
    run = Run(None, "r1", "7")  # type: ignore[arg-type]
    told = links_in_kubeflow(summary(mlflow={"url": run.url}), "bucket")
    page = "#/experiments/7/runs/r1?workflowType=machine_learning"
    assert told.startswith(f"Pages: MLflow run: `http://wordmill-mlflow:5000/{page}`, an address of the cluster (")
    places = {"MLFLOW": "https://mlflow.example.com", "S3": "https://s3.example.com/browser/bucket/",
              "KUBEFLOW": "https://kubeflow.example.com/pipeline/"}  # fmt: skip
    for name, place in places.items():
        monkeypatch.setenv(f"WORDMILL_{name}_PAGES", place)
    told = links_in_kubeflow(summary(mlflow={"url": run.url}), "bucket")
    assert told == (f"Pages: [MLflow run](https://mlflow.example.com/{page}), the report is also "
                    "[s3://bucket/runs/tiny-1/report.html](https://s3.example.com/browser/bucket/runs/tiny-1/"
                    "report.html), this run's tag tiny-1.")  # fmt: skip
    assert links_in_mlflow(summary(kubeflow="k-9"), run).endswith(
        " Kubeflow's run: [k-9](https://kubeflow.example.com/pipeline/#/runs/details/k-9)."
    )
