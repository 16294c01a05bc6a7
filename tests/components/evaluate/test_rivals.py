import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from components.evaluate.rivals import run_rivals
from components.evaluate.stage import run
from tests.components.evaluate.test_stage import DATA, _reads_pixels, arguments, write  # noqa: F401 (a fixture)
from wordmill.recipe.parsing import to_json
from wordmill.store import tracking
from wordmill.store.artifacts import read_manifest
from wordmill.store.storage import Store
from wordmill.store.tracking import Version

pytestmark = pytest.mark.usefixtures("_reads_pixels")


class Registered:
    """A model that holds aliases, what it is measured with, and the stage's outcome."""

    def __init__(self, store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.store, self.folder, self.measuring = store, folder, arguments(store, folder)
        self.trained = read_manifest(self.measuring["model"])
        version = Version(version="3", source="", tags={"wordmill.model": self.trained.reference})
        self.holders: dict[str, Version | None] = {"champion": version, "best": version}
        monkeypatch.setattr(tracking, "holder", lambda name, alias: self.holders[alias])

    def run(self, run_tag: str = "r", *benchmarks: str) -> list[dict[str, Any]]:
        output = self.folder / "rivals"
        run_rivals(recipe="tiny", benchmarks=json.dumps(benchmarks or ["words"]), output=str(output), run_tag=run_tag,
                   data=to_json(replace(DATA, val=("words",))),
                   **{key: self.measuring[key] for key in ("evaluation", "shards", "device")})  # fmt: skip
        rivals: list[dict[str, Any]] = read_manifest(output).facts["rivals"]
        return rivals

    def found(self, run_tag: str) -> bool:
        record = self.store.get_json(f"runs/{run_tag}/stages/rivals.tiny.json")
        return record is not None and record["ok"] and record["found"]


@pytest.fixture
def registered(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registered:
    return Registered(store, tmp_path, monkeypatch)


def test_a_champion_is_measured_once_as_a_candidate_is(registered: Registered) -> None:
    [rival] = registered.run()  # the best of all, too, and so only one
    assert not registered.found("r")
    assert (rival["version"], rival["model"], rival["reasons"]) == ("3", registered.trained.reference, {})
    assert rival["evaluations"] == {"words": run(**registered.measuring)}
    assert registered.run("r2") == [rival]
    assert registered.found("r2")


def test_the_best_of_all_is_measured_beside_the_champion(registered: Registered) -> None:
    registered.holders["best"] = replace(registered.holders["champion"], version="2")
    assert [rival["version"] for rival in registered.run()] == ["3", "2"]
    registered.holders |= {"champion": None, "best": None}
    assert registered.run("first") == []


def test_what_cannot_be_measured_again_is_said(registered: Registered) -> None:
    [rival] = registered.run("r", "words", "others")
    assert list(rival["evaluations"]) == ["words"]
    assert list(rival["reasons"]) == ["others"]
    weights = registered.trained.object("model.safetensors")
    registered.store.client.delete_object(
        Bucket=registered.store.bucket, Key=f"objects/{weights.sha256[:2]}/{weights.sha256}"
    )
    [lost] = registered.run("r2")
    assert lost["evaluations"] == {}
    assert lost["reasons"]["words"].startswith(f"{registered.trained.reference} is not whole in bucket")


def test_a_champion_that_people_have_registered_themselves_is_told(registered: Registered) -> None:
    registered.holders["champion"] = registered.holders["best"] = Version(version="4", source="", tags={})
    [rival] = registered.run()
    assert (rival["version"], rival["model"], rival["evaluations"]) == ("4", None, {})
    assert rival["reasons"]["words"].startswith("it has no tag wordmill.model, which names what trained it: take the")


def test_a_champion_that_reads_pictures_fitted_otherwise_is_not_measured_on_these(registered: Registered) -> None:
    store, combined = registered.store, read_manifest(registered.measuring["shards"])
    packed = store.get_json(f"manifests/{combined.facts['datasets']['words']}.json")
    assert packed is not None
    packed["inputs"]["picture"]["fit"] = "pad_grey"
    store.put_json(f"manifests/{combined.facts['datasets']['words']}.json", packed)
    [rival] = registered.run()
    told = "reads pictures of fit stretch, not pad_grey: take the aliases champion and best away to begin anew"
    assert rival["reasons"]["words"] == f"{registered.trained.reference} {told}"


def test_the_champions_confidence_on_the_runs_validation_is_counted_and_told_where_it_cannot_be(
    registered: Registered, capsys: pytest.CaptureFixture[str]
) -> None:
    [rival] = registered.run()
    assert rival["confidences"] == {"0.15": 2, "0.80": 2, "0.95": 1}  # as `words` is read
    registered.holders["champion"] = Version(version="4", source="", tags={})
    first, second = registered.run("r2")
    assert (first["confidences"], "confidences" in second) == (None, False)
    assert "the champion's confidence on words is not known: it has no tag wordmill.model" in capsys.readouterr().out
