import json

import pytest

from benchmarks import inference, models, serve, worker
from benchmarks.contender import Contender, made_pictures, made_words
from benchmarks.models import Result
from wordmill.recipe.loading import load_recipe

OURS = [Result("pytorch", 2.0, 3.0), Result("mindspore", 10.0, 12.0)]
DTRB, DOCTR = Result("dtrb", 3.0, 4.0), Result("doctr", 1.0, 9.0)


def test_each_framework_of_ours_meets_the_peers_of_its_own() -> None:
    mindocr = Result("mindocr", 25.0, 24.0)
    rows = models.rows_of("a", "training", [*OURS, DTRB, DOCTR, mindocr], "cpu", 0.0)
    assert [(row["name"], row["peer"], row["ratio"], row["goal"], row["met"]) for row in rows] == [
        ("a, DTRB-style VGG", None, None, None, None),
        ("a, docTR", None, None, None, None),
        ("a, MindOCR", None, None, None, None),
        ("a, pytorch", "DTRB-style VGG", 1.5, 2.0, False),
        ("a, pytorch", "docTR", 0.5, 1.0, False),
        ("a, mindspore", "MindOCR", 2.5, 1.0, True),
    ]
    assert [(row["value"], row["unit"]) for row in rows[3:5]] == [(2.0, "ms CPU/picture")] * 2


def test_a_framework_without_a_peer_meets_those_of_the_other_and_without_any_stands_alone() -> None:
    rows = models.rows_of("a", "inference", [*OURS, DTRB], "cpu", 0.0)
    assert [(row["peer"], row["ratio"], row["goal"], row["met"]) for row in rows[1:]] == [
        ("DTRB-style VGG", 1.5, 1.0, True),
        ("DTRB-style VGG", 0.3, 1.0, False),
    ]
    assert [row["peer"] for row in models.rows_of("a", "training", OURS, "cpu", 0.0)] == [None, None]


def test_on_a_card_the_clock_counts_and_the_share_of_its_peak() -> None:
    # 3 ms a picture of 6 GFLOP are 2 TFLOP/s.
    rows = models.rows_of("a", "inference", [Result("pytorch", 2.0, 3.0, flops=6e9), DOCTR], "cuda", 100.0)
    assert [(row["value"], row["unit"], row["ratio"]) for row in rows] == [
        (111.1, "pictures/s", None),
        (333.3, "pictures/s", 3.0),
        (0.02, "of the card's peak", None),
    ]


def test_the_table_has_one_line_per_row_and_the_json_the_same_keys() -> None:
    rows = models.rows_of("a", "training", [*OURS, DTRB], "cpu", 0.0)
    lines = models.table(rows).splitlines()
    assert len(lines) == len(rows) + 1
    assert lines[2].split() == ["a,", "pytorch", "2.0", "ms", "CPU/picture", "DTRB-style", "VGG", "1.5", "2.0", "False"]
    keys = {"name", "value", "unit", "peer", "ratio", "goal", "met"}
    assert all(set(row) == keys for row in json.loads(json.dumps(rows)))


def test_time_is_per_picture_over_all_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 0.4, 0.8, 1.2, 1.2])
    monkeypatch.setattr(worker.time, "monotonic", lambda: next(clock))
    spent = iter([5.0, 5.6])
    monkeypatch.setattr(worker, "spent_s", lambda: next(spent))
    runs: list[int] = []
    # Three runs of 4 pictures: 0.6 s of processor time and 1.2 s by the clock over 12 pictures.
    assert worker.measure(Contender(lambda: runs.append(1)), 4, 1.0) == pytest.approx((50.0, 100.0))
    assert len(runs) == 3


def test_every_recipe_is_measured_on_words_that_it_can_write() -> None:
    assert {path.stem for path in models.RECIPES.glob("*.yaml")} == set(models.CONTESTS)
    recipe = load_recipe(models.RECIPES / "quickstart.yaml")
    assert made_pictures(recipe, 2).shape == (2, 32, 100, 1)
    assert all(3 <= len(word) <= 9 and len(set(word)) == len(word) for word in made_words(recipe, 50))


def test_each_format_meets_every_peer_and_the_registered_one_has_the_goal() -> None:
    results = [
        Result("onnx", 4.0, 5.0),
        Result("mindir", 8.0, 9.0),
        Result("openvino", 2.0, 3.0),
        Result("doctr", 6.0, 7.0),
    ]
    rows = inference.rows_of("a x1", results)
    assert [(row["name"], row["value"], row["peer"], row["ratio"], row["goal"], row["met"]) for row in rows] == [
        ("a x1, openvino", 2.0, None, None, None, None),
        ("a x1, doctr", 6.0, None, None, None, None),
        ("a x1, onnx", 4.0, "OpenVINO", 0.5, None, None),
        ("a x1, onnx", 4.0, "docTR", 1.5, 1.0, True),
        ("a x1, mindir", 8.0, "OpenVINO", 0.25, None, None),
        ("a x1, mindir", 8.0, "docTR", 0.75, None, None),
    ]


def test_the_service_is_judged_by_its_share_of_the_runtimes_speed() -> None:
    found = {"bare cpu": 8.0, "cpu": 10.0, "bare clock": 4.0, "clock": 5.0, "bare one": 3.0, "one": 4.0, "one p99": 9.0}
    rows = serve.rows_of("a", found)
    assert [(row["name"], row["value"], row["ratio"], row["goal"], row["met"]) for row in rows] == [
        ("a, ONNX Runtime x64", 8.0, None, None, None),
        ("a, service, 64 clients", 10.0, 0.8, 0.85, False),
        ("a, service, 64 clients", 5.0, 0.8, None, None),
        ("a, ONNX Runtime x1", 3.0, None, None, None),
        ("a, service, 1 client, median", 4.0, 0.75, None, None),
        ("a, service, 1 client, p99", 9.0, None, None, None),
    ]
    assert {key for row in rows for key in row} == {"name", "value", "unit", "peer", "ratio", "goal", "met"}
