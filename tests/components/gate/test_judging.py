from dataclasses import replace

import pytest

from components.gate.compare import PairedComparison
from components.gate.judging import floors_missed, judge_candidate
from wordmill.recipe.sections import Gate

GATE = Gate(floor=0.5, floors={"a": 0.3, "b": 0.3}, benchmarks=("a", "b"))
RIVAL = PairedComparison(mean=0.5, difference=-0.001, interval=[-0.006, 0.004], bound=-0.004, margin=0.005, rows=[])
FALLEN = {"name": "a", "difference": -0.1, "gained": 0, "lost": 9, "p": 0.004, "fallen": True}


@pytest.mark.parametrize(("accuracies", "promoted"), [((0.6, 0.4), True), ((0.6, 0.39), False), ((0.8, 0.2), False)])
def test_the_first_model_must_reach_the_floor_and_each_benchmarks(
    accuracies: tuple[float, float], promoted: bool
) -> None:
    decision = judge_candidate(GATE, dict(zip("ab", accuracies, strict=True)), {}, [])
    assert (decision.promoted, decision.outcome) == (promoted, "promoted" if promoted else "refused")
    assert ("no champion yet" in decision.reasons[0]) is promoted


def test_every_floor_must_be_reached_and_every_benchmark_have_one() -> None:
    gate = Gate(floor=0.6, floors={"a": 0.5, "b": 0.5, "mine": 0.2}, benchmarks=("a", "b"))
    assert floors_missed({"a": 0.5, "b": 0.4999, "mine": 0.1, "other": 0.9}, gate) == [
        "mean accuracy 0.5000 is below the floor 0.6000",  # 0.49995, without those that are not the recipe's
        "b: accuracy 0.4999 is below its floor 0.5000",
        "mine: accuracy 0.1000 is below its floor 0.2000",
        "other: no floor says what it is to reach: set gate.floors.other",
    ]
    # The mean's floor is that of all.
    assert floors_missed({"a": 0.5}, gate) == []


def test_a_part_of_the_benchmarks_is_only_told() -> None:
    decision = judge_candidate(GATE, {"a": 0.9}, {}, [])
    assert (decision.good, decision.promoted, decision.outcome) == (True, False, "would be promoted")
    assert decision.unmeasured == ["b"]
    assert judge_candidate(GATE, {"a": 0.2}, {}, []).outcome == "would be refused"
    other = judge_candidate(
        replace(GATE, floors={**GATE.floors, "mine": 0.5}), {"mine": 0.9}, {"the champion": RIVAL}, []
    )
    assert (other.promoted, other.outcome, other.unmeasured) == (False, "would be promoted", ["a", "b"])


def test_a_candidate_holds_against_each_rival() -> None:
    good = {"a": 0.6, "b": 0.6}
    assert judge_candidate(GATE, good, {"the champion": RIVAL, "the best": RIVAL}, []).promoted
    low = replace(RIVAL, bound=-0.005)  # not above the margin
    assert not judge_candidate(GATE, good, {"the champion": RIVAL, "the best": low}, []).promoted
    assert not judge_candidate(GATE, good, {"the champion": replace(RIVAL, rows=[FALLEN])}, []).promoted
    refused = judge_candidate(GATE, good, {"the champion": RIVAL}, ["files differ"])
    assert (refused.promoted, refused.reasons[-1]) == (False, "files differ")


def test_the_facts_are_of_the_rivals_by_name() -> None:
    facts = judge_candidate(GATE, {"a": 0.6, "b": 0.6}, {"the champion": RIVAL}, []).facts()
    assert facts["rivals"] == {"the champion": {
        "mean": 0.5, "difference": -0.001, "interval": [-0.006, 0.004], "bound": -0.004, "margin": 0.005}}  # fmt: skip
    first = judge_candidate(GATE, {"a": 0.6, "b": 0.6}, {}, []).facts()
    assert first["benchmarks"] == [
        {"name": "a", "accuracy": 0.6, "floor": 0.3}, {"name": "b", "accuracy": 0.6, "floor": 0.3}
    ]  # fmt: skip
