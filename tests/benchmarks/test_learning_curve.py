import numpy as np

from benchmarks.learning_curve import LAWS, draw, rows_of


def test_words_are_read_wrong_as_often_as_the_law_says_and_the_same_ones_by_all_trainings() -> None:
    counts = draw(LAWS["0.3"], 200, 2000)
    assert np.abs(counts.mean(0) / 200 - 0.3).max() < 0.005
    # A count's variance is 200 * 0.21 and 200^2 * 0.01^2 for chance in training, of which nothing is shared.
    assert np.abs(counts.var(0) / (42 + 4) - 1).max() < 0.1
    assert 0.2 < np.corrcoef(counts.T)[0, 1] < 0.4


def test_a_law_has_its_coverage_and_its_width() -> None:
    covered, gain, width = rows_of("0.3", 60, 50)
    assert covered["name"] == "0.3, 60 words, 0.0 points to gain: coverage of the 95 % interval"
    assert (covered["goal"], covered["met"]) == (90.0, True)
    assert (gain["unit"], gain["met"], width["unit"]) == ("points", None, "points")
    assert rows_of("0.15 + 0.45 exp(-3 x)", 60, 5)[0]["goal"] is None
