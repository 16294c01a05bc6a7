"""What of a run goes to MLflow as columns, apart from any store."""

from components.report.logged.entries import columns
from tests.components.report.logged.test_description import summary


def test_what_tells_runs_apart_stands_before_benchmarks_that_a_screen_has_no_room_for() -> None:
    shown = columns(summary())
    assert list(shown) == [
        "metrics.`mean_accuracy`", "tags.`wordmill.gate`", "metrics.`mean_images_per_s`",
        "metrics.`points_to_champion`", "metrics.`benchmark/words/accuracy`",
    ]  # fmt: skip
    assert shown["metrics.`mean_accuracy`"] == 7 * len("mean_accuracy") + 20
    assert sum(list(shown.values())[:4]) < 560  # of 1400 px, beside MLflow's own columns
