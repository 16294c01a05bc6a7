import pytest

from components.gate.compare import compare_pairs, has_fallen, reasons_of
from components.gate.sampling import Paired
from wordmill.recipe.sections import Gate


def gate(*benchmarks: str, **floors: float) -> Gate:
    return Gate(floor=0.0, floors=floors, margin=0.35, benchmarks=benchmarks)


def pair(name: str, candidate: str, champion: str) -> Paired:
    return Paired(name=name, candidate=[c == "1" for c in candidate], champion=[c == "1" for c in champion],
                  pictures=[f"{name} {number}" for number in range(len(candidate))])  # fmt: skip


def test_the_champion_is_compared_on_the_same_samples() -> None:
    # a: gains 1 sample and loses 3 of 10, p = 2 (1 + 4) / 16; b: gains 1 of 5, p = 1
    pairs = [pair("a", "1000011111", "0111011111"), pair("b", "11000", "10000")]
    found = compare_pairs(pairs, gate("a", "b", b=0.3))
    assert [(row["gained"], row["lost"], row["p"]) for row in found.rows] == [(1, 3, 0.625), (1, 0, 1.0)]
    assert [row["difference"] for row in found.rows] == [-0.2, 0.2]
    assert [row["floor"] for row in found.rows] == [None, 0.3]
    assert found.difference == pytest.approx(0.0)
    assert found.mean == pytest.approx((0.8 + 0.2) / 2)


# Of 10 words one is lost: drawn anew 3 are lost in 7.0 % of draws, 4 in 1.3 % (binomial), so the bound is -0.3.
@pytest.mark.parametrize(("margin", "holds"), [(0.301, True), (0.299, False)])
def test_the_lower_bound_has_to_lie_above_the_margin(margin: float, holds: bool) -> None:
    found = compare_pairs(
        [pair("a", "0" + "1" * 9, "1" * 10)], Gate(floor=0.0, floors={}, margin=margin, benchmarks=("a",))
    )
    assert (found.interval, found.bound) == (pytest.approx([-0.3, 0.0]), pytest.approx(-0.3))
    assert found.holds is holds
    ruled = "is ruled out" if holds else "is not ruled out"
    assert reasons_of(found, "the champion, version 4") == [
        "against the champion, version 4: mean difference -10.00 points (95 %: -30.00 to +0.00) over 1 benchmark, "
        f"lower bound -30.00: worse by {100 * margin:.2f} {ruled}"
    ]


def test_a_benchmark_of_ones_own_has_no_part_in_the_mean() -> None:
    pairs = [pair("a", "1111", "1111"), pair("mine", "0000", "1111")]
    found = compare_pairs(pairs, gate("a"))
    assert (found.difference, found.bound, found.mean) == (0.0, 0.0, 1.0)
    assert [row["name"] for row in found.rows] == ["a", "mine"]
    assert compare_pairs(pairs[1:], gate("a")).difference == -1.0  # but where there is no other


# Words that only the champion reads, of one benchmark: one-sided p is 1 / 2^5 = 0.031 and 1 / 2^4 = 0.063; of two
# benchmarks 2.5 % are each one's: 1 / 2^6 = 0.016; of ten 0.5 %: 1 / 2^8 = 0.0039, 1 / 2^7 = 0.0078.
@pytest.mark.parametrize(("benchmarks", "least"), [(1, 5), (2, 6), (10, 8)])
def test_a_fall_is_no_accident_by_a_bound_for_all_benchmarks_together(benchmarks: int, least: int) -> None:
    assert has_fallen(0, least, benchmarks)
    assert not has_fallen(0, least - 1, benchmarks)
    assert not has_fallen(least, 0, benchmarks)


def test_a_fall_on_one_benchmark_outweighs_the_mean() -> None:
    worse, better = pair("worse", "0" * 6 + "1" * 14, "1" * 20), pair("better", "1" * 20, "0" * 20)
    found = compare_pairs([worse, better], gate("worse", "better"))
    assert (found.difference, found.bound > 0, found.holds) == (pytest.approx(0.35), True, False)
    assert reasons_of(found, "the champion")[1:] == [
        "worse: -30.00 points against the champion are no accident: 0 words gained, 6 lost, McNemar p 0.031"
    ]
