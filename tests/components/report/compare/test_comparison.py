import dataclasses
import json
import re
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from components.report.charts import MOST_POINTS
from components.report.compare.comparison import compare, differences
from components.report.compare.page import CHARTS, compare_html, comparison_charts
from components.report.compare.runs import Logged, find_run, histories, last
from components.report.compare.text import WIDTH, comparison_text
from components.report.stage import run as report
from pipelines.cli import main
from tests.components.gate.finished_run import CONTENT, FinishedRun
from tests.mlflow_server import mlflow_uri  # noqa: F401 (a fixture)
from wordmill.store import tracking
from wordmill.store.storage import Store
from wordmill.store.tracking import COMMIT


def logged(name: str, *, metrics: dict[str, float] | None = None, **more: Any) -> Logged:
    """A finished run of an hour that recorded its commit and the numbers given."""
    tags = {"wordmill.run_tag": name, "wordmill.recipe": "tiny", COMMIT: "c0ffee"}
    fields = {
        "params": {},
        "datasets": {},
        "contents": {},
        "status": "FINISHED",
        "started": 1_800_000_000.0,
        "ended": 1_800_003_600.0,
        **more,
    }
    return Logged(run_id=f"id-{name}", run_name=name, url=f"http://x/{name}", metrics=metrics or {}, **fields | {
        "tags": tags | more.get("tags", {})})  # fmt: skip


def measured(name: str, **sets: tuple[float, int]) -> Logged:
    """A run with an accuracy over so many samples for each set."""
    numbers = {}
    for key, (accuracy, samples) in sets.items():
        numbers |= {f"benchmark/{key}/{name}": value for name, value in
                    (("accuracy", accuracy), ("samples", float(samples)), ("1-NED", 0.875))}  # fmt: skip
    return logged(name, metrics=numbers)


def test_values_that_differ_stand_with_the_runs_that_have_them() -> None:
    facts = {
        "A": {"lr": "0.1", "seed": "1", "torch": "2"},
        "B": {"lr": "0.2", "seed": "1"},
        "C": {"lr": "0.1", "seed": "1", "torch": "2"},
        "D": {},  # recorded nothing, which is no value
    }
    assert [(entry.name, entry.values) for entry in differences(facts)] == [
        ("lr", {"0.1": "A C", "0.2": "B"}),
        ("torch", {"2": "A C", "absent": "B"}),
    ]


def test_what_differs_is_told_by_recipe_data_code_and_environment() -> None:
    one = logged("a", tags={"wordmill.host": "x"}, datasets={"words": "11", "signs": "22"}, params={
        "train.lr": "0.1", "device": "cpu", "processes": "2", "versions.torch": "2.12", "train.guide": "0.0",
        "data.charset_digest": "aa"})  # fmt: skip
    other = logged("b", tags={"wordmill.host": "x", COMMIT: "facade"}, datasets={"words": "11", "signs": "33"}, params={
        "train.lr": "0.1", "device": "cuda", "processes": "2", "versions.torch": "2.13",
        "data.charset_digest": "bb"})  # fmt: skip
    found = {group: {entry.name: entry.values for entry in entries}
             for group, entries in compare([one, other]).differences.items()}  # fmt: skip
    assert found == {
        "recipe": {"data.charset_digest": {"aa": "A", "bb": "B"}},
        "data": {"signs": {"22": "A", "33": "B"}},
        "code": {"commit": {"c0ffee": "A", "facade": "B"}},
        "environment": {"device": {"cpu": "A", "cuda": "B"}, "torch": {"2.12": "A", "2.13": "B"}},
    }


def test_benchmarks_stand_side_by_side_with_their_plain_mean() -> None:
    rows = compare([measured("a", words=(0.75, 4), signs=(0.5, 2)), measured("b", words=(0.5, 4), signs=(1.0, 2))])
    assert [(row.name, row.cells) for row in rows.benchmarks] == [
        ("signs", ("50.00 %", "100.00 %")),
        ("words", ("75.00 %", "50.00 %")),
        ("plain mean", ("62.50 %", "75.00 %")),
        ("signs 1-NED", ("0.8750", "0.8750")),
        ("words 1-NED", ("0.8750", "0.8750")),
    ]


