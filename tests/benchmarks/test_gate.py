import math

import numpy as np
import pytest

from benchmarks import gate
from components.gate.sampling import bootstrap_means

SETS = gate.ten_benchmarks()
NIGHTS = 20_000


def test_the_benchmarks_have_their_sizes_and_share_their_pictures() -> None:
    assert (SETS.pictures @ SETS.standing).tolist() == list(gate.SIZES.values())
    assert SETS.pictures.tolist() == [860, 7, 857, 158, 1811, 266, 3000, 647, 645, 288]
    assert SETS.weights[0] == pytest.approx((1 / 860 + 1 / 867) / 10)


def test_the_interval_covers_and_the_gate_lets_few_pass_that_are_worse() -> None:
    """Of the values of the whole simulation, with four standard errors of this smaller one."""
    coverage, promoted = gate.rows_of(SETS, 0.08, -0.005, NIGHTS)
    assert coverage["value"] == pytest.approx(94.91, abs=4 * 100 * math.sqrt(0.95 * 0.05 / NIGHTS))
    assert promoted["value"] == pytest.approx(4.88, abs=4 * 100 * math.sqrt(0.05 * 0.95 / NIGHTS))
    refused = gate.rows_of(SETS, 0.08, 0.0, NIGHTS)[1]
    assert refused["value"] == pytest.approx(62.50, abs=4 * 100 * math.sqrt(0.625 * 0.375 / NIGHTS))


def test_pictures_that_are_taken_for_others_in_each_benchmark_leave_the_interval_too_narrow() -> None:
    gained, lost = gate.draw(SETS, 0.08, 0.0, NIGHTS)
    apart = gate.Benchmarks(pictures=SETS.pictures @ SETS.standing, standing=np.eye(10, dtype=int))
    up, down = gained @ SETS.standing, lost @ SETS.standing
    low, high = (gate.quantiles(apart, up, down, point) for point in (-gate.NORMAL_975, gate.NORMAL_975))
    # 1.96 of errors that are the root of 0.012402 / 0.017643 of the true one: 1.643, which covers 89.96 %.
    assert 100 * ((low <= 0) & (high >= 0)).mean() == pytest.approx(89.96, abs=1)


def test_the_simulations_quantiles_are_those_of_the_gate() -> None:
    gained, lost = gate.draw(SETS, 0.08, 0.0, 3)
    for point, share in ((-gate.NORMAL_95, 0.05), (gate.NORMAL_975, 0.975)):
        exact = [np.quantile(bootstrap_means(SETS.strata(*night)), share) for night in zip(gained, lost, strict=True)]
        # A quantile of 10,000 resamples has an error of about 0.01 points itself.
        assert gate.quantiles(SETS, gained, lost, point) == pytest.approx(exact, abs=4e-4)


def test_falls_are_those_of_the_gate() -> None:
    # Ten benchmarks: of 8 discordant words all must be lost, of fewer even all are an accident.
    assert gate.least_falls(8, 10).tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 8]
