import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from components.gate import stage
from components.gate.compare import PairedComparison
from components.gate.judged import measurements_of, words_of
from components.gate.judging import judge_candidate
from components.gate.stage import Registry, best_of, run
from tests.components.gate.finished_run import FinishedRun
from tests.components.train.trial import Trial, gate
from tests.mlflow_server import mlflow_uri  # noqa: F401 (a fixture)
from wordmill.recipe.sections import Gate
from wordmill.store import tracking
from wordmill.store.artifacts import read_manifest
from wordmill.store.storage import Store
from wordmill.store.tracking import Version


@pytest.fixture
def trial(store: Store, tmp_path: Path, mlflow_uri: str) -> Trial:  # noqa: F811
    return Trial(store, tmp_path)


def test_a_good_first_model_becomes_the_champion(trial: Trial) -> None:
    arguments = trial.candidate("one", {"a": "1100", "b": "11"})
    facts = trial.decide(arguments)
    assert (facts["promoted"], facts["outcome"], facts["version"], facts["mean"]) == (True, "promoted", "1", 0.75)
    assert facts["rivals"] == {}
    found = tracking.holder(trial.name, "champion")
    assert found is not None
    assert tracking.holder(trial.name, "best") == found
    trained = read_manifest(arguments["model"])
    assert found.source.startswith("models:/m-")
    assert found.tags["wordmill.model"] == trained.reference
    assert measurements_of(trial.store, found) == json.loads(arguments["evaluations"])


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
        "no champion yet: mean accuracy 1.0000 reaches the floor 0.5000, and each benchmark its own"
    ]
    assert len(trial.versions()) == 1


def test_a_candidate_that_may_be_worse_by_the_margin_is_refused(trial: Trial) -> None:
    trial.decide(trial.candidate("one", {"a": "1111111111"}))
    # Of ten words two are lost: drawn anew, 12.1 % of draws lose 4 or more, 3.3 % lose 5 or more (binomial).
    worse = trial.decide(trial.candidate("two", {"a": "0011111111"}))
    against = worse["rivals"]["the champion, version 1"]
    assert (worse["outcome"], against["mean"], against["margin"], trial.champion()) == ("refused", 1.0, 0.35, "1")
    assert (worse["benchmarks"][0]["lost"], against["bound"]) == (2, pytest.approx(-0.4))
    # Of one, 7.0 % lose 3 or more, 1.3 % 4 or more.
    close = trial.decide(trial.candidate("three", {"a": "0111111111"}))
    assert (close["outcome"], close["version"], trial.champion()) == ("promoted", "3", "3")


def test_champions_that_are_each_a_little_worse_do_not_sink(trial: Trial) -> None:
    trial.decide(trial.candidate("one", {"a": "1111111111"}))
    trial.decide(trial.candidate("two", {"a": "0111111111"}))
    best = tracking.holder(trial.name, "best")
    assert (trial.champion(), best and best.version) == ("2", "1")
    # One word less than the champion, as that had, and two less than the best there was.
    facts = trial.decide(trial.candidate("three", {"a": "0011111111"}))
    assert list(facts["rivals"]) == ["the champion, version 2", "the best champion so far, version 1"]
    assert [one["difference"] for one in facts["rivals"].values()] == [pytest.approx(-0.1), pytest.approx(-0.2)]
    assert (facts["outcome"], trial.champion()) == ("refused", "2")
    assert [reason.split(":")[0] for reason in facts["reasons"]] == [
        "against the champion, version 2", "against the best champion so far, version 1"
    ]  # fmt: skip


# Differences of the candidate to the champion 2 and to the best 1; of equal ones the candidate is best.
@pytest.mark.parametrize(
    ("to_champion", "to_best", "best"), [(0.1, 0.05, "3"), (0.0, 0.0, "3"), (0.1, -0.1, "1"), (-0.2, -0.1, "2")]
)
def test_the_best_is_whoever_has_the_highest_mean_of_all_that_were_compared(
    to_champion: float, to_best: float, best: str
) -> None:
    def against(difference: float) -> PairedComparison:
        return PairedComparison(mean=0.5, difference=difference, interval=[0, 0], bound=0, margin=1, rows=[])

    one, two = (Version(version=number, source="", tags={}) for number in "12")
    registry = Registry(name="x", version="3", champion=two, best=one)
    rivals = dict(zip(map(registry.called, registry.rivals), map(against, (to_champion, to_best)), strict=True))
    decision = judge_candidate(Gate(floor=0, floors={}, benchmarks=("a",)), {"a": 1.0}, rivals, [])
    assert best_of(registry, decision) == best