def test_an_accuracy_has_its_95_per_cent_interval() -> None:
    # Wilson's interval of 81 in 263, published as 25.5 % to 36.6 % (Newcombe 1998, Statistics in Medicine 17, table I).
    row = compare([measured("a", words=(81 / 263, 263)), measured("b")]).benchmarks[0]
    assert row.intervals[0] == (pytest.approx(0.255, abs=5e-4), pytest.approx(0.366, abs=5e-4))
    assert row.ranges[0].startswith("25.5")
    assert (row.cells[1], row.values[1], row.intervals[1], row.ranges[1]) == ("-", None, None, "")


def test_the_mean_is_over_what_all_measured_runs_share() -> None:
    one = measured("a", words=(0.75, 4), signs=(0.5, 2), more=(0.9, 10))
    comparison = compare([one, measured("b", words=(0.5, 4), more=(0.7, 9)), logged("c", status="FAILED")])
    means = {row.name: row.cells for row in comparison.benchmarks if row.name.startswith("plain")}
    assert means == {"plain mean of 1 shared": ("75.00 %", "50.00 %", "-")}
    assert "more: not measured on the same samples, its accuracies do not compare" in comparison.notes
    assert "C is FAILED: its numbers are not those of a finished run" in comparison.notes


def test_samples_are_the_same_by_their_content_whoever_has_packed_them() -> None:
    sets = {"words": (0.75, 4), "signs": (0.5, 2)}
    one, other = measured("a", **sets), measured("b", **sets)
    contents = {"words": "11", "signs": "22"}
    one = dataclasses.replace(one, datasets={"words": "k1", "signs": "k2"}, contents=contents)
    other = dataclasses.replace(other, datasets={"words": "k3", "signs": "k4"}, contents=contents | {"signs": "33"})
    comparison = compare([one, other, measured("c", **sets)])  # an older run recorded none
    assert [note for note in comparison.notes if "samples" in note] == [
        "signs: not measured on the same samples, its accuracies do not compare"
    ]
    assert "plain mean of 1 shared" in [row.name for row in comparison.benchmarks]
    assert [(row.name, row.values) for row in comparison.differences["data"]] == [("signs", {"22": "A", "33": "B"})]


def test_cost_is_device_hours_speed_and_time() -> None:
    numbers = {"device_hours": 1.5, "train/images_per_s": 7.0, "mean_images_per_s": 1234.4,
               "file/onnx/latency_ms_batch1": 2.5}  # fmt: skip
    one = logged("a", params={"device": "cuda", "processes": "8"}, metrics=numbers)
    rows = compare([one, logged("b", ended=None, status="RUNNING")]).cost
    assert [(row.name, row.values[0], row.unit, row.cells) for row in rows] == [
        ("training devices", "8 cuda", "devices", ("8 cuda", "-")),
        ("training, device-hours", 1.5, "h", ("1.5", "-")),
        ("training, images/s", 1234.4, "images/s", ("1,234", "-")),
        ("pipeline run, time", 3600.0, "s", ("1:00:00", "-")),
        ("onnx, ms an image", 2.5, "ms", ("2.50", "-")),
    ]


def test_a_reader_is_warned_of_what_makes_a_difference_hard_to_believe() -> None:
    other = {"wordmill.recipe": "huge", COMMIT: "c0ffee-dirty", "wordmill.protocol": "strict"}
    notes = compare([logged("a", tags={"wordmill.protocol": "mindocr"}), logged("b", tags=other)]).notes
    assert notes == [
        "the runs are of different recipes: huge, tiny",
        "texts are scored by protocols: mindocr, strict",
        "uncommitted changes in the code of B: it may differ where the commit does not",
        "data: nothing is recorded of A B",
        "environment: nothing is recorded of A B",
    ]


