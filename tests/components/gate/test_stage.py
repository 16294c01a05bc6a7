import json
from pathlib import Path
from typing import Any

import pytest

from components.gate.compare import Paired, against_champion, against_floor, below_floors
from components.gate.stage import run
from tests.components.gate.finished_run import FinishedRun
from tests.components.train.trial import Trial
from tests.mlflow_server import mlflow_uri  # noqa: F401 (a fixture)
from wordmill.recipe.sections import Gate
from wordmill.store import tracking
from wordmill.store.artifacts import read_manifest
from wordmill.store.storage import Store

GATE = Gate(floor=0.5, tolerance=0.1)


def pair(name: str, candidate: str, champion: str) -> Paired:
    return Paired(name=name, candidate=[c == "1" for c in candidate], champion=[c == "1" for c in champion],
                  pictures=[f"{name} {number}" for number in range(len(candidate))])  # fmt: skip


@pytest.mark.parametrize(("accuracies", "promoted"), [((0.6, 0.4), True), ((0.6, 0.39), False)])
def test_the_first_model_must_reach_the_floor(accuracies: tuple[float, float], promoted: bool) -> None:
    decision = against_floor({"a": accuracies[0], "b": accuracies[1]}, GATE)
    assert decision.promoted is promoted
    assert "floor 0.5000" in decision.reasons[0]


def test_the_champion_is_compared_on_the_same_samples() -> None:
    # a: gains 1 sample and loses 3 of 10, p = 2 (1 + 4) / 16; b: gains 1 of 5, p = 1
    pairs = [pair("a", "1000011111", "0111011111"), pair("b", "11000", "10000")]
    decision = against_champion(pairs, Gate(floor=0.9, tolerance=0.0, floors={"b": 0.3}))
    assert [(row["gained"], row["lost"], row["p"]) for row in decision.benchmarks] == [(1, 3, 0.625), (1, 0, 1.0)]
    assert [row["difference"] for row in decision.benchmarks] == [-0.2, 0.2]
    assert [row["floor"] for row in decision.benchmarks] == [None, 0.3]
    assert decision.promoted  # the mean difference is 0, the floor is for a first model only
    assert decision.champion_mean == pytest.approx((0.8 + 0.2) / 2)


@pytest.mark.parametrize(("tolerance", "promoted"), [(0.2, True), (0.19, False)])
def test_the_tolerance_is_the_limit(tolerance: float, promoted: bool) -> None:
    pairs = [pair("a", "10000", "11000")] * 3  # -0.2 each
    assert against_champion(pairs, Gate(floor=0.0, tolerance=tolerance)).promoted is promoted


def test_the_interval_says_whether_a_drop_may_be_chance() -> None:
    gate = Gate(floor=0.0, tolerance=0.01)
    chance = against_champion([pair("a", "0" + "1" * 9, "1" * 10)], gate)
    # Of 10 samples, one lost: drawn anew it is lost 0 to 3 times (binomial, 97.5 % point).
    assert chance.interval == pytest.approx([-0.3, 0.0])
    assert chance.reasons == [
        "mean difference to the champion -0.1000 (95 %: -0.3000 to +0.0000) over 1 benchmark "
        "is beyond the tolerance 0.0100"
    ]
    sure = against_champion([pair("a", "0" * 10, "1" * 10)], gate)
    assert sure.interval == [-1.0, -1.0]
    assert sure.reasons[0].endswith("is beyond the tolerance 0.0100, and so is the whole interval")


# Words that only the champion reads, of 20: p = 2 / 2^8 = 0.0078 for 8 of them, 2 / 2^7 = 0.0156 for 7.
@pytest.mark.parametrize(("lost", "tolerance", "promoted"), [(8, 0.1, False), (7, 0.1, True), (8, 0.4, True)])
def test_a_drop_on_one_benchmark_that_is_no_accident_outweighs_the_mean(
    lost: int, tolerance: float, promoted: bool
) -> None:
    worse = pair("worse", "0" * lost + "1" * (20 - lost), "1" * 20)
    better = pair("better", "1" * 20, "0" * 20)
    decision = against_champion([worse, better], Gate(floor=0.0, tolerance=tolerance))
    assert decision.promoted is promoted
    expected = "worse: difference -0.4000 is beyond the tolerance and no accident: 0 words gained, 8 lost, McNemar p "
    assert decision.reasons[1:] == ([] if promoted else [f"{expected}0.0078"])


def test_every_floor_must_be_shown_to_be_reached() -> None:
    gate = Gate(floor=0.0, tolerance=0.0, floors={"c": 0.1, "a": 0.5, "b": 0.5, "e": 0.2})
    assert below_floors({"a": 0.5, "b": 0.4999, "d": 0.0}, gate) == [
        "b: accuracy 0.4999 is below its floor 0.5000",
        "not measured, though there is a floor to reach: c, e",
    ]