def test_a_part_of_the_benchmarks_is_judged_and_promotes_nobody(trial: Trial) -> None:
    facts = trial.decide(trial.candidate("one", {"a": "1111"}) | {"gate": gate("a", "b")})
    assert (facts["outcome"], facts["promoted"], facts["unmeasured"]) == ("would be promoted", False, ["b"])
    assert facts["reasons"] == ["a run of 1 of the recipe's 2 benchmarks promotes nobody: not measured were b"]
    assert (trial.champion(), tracking.holder(trial.name, "best")) == (None, None)


def test_two_gates_at_once_do_not_overtake_each_other(trial: Trial) -> None:
    trial.decide(trial.candidate("first", {"a": "1111000000"}) | {"gate": gate("a", floor=0.4)})
    both = [trial.candidate("good", {"a": "1111111110"}), trial.candidate("bad", {"a": "1111100000"})]
    with ThreadPoolExecutor(2) as pool:
        good, bad = pool.map(trial.decide, both)
    # Alone against the first either is good enough; the bad one after the good one is not.
    assert good["outcome"] == "promoted"
    assert trial.champion() == good["version"]
    after = next(iter(bad["rivals"])) == f"the champion, version {good['version']}"
    assert bad["outcome"] == ("refused" if after else "promoted")


def test_a_refused_candidate_is_registered_once(trial: Trial) -> None:
    trial.decide(trial.candidate("one", {"a": "1111111111"}))
    arguments = trial.candidate("two", {"a": "0011111111"})
    assert trial.decide(arguments)["version"] == trial.decide(arguments)["version"] == "2"


def test_the_registry_says_why(trial: Trial) -> None:
    trial.decide(trial.candidate("one", {"a": "1111111111"}))
    refused = trial.decide(trial.candidate("two", {"a": "0011111111"}))
    versions = {found.version: found for found in trial.versions()}
    assert {number: found.tags["wordmill.gate"] for number, found in versions.items()} == {
        "1": "promoted", "2": "refused",
    }  # fmt: skip
    assert max(len(text) for found in versions.values() for text in found.tags.values()) < 40
    words = [words_of(trial.store, trial.name, tracking.find_version(trial.name, number)) for number in "12"]
    assert words == [
        "no champion yet: mean accuracy 1.0000 reaches the floor 0.5000, and each benchmark its own",
        "; ".join(refused["reasons"]),
    ]
    assert "worse by 35.00 is not ruled out" in refused["reasons"][0]


def test_the_facts_are_those_of_the_report(trial: Trial) -> None:
    first = trial.decide(trial.candidate("one", {"a": "1111"}))
    assert (first["rivals"], first["benchmarks"]) == ({}, [{"name": "a", "accuracy": 1.0, "floor": 0.0}])
    second = trial.decide(trial.candidate("two", {"a": "0000"}))
    assert second["rivals"] == {"the champion, version 1": {
        "mean": 1.0, "difference": -1.0, "interval": [-1.0, -1.0], "bound": -1.0, "margin": 0.35}}  # fmt: skip
    (row,) = second["benchmarks"]
    assert row == {"name": "a", "total": 4, "accuracy": 0.0, "champion_accuracy": 1.0, "difference": -1.0,
                   "gained": 0, "lost": 4, "p": 0.125, "fallen": False, "floor": 0.0}  # fmt: skip


def test_a_benchmark_below_its_floor_is_refused_with_and_without_a_champion(trial: Trial) -> None:
    high = {"gate": gate("a", "b", floors={"a": 0.0, "b": 0.75})}
    facts = trial.decide(trial.candidate("one", {"a": "1111", "b": "1100"}) | high)
    assert (facts["outcome"], facts["reasons"]) == ("refused", ["b: accuracy 0.5000 is below its floor 0.7500"])
    trial.decide(trial.candidate("two", {"a": "1111", "b": "1100"}))
    assert trial.champion() == "2"
    again = trial.decide(trial.candidate("three", {"a": "1111", "b": "1100"}) | high)
    assert (again["outcome"], again["reasons"][1]) == ("refused", "b: accuracy 0.5000 is below its floor 0.7500")


@pytest.mark.parametrize("other", [{"dataset": "shard/other"}, {"protocol": "dtrb"}])
def test_a_champion_measured_on_other_samples_or_by_other_rules_cannot_be_compared(
    trial: Trial, other: dict[str, Any]
) -> None:
    trial.decide(trial.candidate("one", {"a": "1111"}))
    facts = trial.decide(trial.candidate("two", {"a": "1111"}, **other))
    assert (facts["outcome"], trial.champion()) == ("refused", "1")
    assert facts["reasons"][-1] == (
        "the champion, version 1 cannot be compared on a: it was not measured on the same samples by the same rules"
    )