def test_too_few_too_many_and_the_same_run_twice_are_refused() -> None:
    with pytest.raises(ValueError, match="takes 2 to 8 runs, found 1"):
        compare([logged("a")])
    with pytest.raises(ValueError, match="takes 2 to 8 runs, found 9"):
        compare([logged(f"run-{i}") for i in range(9)])
    with pytest.raises(ValueError, match="run 'b' is named twice"):
        compare([logged("a"), logged("b"), logged("b")])


@pytest.mark.parametrize("count", [2, 8])
def test_text_fits_a_terminal_of_100_columns(count: int) -> None:
    long = {
        "data.train": json.dumps([f"set_{i}" for i in range(40)]),
        "train.a_key_that_is_longer_than_its_column": "1",
    }
    sets = {"a_benchmark_with_a_name_that_is_far_too_long": (1.0, 1000), "words": (0.25, 8)}
    runs = [dataclasses.replace(measured(f"{'run-' * 30}{i}", **sets), params=long if i else {"data.train": "[]"})
            for i in range(count)]  # fmt: skip
    text = comparison_text(compare(runs))
    assert max(len(line) for line in text.splitlines()) <= WIDTH == 100
    assert "words".ljust(28) + ("25.00 %".rjust(14 if count == 2 else 9)) * count in text.splitlines()
    others = " ".join("BCDEFGH"[: count - 1])
    assert re.search(rf"^  data\.train +A +\[\]$\n^ +{others} +\[\"set_0\", .*…$", text, re.MULTILINE)
    assert "code: no difference" in text
    places = [
        text.index(f"\n\n{part}") for part in ("recipe: differs in", "data: no difference", "benchmarks ", "cost ")
    ]
    assert places == sorted(places)


def test_groups_that_differ_come_first() -> None:
    one, other = logged("a", params={"train.lr": "1"}), logged("b", params={"train.lr": "1"}, tags={COMMIT: "facade"})
    comparison = compare([one, other])
    assert list(comparison.differences) == ["code", "recipe", "data", "environment"]
    page = compare_html(comparison, {name: {} for name in CHARTS})
    assert page.index("<h2>What differs</h2>") < page.index("<h2>Benchmarks</h2>") < page.index("<h2>Cost</h2>")


def test_the_page_is_one_file_with_everything_escaped() -> None:
    curve = [(step, 1.0 / step, 1000.0) for step in range(1, 5)]
    runs = [logged("a", params={"train.x": "<b>"}), logged("b", params={"train.x": "<i>"}), logged("c")]
    curves = {name: {} for name in CHARTS} | {"val/loss": {"id-a": curve, "id-c": [*curve, (5, float("nan"), 1000.0)]}}
    page = compare_html(compare(runs), curves)
    assert page.startswith("<!doctype html>")
    assert not re.search(r"url\(|@import|<script|src=|<link", page)
    assert "&lt;b&gt;" in page
    assert "<b>" not in page.replace("<b>Validation loss</b>", "")
    assert page.count("<svg") == 1
    assert ('class="line s0"' in page, 'class="line s1"' in page, 'class="line s2"' in page) == (True, False, True)


def test_an_accuracy_has_a_bar_in_its_runs_colour() -> None:
    page = compare_html(compare([measured("a", words=(0.75, 4)), logged("b")]), {name: {} for name in CHARTS})
    assert page.count('<span class="key bar s0" style="--share: 75.0%"></span>') == 2  # of words, and of the plain mean
    assert "bar s1" not in page


