import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.building import recipe_path
from pipelines.local.own import outcome
from tests.components.gate.finished_run import FinishedRun
from wordmill.recipe.loading import load_recipe
from wordmill.store.storage import Store

GAIN = {
    "name": "w_test",
    "own": True,
    "total": 60,
    "before": 0.4,
    "now": 0.5,
    "difference": 0.1,
    "interval": [0.0, 0.2],
}


@pytest.mark.parametrize("where", [("cpu", 2), None])
def test_answers_are_recorded_with_the_run_and_its_report_is_made_again(
    where: tuple[str, int] | None, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed = FinishedRun(store=store, folder=tmp_path / "files", run_tag="tag")
    seed.fetched("w_train", "w_test")
    seed.shards("w_train", "w_test")
    folder, asked = tmp_path / "runs" / "tag", list[dict[str, Any]]()

    def curve(recipe: Any, samples: dict[str, int], own: str, *_: Any) -> dict[str, Any]:
        assert (samples, own) == ({"w_train": 98, "w_test": 98}, "w")
        return {"points": [], "text": "too few words"}

    def report(stage: str, run_tag: str, output: Path, **arguments: str) -> None:
        asked.append({"stage": stage, "run_tag": run_tag, **arguments})
        recorded = store.get_json("runs/tag/stages/tune.w.json")
        assert recorded is not None
        store.put_json("runs/tag/summary.json", {"trace": [], "of": recorded["manifest"]})
        store.put_bytes("runs/tag/report.html", b"<p>again", "text/html")

    monkeypatch.setattr("pipelines.local.services.STATE", tmp_path)
    monkeypatch.setattr(outcome, "measure_gains", lambda *arguments: [GAIN])
    monkeypatch.setattr(outcome, "learning_curve", curve)
    monkeypatch.setattr(outcome, "stage_program", report)
    recipe = load_recipe(recipe_path("quickstart"))
    told = outcome.told_outcome(store, recipe, "w", "w_test", tmp_path / "start", "tag", where)
    assert "40.00 % before,  50.00 % now: +10.00 points" in told
    assert ("too few words" in told) == (where is not None)
    assert told.endswith(f"report  {folder / 'report.html'}")
    assert (folder / "report.html").read_text() == "<p>again"
    found = json.loads((folder / "tune.json").read_text())
    assert found == {"gains": [GAIN], **({"curve": {"points": [], "text": "too few words"}} if where else {})}
    assert (asked[0]["stage"], asked[0]["run_tag"], asked[0]["recipe"]) == ("report", "tag", "quickstart")
    assert "train.crnn" in json.loads(asked[0]["expected"])
    made = store.get_json(f"manifests/{json.loads((folder / 'summary.json').read_text())['of']}.json")
    assert made is not None
    assert made["facts"] == found
