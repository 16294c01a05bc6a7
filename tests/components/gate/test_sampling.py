import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import bootstrap

from benchmarks.gate import ten_benchmarks
from components.gate.sampling import (
    Paired,
    Stratum,
    bootstrap_means,
    expected_error,
    margin_of,
    mean_difference,
    strata_of,
)
from wordmill.recipe.sections import Gate

GATE = Gate(floor=0.0, floors={})


def counted(gained: int, lost: int, total: int, weight: float = 0.0) -> Stratum:
    """Pictures of one benchmark, or of several where their weight is given."""
    weight = weight or 1 / total
    return Stratum(weight=weight, values=np.array([weight, -weight, 0.0]),
                   counts=np.array([gained, lost, total - gained - lost]))  # fmt: skip


def interval(*strata: Stratum) -> tuple[float, float]:
    low, high = np.quantile(bootstrap_means(strata), (0.025, 0.975))
    return float(low), float(high)


def test_a_picture_that_stands_in_two_benchmarks_is_one() -> None:
    # a has x, y; b has y, z: each sample is a quarter of the mean, and y both quarters of its two samples.
    one = Paired(name="a", candidate=[True, True], champion=[False, False], pictures=["x", "y"])
    two = Paired(name="b", candidate=[True, False], champion=[False, True], pictures=["y", "z"])
    strata = strata_of([one, two])
    assert [(stratum.weight, stratum.values.tolist(), stratum.counts.tolist()) for stratum in strata] == [
        (0.25, [0.25], [1]),  # x
        (0.5, [0.5], [1]),  # y
        (0.25, [-0.25], [1]),  # z
    ]
    assert mean_difference(strata) == 0.5  # of a 1, of b 0


def test_pictures_are_counted_by_what_came_of_them() -> None:
    pair = Paired(name="a", candidate=[True, False, True, True], champion=[False, True, True, False],
                  pictures=["w", "x", "y", "z"])  # fmt: skip
    [stratum] = strata_of([pair])
    assert (stratum.values.tolist(), stratum.counts.tolist(), stratum.pictures) == ([-0.25, 0.0, 0.25], [1, 1, 2], 4)
    twice = strata_of([replace(pair, pictures=["w", "w", "y", "z"])])
    # w is right once and wrong once, by both: what it adds is nothing, and its weight is a half.
    assert [(stratum.weight, stratum.values.tolist()) for stratum in twice] == [(0.25, [0.0, 0.25]), (0.5, [0.0])]


def test_a_bootstrap_of_samples_that_agree_has_no_width() -> None:
    assert interval(counted(0, 0, 100, 0.005), counted(0, 0, 7, 1 / 14)) == (0.0, 0.0)
    assert interval(counted(5, 0, 5)) == (1.0, 1.0)


def test_a_bootstrap_by_hand() -> None:
    # One of 10 lost: the number lost again is binomial(10, 0.1), which is 0 in 35 %, at most 3 in 98.7 % of the draws.
    assert interval(counted(0, 1, 10)) == pytest.approx((-0.3, 0.0))


def test_the_bootstrap_agrees_with_scipy() -> None:
    counts = [(40, 60, 860), (25, 10, 288)]
    samples = [np.repeat([1.0, -1.0, 0.0], [gained, lost, n - gained - lost]) for gained, lost, n in counts]
    found = bootstrap(samples, lambda a, b, axis: (a.mean(axis) + b.mean(axis)) / 2, n_resamples=9999, batch=500,
                      method="percentile", random_state=np.random.default_rng(1))  # fmt: skip
    expected = found.confidence_interval
    width = expected.high - expected.low
    strata = [counted(*count, 1 / (2 * count[2])) for count in counts]
    low, high = interval(*strata)
    assert (low, high) == (
        pytest.approx(expected.low, abs=0.03 * width),
        pytest.approx(expected.high, abs=0.03 * width),
    )
    assert interval(*strata) == (low, high)


def test_the_ten_benchmarks_have_the_error_of_their_sizes_and_overlaps() -> None:
    sets = ten_benchmarks()
    assert int(sets.pictures.sum()) == 3000 + 647 + 645 + 288 + 867 + 1015 + 2077
    strata = sets.strata(0 * sets.pictures, 0 * sets.pictures)
    # 0.08 / 100 of the sum of n w^2, w by tens: 860 (1/860 + 1/867)^2 + 7/867^2 = 0.004623, 0.004122, 0.001997 of the
    # three pairs, 1/3000 + 1/647 + 1/645 + 1/288 = 0.006902 of the others: 0.017643.
    assert expected_error(strata) == pytest.approx(math.sqrt(0.08 / 100 * 0.017643), rel=1e-4)
    assert margin_of(strata, GATE) == 0.005
    # Words that stand in two benchmarks drawn as if they stood in one each: a sixth too narrow.
    apart = [counted(0, 0, int(n), 1 / (10 * n)) for n in sets.pictures @ sets.standing]
    assert expected_error(apart) / expected_error(strata) == pytest.approx(math.sqrt(0.012402 / 0.017643), rel=1e-3)


def test_the_margin_is_half_a_point_more_where_words_are_few_or_what_the_recipe_says() -> None:
    few, many = [counted(0, 0, 200)], [counted(0, 0, 50_000)]
    assert margin_of(few, GATE) == pytest.approx(1.33 * 0.02)  # the error is the root of 0.08 / 200
    assert margin_of(many, GATE) == 0.005  # 1.33 of 0.126 points are less
    assert margin_of(few, replace(GATE, margin=0.01)) == 0.01