@pytest.fixture
def trial(store: Store, tmp_path: Path, mlflow_uri: str) -> Trial:  # noqa: F811
    return Trial(store, tmp_path)


def test_a_good_first_model_becomes_the_champion(trial: Trial) -> None:
    arguments = trial.candidate("one", {"a": "1100", "b": "11"})
    facts = trial.decide(arguments)
    assert (facts["promoted"], facts["outcome"], facts["version"], facts["mean"]) == (True, "promoted", "1", 0.75)
    assert facts["champion_mean"] is None
    found = tracking.champion(trial.name)
    assert found is not None
    trained = read_manifest(arguments["model"])
    assert found.source.startswith("models:/m-")
    assert found.tags["wordmill.model"] == trained.reference
    assert json.loads(found.tags["wordmill.evaluations"]) == json.loads(arguments["evaluations"])


def test_a_bad_first_model_is_refused_and_says_why(trial: Trial, capsys: pytest.CaptureFixture[str]) -> None:
    facts = trial.decide(trial.candidate("one", {"a": "1000"}))
    assert (facts["promoted"], facts["outcome"]) == (False, "refused")
    assert trial.champion() is None
    assert "mean accuracy 0.2500 is below the floor 0.5000" in capsys.readouterr().out


def test_the_same_model_again_keeps_the_champion(trial: Trial) -> None:
    arguments = trial.candidate("one", {"a": "1111"})
    trial.decide(arguments)
    facts = trial.decide({**arguments, "run_tag": f"{trial.recipe}-later"})
    assert (facts["outcome"], facts["version"]) == ("kept", "1")
    assert facts["reasons"] == [
        "the same model is the champion already, as version 1: "
        "no champion yet: mean accuracy 1.0000 reaches the floor 0.5000"
    ]
    assert len(trial.versions()) == 1


def test_a_candidate_beyond_the_tolerance_is_refused_and_one_within_it_promoted(trial: Trial) -> None:
    trial.decide(trial.candidate("one", {"a": "1111111111"}))
    worse = trial.decide(trial.candidate("two", {"a": "0011111111"}))
    assert (worse["outcome"], worse["champion_mean"], trial.champion()) == ("refused", 1.0, "1")
    assert worse["benchmarks"][0]["lost"] == 2
    close = trial.decide(trial.candidate("three", {"a": "0111111111"}))
    assert (close["outcome"], close["version"], trial.champion()) == ("promoted", "3", "3")


def test_a_refused_candidate_is_registered_once(trial: Trial) -> None:
    trial.decide(trial.candidate("one", {"a": "1111111111"}))
    arguments = trial.candidate("two", {"a": "0011111111"})
    assert trial.decide(arguments)["version"] == trial.decide(arguments)["version"] == "2"


def test_the_registry_says_why(trial: Trial) -> None:
    trial.decide(trial.candidate("one", {"a": "1111111111"}))
    refused = trial.decide(trial.candidate("two", {"a": "0011111111"}))
    versions = {found.version: found for found in trial.versions()}
    assert versions["1"].tags["wordmill.gate"] == "no champion yet: mean accuracy 1.0000 reaches the floor 0.5000"
    assert versions["2"].tags["wordmill.gate"] == "; ".join(refused["reasons"])
    assert "is beyond the tolerance 0.1000" in refused["reasons"][0]


def test_the_facts_are_those_of_the_report(trial: Trial) -> None:
    first = trial.decide(trial.candidate("one", {"a": "1111"}))
    assert (first["interval"], first["benchmarks"]) == (None, [{"name": "a", "accuracy": 1.0, "floor": None}])
    second = trial.decide(trial.candidate("two", {"a": "0000"}))
    assert second["interval"] == [-1.0, -1.0]
    (row,) = second["benchmarks"]
    assert row == {"name": "a", "total": 4, "accuracy": 0.0, "champion_accuracy": 1.0, "difference": -1.0,
                   "gained": 0, "lost": 4, "p": 0.125, "floor": None}  # fmt: skip


def test_a_benchmark_below_its_floor_is_refused_with_and_without_a_champion(trial: Trial) -> None:
    gate = json.dumps({"floor": 0.5, "tolerance": 0.1, "floors": {"b": 0.75}})
    low = trial.candidate("one", {"a": "1111", "b": "1100"}) | {"gate": gate}
    facts = trial.decide(low)
    assert (facts["outcome"], facts["reasons"][1]) == ("refused", "b: accuracy 0.5000 is below its floor 0.7500")
    trial.decide(trial.candidate("two", {"a": "1111", "b": "1100"}))
    assert trial.champion() == "2"
    again = trial.decide(trial.candidate("three", {"a": "1111", "b": "1100"}) | {"gate": gate})
    assert (again["outcome"], again["reasons"][1]) == ("refused", "b: accuracy 0.5000 is below its floor 0.7500")


