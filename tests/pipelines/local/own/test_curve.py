import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.building import recipe_path
from pipelines.local.own import curve
from pipelines.local.own.curve import fitted, gain_text, learning_curve, short_training
from wordmill.recipe.loading import load_recipe
from wordmill.store.artifacts import Manifest, to_document

SHARES = 'data.shares={"w_train":0.5,"rendered_train":0.5}'
RECIPE = load_recipe(
    recipe_path("quickstart"),
    ("data.train=[w_train,rendered_train]", SHARES, "train.epochs=27", "train.patience=8", "train.lr=0.004"),
)
SAMPLES = {"w_train": 210, "rendered_train": 2000, "w_val": 30, "w_test": 60}


def test_short_trainings_differ_in_nothing_but_their_words_and_cost_a_quarter_of_the_runs() -> None:
    sections = [short_training(RECIPE, SAMPLES, "w_train", part, Path("s.safetensors")) for part in curve.PARTS]
    assert [data.fractions for data, _ in sections] == [{"w_train": part} for part in (0.125, 0.25, 0.5, 1.0)]
    assert len({str(train) for _, train in sections}) == len({data.epoch_samples for data, _ in sections}) == 1
    data, train = sections[0]
    # 27 epochs of 2,210 are 59,670: a sixteenth of them in each, in whole batches of 64.
    assert (data.epoch_samples, train.epochs, train.validations_per_epoch, train.patience) == (59 * 64, 1, 1, 0)
    assert 4 * data.epoch_samples == pytest.approx(59_670 / 4, rel=0.02)
    assert (train.lr, train.start_from, train.global_batch) == (0.004, "s.safetensors", 64)


def test_short_trainings_see_nothing_that_is_composed_of_words_that_they_do_not_have() -> None:
    changes = ("data.train=[w_train,w_composed,rendered_train]",
               'data.shares={"w_train":0.25,"w_composed":0.3,"rendered_train":0.45}')  # fmt: skip
    recipe = load_recipe(recipe_path("quickstart"), changes)
    data, _ = short_training(recipe, SAMPLES | {"w_composed": 21_000}, "w_train", 0.5, Path("s.safetensors"))
    assert data.train == ("w_train", "rendered_train")
    assert data.shares == {"w_train": pytest.approx(0.55), "rendered_train": 0.45}


def test_points_are_trained_measured_and_fitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right, asked = iter((20, 28, 35, 41)), list[tuple[str, str, str]]()

    def program(stage: str, run_tag: str, output: Path, **arguments: str) -> None:
        asked.append((stage, run_tag, arguments.get("recipe", arguments.get("benchmark", ""))))
        facts = {"total": 60, "correct": next(right)} if stage == "evaluate" else {}
        made = Manifest(stage=stage, name="n", key="k", inputs={}, git_commit="", facts=facts)
        output.parent.mkdir(exist_ok=True)
        output.write_text(json.dumps(to_document(made)))

    monkeypatch.setattr(curve, "stage_program", program)
    folder = tmp_path / "tag"
    folder.mkdir()
    found = learning_curve(RECIPE, SAMPLES, "w", Path("s"), folder / "shards.json", ("cpu", 2), folder)
    words, correct = ([point[key] for point in found["points"]] for key in ("words", "correct"))
    assert (words, correct) == ([26, 52, 105, 210], [20, 28, 35, 41])
    assert asked[:2] == [("train", "tag-curve-26", ""), ("evaluate", "tag-curve-26", "w_test")]
    assert (found["curve"][0][0], found["curve"][-1][0]) == (26, 420)
    low, high = found["interval"]
    assert low < found["gain"] < high
    assert found["text"].startswith("twice as many words would give about +")


def test_few_words_are_no_curve_and_nothing_is_trained_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(curve, "stage_program", None)
    few = SAMPLES | {"w_train": 90, "w_test": 26}
    found = learning_curve(RECIPE, few, "w", Path("s"), tmp_path, ("cpu", 2), tmp_path)
    assert found["points"] == []
    told = "too few words to tell what more would give: 90 to learn from and 26 held out, expected at least 64 and 30"
    assert found["text"] == told
    unmixed = dataclasses.replace(RECIPE, data=dataclasses.replace(RECIPE.data, shares={}))
    found = learning_curve(unmixed, SAMPLES, "w", Path("s"), tmp_path, ("cpu", 2), tmp_path)
    assert found == {"points": [], "text": "no learning curve: data.shares gives w_train no share"}


@pytest.mark.parametrize(
    ("gain", "low", "high", "told"),
    [
        (0.021, -0.01, 0.052, "twice as many words would give about +2.1 points (95 %: -1.0 to +5.2)"),
        (0.09, 0.01, 0.17, "twice as many words would give about +9.0 points (95 %: +1.0 to +17.0)"),
        (0.02, -0.06, 0.09, "too few words to tell what twice as many would give: -6.0 to +9.0 points (95 %)"),
    ],
)
def test_a_gain_is_told_where_its_interval_tells_something(gain: float, low: float, high: float, told: str) -> None:
    assert gain_text(gain, low, high) == told


def test_the_curve_goes_through_its_points_and_on_to_twice_as_many_words() -> None:
    points: list[dict[str, Any]] = [{"words": 125 * 2**n, "total": 10_000, "correct": 10_000 - wrong}
                                    for n, wrong in enumerate((4800, 3600, 2700, 2025))]  # fmt: skip
    found = fitted(points)
    near = dict(found["curve"])
    assert near[125] == pytest.approx(0.52, abs=0.01)
    assert near[2000] == pytest.approx(1 - 0.2025 + found["gain"], abs=0.005)
