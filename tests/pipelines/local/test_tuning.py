import argparse
import json
from pathlib import Path

import pytest

from pipelines.building import FOLDER, load_inputs, recipe_path
from pipelines.local import tuning
from pipelines.local.tuning import added_symbols, changed_keys, charset_file, parts_of_entry, run_options
from wordmill.recipe.catalogue import Entry
from wordmill.recipe.loading import load_recipe
from wordmill.text.charset import load_charset

LOWER36 = load_charset("lower36")
WORDS = Entry(source="file:///w.zip", reader="label_file", labels="gt.txt", samples=300, licence="ours")
RECIPES = [path.stem for path in sorted((FOLDER / "recipes").glob("*.yaml"))]


def test_words_are_parted_into_sets_of_their_own() -> None:
    sets = parts_of_entry("w", WORDS)
    assert {name: (entry.part, entry.samples) for name, entry in sets.items()} == {
        "w_train": ("train", 210), "w_val": ("val", 30), "w_test": ("test", 60)
    }  # fmt: skip


def test_characters_of_the_champion_and_of_the_labels_are_added_once() -> None:
    assert added_symbols(["Straße 1", "abc"], LOWER36, LOWER36.symbols) == " ß"
    assert added_symbols(["ßé"], LOWER36, f"{LOWER36.symbols}ü") == "üßé"
    assert added_symbols(["abc"], LOWER36, LOWER36.symbols) == ""


def test_added_characters_are_a_file_that_the_charset_is_joined_with(tmp_path: Path) -> None:
    assert charset_file(tmp_path / "c", "") == ""
    first, second = (charset_file(tmp_path / "c", symbols) for symbols in ("üß", "üßé"))  # the first stays as it is
    assert load_charset(f"lower36{first}").symbols == f"{LOWER36.symbols}üß"
    assert load_charset(f"lower36{second}").symbols == f"{LOWER36.symbols}üßé"


def options(recipe: str, *changes: str) -> argparse.Namespace:
    return argparse.Namespace(recipe=recipe, set=list(changes), framework="", catalogue="", places=[], device="",
                              processes=0)  # fmt: skip


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_can_be_trained_on_for_own_words(name: str, tmp_path: Path) -> None:
    recipe, sets = load_recipe(recipe_path(name)), parts_of_entry("w", WORDS)
    catalogue = tmp_path / "w.yaml"
    documents = {key: vars(entry) for key, entry in sets.items()}
    catalogue.write_text(json.dumps(documents))
    told, entries = load_inputs(run_options(options(name), catalogue, "w_test", changed_keys(recipe, sets, "")), 2)
    assert (told.data.train[0], told.data.val, told.benchmarks[-1]) == ("w_train", ("w_val",), "w_test")
    assert told.gate.benchmarks == recipe.benchmarks  # they alone decide on a promotion
    assert told.gate.floors == recipe.gate.floors | {"w_test": 0.0}
    assert told.data.shares["w_train"] == 0.5
    assert sum(told.data.shares.values()) == pytest.approx(1)
    assert entries["w_test"].part == "test"
    assert (told.train.start_from, told.train.start_charset) == (name, "union")
    assert told.train.augment == {"seq2seq_fsns": "views", "svtr_tiny": "svtr"}.get(name, "words")
    assert told.train.lr < recipe.train.lr


def test_a_run_sees_so_many_samples_and_takes_what_the_command_line_sets(tmp_path: Path) -> None:
    recipe, sets = load_recipe(recipe_path("quickstart")), parts_of_entry("w", WORDS)
    catalogue = tmp_path / "w.yaml"
    catalogue.write_text(json.dumps({key: vars(entry) for key, entry in sets.items()}))
    own = run_options(options("quickstart", "train.epochs=2"), catalogue, "w_test", changed_keys(recipe, sets, ""))
    assert load_inputs(own, 1)[0].train.epochs == 2
    changes = dict(change.split("=", 1) for change in changed_keys(recipe, sets, "+x.txt"))
    assert (changes["data.limit"], changes["train.epochs"]) == ("2000", "27")  # 60,000 / (210 + 2,000)
    assert (changes["train.lr"], changes["data.charset"]) == ("0.004000", "lower36+x.txt")


def test_too_few_words_are_refused_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORDMILL_BUCKET", "b")
    monkeypatch.setattr("wordmill.store.storage.Store.from_environment", lambda: None)
    monkeypatch.setattr(tuning, "champion_symbols", lambda store, recipe: LOWER36.symbols)
    few = Entry(source="file:///w.zip", reader="label_file", labels="gt.txt", samples=12, licence="ours")
    monkeypatch.setattr(tuning, "data_set", lambda options: ("w", few))
    with pytest.raises(ValueError, match="data set 'w': 12 words are too few to hold some out, expected at least 30"):
        tuning.tune(options("quickstart"))
