import numpy as np
import pytest

from benchmarks.learning_curve import LAWS, draw
from wordmill.inference.learning_curve import PLAIN, fit_curve

PARTS = (0.125, 0.25, 0.5, 1.0)


def test_a_plain_power_law_is_found_where_the_counts_are_one() -> None:
    found = fit_curve(PARTS, np.array([[6400, 3200, 1600, 800], [800, 800, 800, 800]]), 10_000)
    assert found.error[:, PLAIN].ravel() == pytest.approx([0.08, 0.08], abs=1e-4)
    assert found.power[:, PLAIN].ravel() == pytest.approx([1.0, 0.0], abs=1e-3)
    assert found.likelihood[1, PLAIN] == pytest.approx(1.0)
    assert (found.low[0], found.gain[1]) == (pytest.approx(0.022, abs=0.01), pytest.approx(0.0, abs=0.004))
    assert found.low[0] < 0.04 < found.high[0]  # 0.08 less 0.04
    assert found.low[1] < 0.0 < found.high[1]


def test_a_floor_and_a_head_start_are_among_the_laws() -> None:
    # 0.1 + 0.4 / (1 + 10 x): of floor 0.733 and head start 0.1, whose gain is 0.4 / 11 - 0.4 / 21.
    errors = [0.1 + 0.4 / (1 + 10 * x) for x in PARTS]
    found = fit_curve(PARTS, np.array([[round(20_000 * error) for error in errors]]), 20_000)
    assert [found.error_at(x)[0] for x in PARTS] == pytest.approx(errors, abs=0.004)
    assert found.low[0] < 0.4 / 11 - 0.4 / 21 < found.high[0]
    # An error that falls ever faster, twice as words are doubled at last, is no plain power law's.
    assert fit_curve(PARTS, np.array([[1400, 1200, 800, 400]]), 2000).likelihood[0, PLAIN] < 0.01


def test_counts_without_any_error_or_without_anything_right_are_fitted() -> None:
    found = fit_curve(PARTS, np.array([[0, 0, 0, 0], [60, 60, 60, 60]]), 60)
    assert np.isfinite([found.gain, found.low, found.high]).all()
    assert (found.low <= found.gain).all()
    assert (found.gain <= found.high).all()
    assert found.high[0] < 0.05  # there is no more to gain than the error


# What `python -m benchmarks.learning_curve` prints, of fewer curves.
@pytest.mark.parametrize(
    ("law", "words", "covered", "width"),
    [("0.3", 60, 0.96, 0.155), ("0.3 x^-0.4", 200, 0.99, 0.098), ("1 / (1 + 1.5 x^0.72)", 200, 0.97, 0.120)],
)
def test_the_interval_holds_what_twice_as_many_words_give(law: str, words: int, covered: float, width: float) -> None:
    true = LAWS[law](1.0) - LAWS[law](2.0)
    found = fit_curve(PARTS, draw(LAWS[law], words, 200), words)
    assert ((found.low <= true) & (true <= found.high)).mean() == pytest.approx(covered, abs=0.03)
    assert (found.high - found.low).mean() == pytest.approx(width, abs=0.01)