def test_a_run_keeps_its_colour_and_its_place_in_the_legend() -> None:
    comparison = compare([logged("a"), logged("b")])
    drawn = comparison_charts(comparison, {name: {} for name in CHARTS} | {"train/loss": {"id-b": [(1, 0.25, 0.0)]}})
    assert [(chart["title"], chart["legend"]) for chart in drawn] == [
        ("Training loss", [{"letter": "A", "last": "-"}, {"letter": "B", "last": "0.25"}])
    ]


@pytest.fixture
def recipe() -> str:
    return f"tiny_{uuid.uuid4().hex[:8]}"


def reported(store: Store, folder: Path, recipe: str, number: int, outcomes: str) -> str:
    """Bring a finished pipeline run to MLflow by the report stage and return its run tag."""
    seed = FinishedRun(store=store, folder=folder / f"files-{number}", run_tag=f"{recipe}-{number}")
    seed.shards("words")
    seed.evaluation("words", outcomes, seed.trained(f"weights {number}", found=True))
    output = str(folder / f"out-{number}")
    report(recipe=recipe, run_tag=seed.run_tag, state="SUCCEEDED", expected="[]", nightly="false", output=output)
    return seed.run_tag


@pytest.mark.usefixtures("mlflow_uri")
def test_reported_runs_are_found_by_recipe_name_prefix_and_id(store: Store, tmp_path: Path, recipe: str) -> None:
    tags = [reported(store, tmp_path, recipe, number, "1110") for number in (1, 2, 11)]
    assert [run.name for run in last(recipe, 3)] == tags[::-1]
    assert [run.name for run in last(recipe, 2)] == tags[:0:-1]
    one = find_run(tags[0])  # -1 is a run, though -11 begins so too
    assert (one.name, one.status, one.params["train.lr"]) == (tags[0], "FINISHED", "0.002")
    assert find_run(one.run_id) == find_run(one.run_id[:20]) == one
    assert find_run(f"{recipe}-2").name == tags[1]
    named = find_run(tags[1]).run_name
    assert named == "2"
    tracking.connect().update_run(find_run(tags[1]).run_id, name=f"2-{recipe}")
    assert find_run(f"2-{recipe}") == find_run(f"2-{recipe[:-1]}") == find_run(tags[1])
    with pytest.raises(
        ValueError, match=rf"run '{recipe}' may be any of {recipe}-11 \(\w{{8}}\), {recipe}-2 .*in full"
    ):
        find_run(recipe)
    with pytest.raises(ValueError, match=rf"name or id in MLflow at http://127.*newest runs are {recipe}-11 "):
        find_run(recipe.replace("_", "-"))  # the search's _ is any character, this one is not
    with pytest.raises(ValueError, match=f"recipe '{recipe}': found 3 reported runs in MLflow at .*, expected 4"):
        last(recipe, 4)


@pytest.mark.usefixtures("mlflow_uri")
def test_a_report_leaves_in_mlflow_what_a_comparison_reads(store: Store, tmp_path: Path, recipe: str) -> None:
    run = find_run(reported(store, tmp_path, recipe, 1, "1110"))
    assert (set(run.datasets), len(run.datasets["words"])) == ({"words"}, 32)
    assert run.contents == {"words": CONTENT}
    known = {"versions.torch": "2.13.0", "precision": "bf16", "train.start_digest": "none"}
    assert {name: run.params[name] for name in known} == known
    assert run.tags["wordmill.recipe"] == recipe
    chosen = {"data.train": '["words"]', "data.fit": "stretch", "device": "cpu"}
    assert {name: run.params[name] for name in chosen} == chosen
    assert not {"data.val", "data.limit"} & set(run.params)  # [] and 0: what is not used is not listed
    assert run.metrics["benchmark/words/samples"] == 4
    assert run.metrics["device_hours"] == pytest.approx(12.5 * 2 / 3600)


@pytest.mark.usefixtures("mlflow_uri")
def test_more_runs_than_one_page_are_all_reached(store: Store, recipe: str) -> None:
    names = [f"{recipe}-{number}" for number in range(23)]
    for name in names:
        tracking.open_run(store, name, recipe).set_tags({"wordmill.recipe": recipe})
        time.sleep(0.002)  # the order is by start, in ms
    assert [run.name for run in last(recipe, 23)] == names[::-1]


