import json
import uuid
from pathlib import Path
from typing import Any

import pytest

from components.gate.compare import Paired, against_champion, against_floor
from components.gate.stage import run
from components.recognition import tracking
from components.recognition.artifacts import Manifest, read_manifest, to_document
from components.recognition.frameworks import free_port
from components.recognition.recipe import Gate
from components.recognition.storage import Store
from tests.finished_run import FinishedRun
from tests.mlflow_server import mlflow_uri  # noqa: F401 (a fixture)

GATE = Gate(floor=0.5, tolerance=0.1)


def pair(name: str, candidate: str, champion: str) -> Paired:
    return Paired(name=name, candidate=[c == "1" for c in candidate], champion=[c == "1" for c in champion])


@pytest.mark.parametrize(("accuracies", "promoted"), [((0.6, 0.4), True), ((0.6, 0.39), False)])
def test_the_first_model_must_reach_the_floor(accuracies: tuple[float, float], promoted: bool) -> None:
    decision = against_floor({"a": accuracies[0], "b": accuracies[1]}, GATE)
    assert decision.promoted is promoted
    assert "floor 0.5000" in decision.reasons[0]


def test_the_champion_is_compared_on_the_same_samples() -> None:
    # a: gains 1 sample and loses 3 of 10, p = 2 (1 + 4) / 16; b: gains 1 of 5, p = 1
    pairs = [pair("a", "1000011111", "0111011111"), pair("b", "11000", "10000")]
    decision = against_champion(pairs, ["c"], Gate(floor=0.9, tolerance=0.0))
    assert [(row["gained"], row["lost"], row["p"]) for row in decision.benchmarks] == [(1, 3, 0.625), (1, 0, 1.0)]
    assert [row["difference"] for row in decision.benchmarks] == [-0.2, 0.2]
    assert decision.promoted  # the mean difference is 0, the floor is for a first model only
    assert decision.champion_mean == pytest.approx((0.8 + 0.2) / 2)
    assert "not compared, the champion was measured on other samples: c" in decision.reasons[1]


@pytest.mark.parametrize(("tolerance", "promoted"), [(0.2, True), (0.19, False)])
def test_the_tolerance_is_the_limit(tolerance: float, promoted: bool) -> None:
    pairs = [pair("a", "10000", "11000")] * 3  # -0.2 each
    assert against_champion(pairs, [], Gate(floor=0.0, tolerance=tolerance)).promoted is promoted


class Trial:
    """One recipe of its own in the registry, and candidates for its champion."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.store, self.folder = store, folder
        self.recipe = f"r{uuid.uuid4().hex[:8]}"
        self.name = f"wordmill-{self.recipe}"

    def candidate(
        self, weights: str, outcomes: dict[str, str], *, ok: bool = True, dataset: str = ""
    ) -> dict[str, str]:
        """Return the gate's arguments for a model with these outcomes per benchmark."""
        tag = f"{self.recipe}-{weights}"
        seed = FinishedRun(store=self.store, folder=self.folder / weights, run_tag=tag)
        trained = seed.trained(f"{self.recipe} {weights}")
        measured = [seed.evaluation(name, text, trained, dataset) for name, text in outcomes.items()]
        proven = [seed.parity("onnx", ok=ok)]
        (self.folder / f"{weights}.json").write_text(json.dumps(to_document(trained)))
        return {"gate": json.dumps({"floor": 0.5, "tolerance": 0.1}), "recipe": self.recipe,
                "model": str(self.folder / f"{weights}.json"), "run_tag": tag,
                "evaluations": references(measured), "parities": references(proven),
                "output": str(self.folder / f"{weights}.out")}  # fmt: skip

    def decide(self, arguments: dict[str, str]) -> dict[str, Any]:
        run(**arguments)
        return read_manifest(arguments["output"]).facts

    def champion(self) -> str | None:
        found = tracking.champion(self.name)
        return found and found.version


def references(manifests: list[Manifest]) -> str:
    return json.dumps([manifest.reference for manifest in manifests])


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
    digest = trained.object("model.safetensors").sha256
    assert found.source == f"s3://{trial.store.bucket}/objects/{digest[:2]}/{digest}"
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
    assert facts["reasons"] == ["the same model is the champion already, as version 1"]
    assert len(tracking.connect().search_model_versions(f"name = '{trial.name}'")) == 1


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


def test_a_champion_measured_on_other_samples_cannot_be_compared(trial: Trial) -> None:
    trial.decide(trial.candidate("one", {"a": "1111"}))
    facts = trial.decide(trial.candidate("two", {"a": "1111"}, dataset="shard/other"))
    assert (facts["outcome"], trial.champion()) == ("refused", "1")
    assert "the champion cannot be compared" in facts["reasons"][0]


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


def test_measurements_of_another_model_are_an_error(trial: Trial, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = trial.candidate("one", {"a": "1111"}), trial.candidate("two", {"a": "1"})
    with pytest.raises(SystemExit):
        run(**{**one, "evaluations": two["evaluations"]})
    assert "measured train/" in capsys.readouterr().out


def test_without_mlflow_the_stage_fails(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = trial.candidate("one", {"a": "1111"})
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(SystemExit):
        run(**arguments)
    error = json.loads((trial.folder / "error.json").read_text())
    assert error["ok"] is False
    assert "MLFLOW_TRACKING_URI http://127.0.0.1" in error["error"]
