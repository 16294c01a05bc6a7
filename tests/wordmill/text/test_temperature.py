import math

import numpy as np
import pytest

from wordmill.text.temperature import HIGHEST, LOWEST, confidence_histogram, fit_temperature


def outcomes(right: int, wrong: int) -> np.ndarray:
    return np.arange(right + wrong) < right


@pytest.mark.parametrize(
    ("confidence", "right", "wrong", "expected"),
    [
        # The power makes each confidence the share that is right.
        (0.81, 10, 10, math.log(0.81) / math.log(0.5)),
        (0.5625, 30, 10, 2.0),
        (0.5, 10, 30, 0.5),
        (0.9, 90, 10, 1.0),
    ],
)
def test_equal_confidences_become_the_share_that_is_right(
    confidence: float, right: int, wrong: int, expected: float
) -> None:
    sure = np.full(right + wrong, confidence, np.float32)
    assert fit_temperature(sure, outcomes(right, wrong)) == pytest.approx(expected, abs=6e-5)  # it has four decimals


def test_empty_readings_have_no_part_in_it() -> None:
    sure = np.array([0.81] * 20 + [0.0] * 50 + [np.nan], np.float32)
    right = np.concatenate([outcomes(10, 10), outcomes(25, 25), [True]])
    assert fit_temperature(sure, right) == pytest.approx(0.304, abs=6e-5)
    assert fit_temperature(sure[20:70], right[20:70]) == 1.0


def test_of_few_outcomes_of_a_kind_nothing_is_learnt() -> None:
    for right, wrong in ((500, 9), (9, 500), (0, 0)):
        assert fit_temperature(np.full(right + wrong, 0.9, np.float32), outcomes(right, wrong)) == 1.0


def test_certain_readings_stay_within_bounds() -> None:
    assert fit_temperature(np.ones(40, np.float32), outcomes(20, 20)) == LOWEST
    assert fit_temperature(np.full(100_000, 1e-30, np.float32), outcomes(99_990, 10)) == HIGHEST


@pytest.mark.parametrize("true", [0.3, 1.0, 2.5])
def test_the_temperature_by_which_outcomes_were_drawn_is_found(true: float) -> None:
    generator = np.random.default_rng(5)
    scores = -generator.exponential(0.7, 20_000)
    right = generator.random(20_000) < np.exp(scores / true)
    assert fit_temperature(np.exp(scores).astype(np.float32), right) == pytest.approx(true, rel=0.03)


def test_confidences_are_counted_in_twenty_bins() -> None:
    found = confidence_histogram(np.array([0.0, np.nan, 0.05, 0.5, 0.99, 1.0], np.float32))
    assert found == {"0.00": 2, "0.05": 1, "0.50": 1, "0.95": 2}