@pytest.mark.usefixtures("mlflow_uri")
def test_curves_are_thinned_by_the_server_and_keep_their_ends(store: Store, recipe: str) -> None:
    run, start = tracking.open_run(store, f"{recipe}-1", recipe), 1_800_000_000.0
    run.log_metrics(("train/loss", 2.0 - step / 4000, step, start + step) for step in range(1, 2001))
    run.log_metrics([("val/loss", 3.0, 10, start), ("val/loss", 2.0, 20, start + 1), ("val/loss", 1.0, 10, start + 2)])
    curves = histories([find_run(f"{recipe}-1")], ["train/loss", "val/loss", "val/accuracy"])
    long = curves["train/loss"][run.run_id]
    assert (long[0], long[-1]) == ((1, 1.99975, start + 1), (2000, 1.5, start + 2000))
    assert 150 <= len(long) <= MOST_POINTS
    assert all(value == pytest.approx(2.0 - step / 4000) for step, value, _ in long)
    assert curves["val/loss"] == {run.run_id: [(10, 1.0, start + 2), (20, 2.0, start + 1)]}  # a training begun again
    assert curves["val/accuracy"] == {}


@pytest.mark.usefixtures("mlflow_uri")
def test_the_command_prints_the_table_and_writes_the_page(
    store: Store, tmp_path: Path, recipe: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, outcomes in ((1, "1110"), (2, "1000")):
        reported(store, tmp_path, recipe, number, outcomes)
    capsys.readouterr()
    page = tmp_path / "page.html"
    with pytest.raises(SystemExit) as end:
        main(["compare", "--recipe", recipe, "--last", "2", "--output", str(page)])
    printed = capsys.readouterr().out
    assert end.value.code == 0
    assert re.search(rf"^A  {recipe}-2  {recipe}  FINISHED", printed)
    assert re.search(r"^words +25\.00 % +75\.00 %$", printed, re.MULTILINE)
    # 12.5 s of two processes.
    assert re.search(r"^training, device-hours +0\.00694 +0\.00694$", printed, re.MULTILINE)
    assert "recipe: no difference" in printed
    assert printed.endswith(f"{page}\n")
    with pytest.raises(SystemExit):
        main(["compare", "--recipe", recipe, "--last", "2", "--output", str(page), "--json"])
    told = json.loads(capsys.readouterr().out)
    assert (told["runs"]["A"]["tags"]["wordmill.run_tag"], told["page"]) == (f"{recipe}-2", str(page))
    first = told["benchmarks"][0]
    assert (first["name"], first["unit"], first["values"]) == ("words", "share", [0.25, 0.75])
    assert [[round(end, 2) for end in ends] for ends in first["intervals"]] == [[0.05, 0.7], [0.3, 0.95]]
    assert 0.75 in told["runs"]["B"]["metrics"].values()
    text = page.read_text(encoding="utf-8")
    assert text.count("<svg") == 2  # the training loss and the validation accuracy
    assert "75.00 %" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], 'name either runs or a recipe and a number of its last runs: make compare RUNS="a b", or make'),
        (["a", "b", "--recipe", "tiny", "--last", "2"], "name either runs or a recipe"),
        (["--last", "2"], "name either runs or a recipe"),
        (["a'b", "c"], "'a'b': a run or recipe is named by letters"),
        (["a", "b"], "cannot search the runs: MLFLOW_TRACKING_URI http://127.0.0.1"),
    ],
)
def test_what_is_wrong_ends_in_one_line(
    arguments: list[str], message: str, silent_address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", silent_address)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(SystemExit) as end:
        main(["compare", *arguments])
    assert str(end.value.code).startswith(f"error: {message}")
    assert "\n" not in str(end.value.code)
