import argparse
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from pipelines import cli
from pipelines.building import load_inputs, recipe_path
from pipelines.local.own import pseudo
from pipelines.local.own.pseudo import NOT_VALIDATED, pseudo_label
from pipelines.local.own.tuning import floors_key, mixing_keys, run_options
from wordmill.inference.reading import Result
from wordmill.recipe.loading import load_recipe
from wordmill.text.charset import load_charset

LOWER36 = load_charset("lower36").symbols


def options(images: Path, *words: str) -> argparse.Namespace:
    return cli.command_line().parse_args(["pseudo", str(images), *words])


@pytest.fixture
def crops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Forty pictures, of which a recogniser reads the first thirty-five with a confidence of 0.99, the others 0.1."""
    folder = tmp_path / "my crops"
    folder.mkdir()
    for number in range(40):
        cv2.imwrite(str(folder / f"{number:02}.png"), np.full((16, 40), number, np.uint8))

    def read(_: Any, images: list[Path]) -> list[Result]:
        return [Result(path=path, text=f"w{n}", confidence=0.99 if n < 35 else 0.1) for n, path in enumerate(images)]

    blank = np.zeros((32, 100, 1), np.uint8)
    recogniser = SimpleNamespace(codec=SimpleNamespace(temperature=1.5), fit=lambda path: blank)
    monkeypatch.setattr("pipelines.local.services.STATE", tmp_path / "state")
    monkeypatch.setattr(pseudo, "named_model", lambda model, recipe: Path(model))
    monkeypatch.setattr("wordmill.inference.reading.open_recogniser", lambda path: recogniser)
    monkeypatch.setattr(pseudo, "read_all_images", read)
    return folder


def test_what_is_sure_is_a_set_and_its_expected_error_is_told(crops: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pseudo_label(options(crops, "--no-train")) == 0
    told = capsys.readouterr().out
    [folder] = (crops.parent / "state" / "pseudo").iterdir()
    assert folder.name.startswith("my_crops-")
    assert (": 35 of 40 pictures kept, read with a confidence of at least 0.990: about 0 of the labels are wrong, "
            "1.00 %; 0 cannot be read") in told  # fmt: skip
    assert f"{NOT_VALIDATED}: look at {folder / 'sheet.png'}" in told
    facts = json.loads((folder / "pseudo.json").read_text())
    assert (facts["read"], facts["kept"], facts["temperature"], facts["most_wrong"]) == (40, 35, 1.5, 0.02)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--most-wrong", "0.005"], "of 40 pictures none is read surely enough: the surest has a confidence of 0.990"),
        (["--most-wrong", "1.5"], "--most-wrong: found 1.5, expected a share between 0 and 1"),
    ],
)
def test_what_cannot_be_done_is_refused_and_leaves_nothing(crops: Path, words: list[str], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        pseudo_label(options(crops, *words))
    assert not (crops.parent / "state" / "pseudo").exists()


def test_few_sure_pictures_and_none_at_all_are_refused(crops: Path) -> None:
    for number in range(10, 40):
        (crops / f"{number}.png").unlink()
    with pytest.raises(ValueError, match="of 10 pictures 10 are read surely enough, expected at least 30"):
        pseudo_label(options(crops))
    for path in crops.iterdir():
        path.unlink()
    with pytest.raises(ValueError, match="no file in it begins or ends as pictures do"):
        pseudo_label(options(crops))
    assert not (crops.parent / "state" / "pseudo").exists()


def test_a_round_mixes_half_pseudo_labels_with_the_recipes_sets_and_measures_on_others(
    crops: Path, tmp_path: Path
) -> None:
    assert pseudo_label(options(crops, "--no-train")) == 0
    [folder] = (tmp_path / "state" / "pseudo").iterdir()
    [own] = json.loads((folder / "catalogue.yaml").read_text())
    recipe = load_recipe(recipe_path("quickstart"))
    changes = [*mixing_keys(recipe, own, 35, Path("s.safetensors")), floors_key(recipe, ["rendered_colour_test"])]
    asked = options(crops, "--set", "train.epochs=2")
    told, entries = load_inputs(run_options(asked, folder / "catalogue.yaml", "rendered_colour_test", changes), 2)
    assert told.data.shares == {own: 0.5, "rendered_train": 0.5}
    assert (told.benchmarks[-1], told.gate.floors["rendered_colour_test"]) == ("rendered_colour_test", 0.0)
    assert (told.train.start_from, told.train.epochs, entries[own].samples) == ("s.safetensors", 2, 35)


def test_a_round_starts_from_the_champion_and_ends_with_what_it_has_gained(
    crops: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    start, built, told = tmp_path / "start.safetensors", list[argparse.Namespace](), list[tuple[Any, ...]]()
    recipe = load_recipe(recipe_path("quickstart"))
    monkeypatch.setattr("pipelines.local.services.open_store", lambda: None)
    monkeypatch.setattr(pseudo, "starting_weights", lambda store, name, own, changes, folder: start)
    monkeypatch.setattr(pseudo, "known_symbols", lambda path: f"{LOWER36}é")
    monkeypatch.setattr(pseudo, "build_pipeline", lambda asked: built.append(asked) or (recipe, None))
    # In the place of modules that import kfp and what reads.
    ran = SimpleNamespace(run_locally=lambda pipeline, name, run_tag: 0)
    answers = SimpleNamespace(told_outcome=lambda *given: told.append(given) or "told")
    monkeypatch.setitem(sys.modules, "pipelines.local.run", ran)
    monkeypatch.setitem(sys.modules, "pipelines.local.own.outcome", answers)
    assert pseudo_label(options(crops, "--benchmarks", "+mine,other", "--set", "train.epochs=2")) == 0
    [asked], [(_, given, own, test, first, run_tag, curve)] = built, told
    assert capsys.readouterr().out.endswith("told\n")
    assert asked.benchmarks == "+mine,other"
    assert asked.catalogue.endswith("catalogue.yaml")
    changes = dict(change.split("=", 1) for change in asked.set)
    assert (changes["train.epochs"], changes["train.start_from"]) == ("2", str(start))
    assert json.loads(changes["gate.floors"]) == recipe.gate.floors | {"mine": 0.0, "other": 0.0}
    assert changes["data.charset"].startswith("lower36+")  # with what the champion knows beside it
    assert (given, own in changes["data.train"], test, first, curve) == (recipe, True, "mine", start, None)
    assert run_tag.startswith("quickstart-pseudo-")