def test_the_same_samples_are_compared_whoever_has_packed_them(trial: Trial) -> None:
    trial.decide(trial.candidate("one", {"a": "1111"}))
    facts = trial.decide(trial.candidate("two", {"a": "1111"}, content="encoded, in other blocks"))
    assert [row["name"] for row in facts["benchmarks"]] == ["a"]
    assert facts["outcome"] == "promoted"


def test_a_champion_of_whom_other_samples_count_is_not_paired(trial: Trial) -> None:
    trial.decide(trial.candidate("one", {"a": "11110", "b": "1"}))
    facts = trial.decide(trial.candidate("two", {"a": "1111", "b": "1"}))
    assert [row["name"] for row in facts["benchmarks"]] == ["b"]
    assert facts["reasons"][1].startswith("the champion, version 1 cannot be compared on a: it was not measured on")
    assert (facts["outcome"], trial.champion()) == ("refused", "1")


def test_a_smoke_run_is_never_champion(trial: Trial) -> None:
    smoke = {"gate": gate("a", "of", "the", "recipe", floor=0.0, promote=False)}
    facts = trial.decide(trial.candidate("one", {"a": "1111"}) | smoke)
    assert (facts["outcome"], facts["reasons"]) == ("refused", ["gate.promote is false: a smoke run is never champion"])
    trial.decide(trial.candidate("two", {"a": "1000"}))
    again = trial.decide(trial.candidate("one", {"a": "1111"}) | smoke)
    assert again["outcome"] == "refused"


def test_a_champion_whose_measurements_are_gone_is_measured_again_or_cannot_be_seen_and_stays(trial: Trial) -> None:
    measured = trial.candidate("one", {"a": "1111", "b": "1111"})
    trial.decide(measured)
    lost = json.loads(measured["evaluations"])[1]
    trial.store.client.delete_object(Bucket=trial.store.bucket, Key=f"manifests/{lost}.json")
    candidate = trial.candidate("two", {"a": "1111", "b": "1111"})
    facts = trial.decide(candidate)
    assert (facts["outcome"], [row["name"] for row in facts["benchmarks"]], trial.champion()) == ("refused", ["a"], "1")
    told = (
        "the champion, version 1 cannot be compared on b: 1 of its measurements are gone from "
        f"bucket '{trial.store.bucket}', such as {lost}"
    )
    assert facts["reasons"][1] == told
    again = trial.decide(candidate | {"rivals": trial.rivals("1", {}, {"b": "its weights are gone"})})
    assert again["reasons"][1] == f"{told}, and it could not be measured again: its weights are gone"
    # The same outcomes, by other code, of the same samples.
    seed = FinishedRun(store=trial.store, folder=trial.folder / "again", run_tag="again")
    trained = read_manifest(measured["model"])
    fresh = {name: seed.evaluation(name, "1111", trained, ned=0.8).reference for name in "ab"}
    facts = trial.decide(candidate | {"rivals": trial.rivals("1", fresh, {})})
    assert ([row["name"] for row in facts["benchmarks"]], facts["outcome"]) == (["a", "b"], "promoted")


def test_another_benchmark_adds_to_what_the_champion_was_measured_on(trial: Trial) -> None:
    trial.decide(trial.candidate("one", {"a": "1111"}))
    assert trial.decide(trial.candidate("one", {"b": "1111"}))["outcome"] == "kept"
    facts = trial.decide(trial.candidate("two", {"a": "1111", "b": "1111"}))
    assert [row["name"] for row in facts["benchmarks"]] == ["a", "b"]
    assert facts["outcome"] == "promoted"


def test_a_file_that_differs_is_not_promoted(trial: Trial) -> None:
    facts = trial.decide(trial.candidate("one", {"a": "1111"}, texts_equal=63))  # of 64, all of which are needed
    assert facts["outcome"] == "refused"
    assert facts["reasons"] == ["exported files that do not behave like the trained model: onnx"]


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


def test_a_night_says_what_has_moved_since_the_champions_run(
    trial: Trial, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = trial.candidate("one", {"a": "1111111111" * 4})
    assert trial.decide(first)["drift"] is None
    confidences = {"validation, the champion's confidence": ({"0.50": 500}, {"0.90": 500})}
    monkeypatch.setattr(stage, "both_runs", lambda store, trained, reference, rival: confidences)
    drift = trial.decide(trial.candidate("two", {"a": "1111111111" * 4}))["drift"]
    assert (drift["against"], drift["slices"][0]["verdict"]) == ("the champion, version 1", "as before")
    assert drift["slices"][0]["what"] == "words of 1 to 3 characters"
    assert drift["histograms"][0]["distance"] == 1.0
    assert f"gate {trial.recipe}: moved since the champion, version 1: validation, the" in capsys.readouterr().out