@pytest.mark.parametrize("other", [{"dataset": "shard/other"}, {"protocol": "dtrb"}, {"beams": 5}, {"amp": "O2"}])
def test_a_champion_measured_on_other_samples_or_by_other_rules_cannot_be_compared(
    trial: Trial, other: dict[str, Any]
) -> None:
    trial.decide(trial.candidate("one", {"a": "1111"}))
    facts = trial.decide(trial.candidate("two", {"a": "1111"}, **other))
    assert (facts["outcome"], trial.champion()) == ("refused", "1")
    assert "the champion, version 1, cannot be compared" in facts["reasons"][0]


def test_the_same_samples_are_compared_whoever_has_packed_them(trial: Trial) -> None:
    trial.decide(trial.candidate("one", {"a": "1111"}))
    facts = trial.decide(trial.candidate("two", {"a": "1111"}, content="encoded, in other blocks"))
    assert [row["name"] for row in facts["benchmarks"]] == ["a"]
    assert facts["outcome"] == "promoted"


def test_a_champion_of_whom_other_samples_count_is_not_paired(trial: Trial) -> None:
    trial.decide(trial.candidate("one", {"a": "11110", "b": "1"}))
    facts = trial.decide(trial.candidate("two", {"a": "1111", "b": "1"}))
    assert [row["name"] for row in facts["benchmarks"]] == ["b"]
    assert facts["reasons"][1] == "not compared, the champion was measured on other samples or not at all: a"


def test_a_smoke_run_is_never_champion(trial: Trial) -> None:
    smoke = {"gate": json.dumps({"floor": 0.0, "tolerance": 1.0, "promote": False})}
    facts = trial.decide(trial.candidate("one", {"a": "1111"}) | smoke)
    assert (facts["outcome"], facts["reasons"]) == ("refused", ["gate.promote is false: a smoke run is never champion"])
    trial.decide(trial.candidate("two", {"a": "1000"}))
    again = trial.decide(trial.candidate("one", {"a": "1111"}) | smoke)
    assert again["outcome"] == "refused"


def test_a_champion_whose_measurements_are_gone_cannot_be_seen_and_stays(trial: Trial) -> None:
    measured = trial.candidate("one", {"a": "1111", "b": "1111"})
    trial.decide(measured)
    lost = json.loads(measured["evaluations"])[1]
    trial.store.client.delete_object(Bucket=trial.store.bucket, Key=f"manifests/{lost}.json")
    facts = trial.decide(trial.candidate("two", {"a": "1111", "b": "1111"}))
    assert (facts["outcome"], facts["champion_mean"], trial.champion()) == ("refused", None, "1")
    assert facts["reasons"][0].startswith(
        "the champion, version 1, cannot be seen on b: 1 of its measurements are gone from "
        f"bucket '{trial.store.bucket}', such as {lost}"
    )
    # What is not asked for need not be seen.
    assert trial.decide(trial.candidate("three", {"a": "1111"}))["outcome"] == "promoted"


def test_another_benchmark_adds_to_what_the_champion_was_measured_on(trial: Trial) -> None:
    trial.decide(trial.candidate("one", {"a": "1111"}))
    assert trial.decide(trial.candidate("one", {"b": "1111"}))["outcome"] == "kept"
    facts = trial.decide(trial.candidate("two", {"a": "1111", "b": "1111"}))
    assert [row["name"] for row in facts["benchmarks"]] == ["a", "b"]
    assert facts["outcome"] == "promoted"


def test_a_file_that_differs_is_not_promoted(trial: Trial) -> None:
    facts = trial.decide(trial.candidate("one", {"a": "1111"}, ok=False))
    assert facts["outcome"] == "refused"
    assert "do not behave like the trained model: onnx" in facts["reasons"][1]


def test_a_file_that_was_not_made_holds_no_candidate_back(trial: Trial) -> None:
    arguments = trial.candidate("one", {"a": "1111"})
    seed = FinishedRun(store=trial.store, folder=trial.folder / "more", run_tag=arguments["run_tag"])
    unmade = seed.not_made("om", "CANN's atc is not on PATH")
    parities = json.dumps([*json.loads(arguments["parities"]), unmade.reference])
    facts = trial.decide({**arguments, "parities": parities})
    assert (facts["outcome"], trial.champion()) == ("promoted", "1")


def test_measurements_of_another_model_are_an_error(trial: Trial, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = trial.candidate("one", {"a": "1111"}), trial.candidate("two", {"a": "1"})
    with pytest.raises(SystemExit):
        run(**{**one, "evaluations": two["evaluations"]})
    assert "measured train/" in capsys.readouterr().out


def test_without_mlflow_the_stage_fails(trial: Trial, silent_address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = trial.candidate("one", {"a": "1111"})
    monkeypatch.setenv("MLFLOW_TRACKING_URI", silent_address)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(SystemExit):
        run(**arguments)
    error = json.loads((trial.folder / "error.json").read_text())
    assert error["ok"] is False
    assert "MLFLOW_TRACKING_URI http://127.0.0.1" in error["error"]
