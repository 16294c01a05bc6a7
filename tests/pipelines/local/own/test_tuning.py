import argparse
import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from pipelines.building import FOLDER, load_inputs, recipe_path
from pipelines.local.own import first_reading, tuning
from pipelines.local.own.tuning import (
    added_symbols,
    changed_keys,
    charset_file,
    drawn_words,
    parts_of_entry,
    run_options,
    starting_weights,
)
from tests.components.train.trained import lively
from wordmill.models import checkpoint
from wordmill.models.pretrained import WEIGHTS
from wordmill.readers.sample import Sample
from wordmill.recipe.catalogue import Entry
from wordmill.recipe.loading import load_recipe
from wordmill.recipe.sections import Recipe
from wordmill.store.storage import hash_file
from wordmill.synth.renderer import SynthSpec, render
from wordmill.text.charset import load_charset

LOWER36 = load_charset("lower36")
WORDS = Entry(source="file:///w.zip", reader="label_file", labels="gt.txt", samples=300, licence="ours")
START = Path("start.safetensors")
RECIPES = [path.stem for path in sorted((FOLDER / "recipes").glob("*.yaml"))]


def test_words_are_parted_into_sets_of_their_own() -> None:
    sets = parts_of_entry("w", WORDS)
    assert {name: (entry.part, entry.samples) for name, entry in sets.items()} == {
        "w_train": ("train", 210), "w_val": ("val", 30), "w_test": ("test", 60)
    }  # fmt: skip


def test_characters_of_the_weights_and_of_the_labels_are_added_once_and_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert added_symbols("w", ["Straße 1", "Maß", "abc"], LOWER36, LOWER36.symbols) == " ß"
    told = "w: 2 of 3 words have characters that are new, and added: ' ' 1, 'ß' 2"
    assert capsys.readouterr().out == f"{told}\n"
    assert added_symbols("w", ["ßé"], LOWER36, f"{LOWER36.symbols}ü") == "üßé"
    capsys.readouterr()
    assert added_symbols("w", ["abc"], LOWER36, LOWER36.symbols) == ""
    assert capsys.readouterr().out == ""


def test_added_characters_are_a_file_that_the_charset_is_joined_with(tmp_path: Path) -> None:
    assert charset_file(tmp_path / "c", "") == ""
    first, second = (charset_file(tmp_path / "c", symbols) for symbols in ("üß", "üßé"))  # the first stays as it is
    assert load_charset(f"lower36{first}").symbols == f"{LOWER36.symbols}üß"
    assert load_charset(f"lower36{second}").symbols == f"{LOWER36.symbols}üßé"


@pytest.mark.parametrize(("added", "characters"), [("éß-", "éÉß-"), ("éÀ", "éÀ")])
def test_words_with_new_characters_are_drawn_in_both_cases_where_the_charset_has_one(
    added: str, characters: str
) -> None:
    [(called, entry)] = drawn_words("w", load_recipe(recipe_path("quickstart")), added).items()
    assert (called, entry.reader) == ("w_drawn", "synth")
    spec = SynthSpec.parse(entry.source)
    assert (spec.characters, spec.fonts, spec.words, spec.colour) == (characters, "train", "train", "0")
    assert spec.count == entry.samples == 9_000  # 0.1 of 90,000


def test_nothing_is_drawn_of_what_no_face_has_or_for_signs_in_four_views(capsys: pytest.CaptureFixture[str]) -> None:
    assert drawn_words("w", load_recipe(recipe_path("quickstart")), "") == {}
    assert drawn_words("w", load_recipe(recipe_path("seq2seq_fsns")), "ő") == {}
    assert capsys.readouterr().out == ""
    assert drawn_words("w", load_recipe(recipe_path("quickstart")), " ก") == {}
    told = "w: no face that words are drawn in has U+0020 ก: learnt from these words alone"
    assert capsys.readouterr().out == f"{told}\n"
    [entry] = drawn_words("w", load_recipe(recipe_path("crnn_r34")), "éก").values()
    assert SynthSpec.parse(entry.source).colour == "1"
    assert "has ก: learnt" in capsys.readouterr().out


def options(recipe: str, *changes: str) -> argparse.Namespace:
    return argparse.Namespace(recipe=recipe, set=list(changes), framework="", catalogue="", places=[], device="",
                              processes=0)  # fmt: skip


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_can_be_trained_on_for_own_words(name: str, tmp_path: Path) -> None:
    recipe, sets = load_recipe(recipe_path(name)), parts_of_entry("w", WORDS)
    catalogue = tmp_path / "w.yaml"
    documents = {key: vars(entry) for key, entry in sets.items()}
    catalogue.write_text(json.dumps(documents))
    changes = changed_keys(recipe, sets, "", START)
    told, entries = load_inputs(run_options(options(name), catalogue, "w_test", changes), 2)
    assert (told.data.train[0], told.data.val, told.benchmarks[-1]) == ("w_train", ("w_val",), "w_test")
    assert told.gate.benchmarks == recipe.benchmarks  # they alone decide on a promotion
    assert told.gate.floors == recipe.gate.floors | {"w_test": 0.0}
    assert told.data.shares["w_train"] == 0.5
    assert sum(told.data.shares.values()) == pytest.approx(1)
    assert entries["w_test"].part == "test"
    assert (told.train.start_from, told.train.start_charset, told.train.start_share) == (str(START), "union", 0.3)
    assert told.train.augment == {"seq2seq_fsns": "views", "svtr_tiny": "svtr"}.get(name, "words")
    assert told.train.lr < recipe.train.lr
    assert told.train.lr_factors == {"backbone": 0.5}


@pytest.mark.parametrize(
    ("composed", "drawn", "shares"),
    [
        (["w_composed"], ["w_drawn"], {"w_train": 0.1, "w_composed": 0.35, "w_drawn": 0.1, "rendered_train": 0.45}),
        ([], ["w_drawn"], {"w_train": 0.45, "w_drawn": 0.1, "rendered_train": 0.45}),
        (["w_composed"], [], {"w_train": 0.15, "w_composed": 0.35, "rendered_train": 0.5}),
        ([], [], {"w_train": 0.5, "rendered_train": 0.5}),
    ],
)
def test_composed_words_take_a_share_of_own_words_and_drawn_ones_of_all_and_hurry_the_head(
    composed: list[str], drawn: list[str], shares: dict[str, float]
) -> None:
    recipe, sets = load_recipe(recipe_path("quickstart")), parts_of_entry("w", WORDS)
    keys = dict(change.split("=", 1) for change in changed_keys(recipe, sets, "", START, composed, drawn))
    assert keys["data.train"] == f"[{', '.join(shares)}]"
    assert json.loads(keys["data.shares"]) == shares
    assert keys["data.limit"] == str(round(90_000 * shares["rendered_train"]))
    assert json.loads(keys["train.lr_factors"]) == {"backbone": 0.5} | ({"head": 3.0} if drawn else {})
    rare = dict(change.split("=", 1) for change in changed_keys(load_recipe(recipe_path("rare_r34")), sets, "", START,
                                                                composed, drawn))  # fmt: skip
    assert json.loads(rare["train.lr_factors"]) == {"backbone": 0.5}  # its decoder has the classes


def test_a_run_sees_so_many_samples_and_takes_what_the_command_line_sets(tmp_path: Path) -> None:
    recipe, sets = load_recipe(recipe_path("quickstart")), parts_of_entry("w", WORDS)
    catalogue = tmp_path / "w.yaml"
    catalogue.write_text(json.dumps({key: vars(entry) for key, entry in sets.items()}))
    short = options("quickstart", "train.epochs=2")
    own = run_options(short, catalogue, "w_test", changed_keys(recipe, sets, "", START))
    assert load_inputs(own, 1)[0].train.epochs == 2
    changes = dict(change.split("=", 1) for change in changed_keys(recipe, sets, "+x.txt", START))
    assert (changes["data.limit"], changes["data.epoch_samples"]) == ("45000", "90000")
    assert (changes["train.epochs"], changes["train.validations_per_epoch"]) == ("1", "1")  # the last weights are kept
    assert (changes["train.lr"], changes["data.charset"]) == ("0.006400", "lower36+x.txt")


def test_many_words_are_all_learnt_from_and_often() -> None:
    sets = parts_of_entry("w", dataclasses.replace(WORDS, samples=100_000))
    changes = dict(
        change.split("=", 1) for change in changed_keys(load_recipe(recipe_path("quickstart")), sets, "", START)
    )
    assert changes["data.epoch_samples"] == str(3 * (70_000 + 4 * 70_000))
    assert int(changes["data.limit"]) > 70_000


def test_too_few_words_are_refused_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORDMILL_BUCKET", "b")
    monkeypatch.setattr("wordmill.store.storage.Store.from_environment", lambda: None)
    few = Entry(source="file:///w.zip", reader="label_file", labels="gt.txt", samples=12, licence="ours")
    monkeypatch.setattr(tuning, "data_set", lambda options: ("w", few))
    with pytest.raises(ValueError, match="data set 'w': 12 words are too few to hold some out, expected at least 30"):
        tuning.tune(options("quickstart"))


def test_training_starts_from_a_file_of_its_own_that_the_weights_digest_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, champion, folder = tmp_path / "given.safetensors", tmp_path / "objects", tmp_path / "tune"
    given.write_bytes(b"given")
    champion.write_bytes(b"champion")
    monkeypatch.setattr("components.train.start.start_without", lambda store, recipe, own: champion)
    changes = ["train.lr=0.1", f"train.start_from={given}"]
    files = [starting_weights(None, "quickstart", "w_train", set_, folder) for set_ in (changes, [], [])]
    assert [path.read_bytes() for path in files] == [b"given", b"champion", b"champion"]
    assert files[1] == files[2] == folder / f"{hash_file(champion)[:16]}.safetensors"
    monkeypatch.setattr("components.train.start.start_without", lambda store, recipe, own: None)
    with pytest.raises(
        ValueError, match="recipe 'crnn_r34' has no champion to train on from: make run RECIPE=crnn_r34"
    ):
        starting_weights(None, "crnn_r34", "w_train", [], folder)
    assert starting_weights(None, "quickstart", "w_train", [], folder).read_bytes() == WEIGHTS.read_bytes()


class Rendered:
    """A reader of 300 rendered words, of which 64 are different."""

    notes = ()

    def __len__(self) -> int:
        return 300

    def read(self, numbers: Iterable[int]) -> Iterator[Sample]:
        spec = SynthSpec(seed=5, count=64, fonts="test", words="test", difficulty="easy")
        words = [*render(spec, 0, spec.count)]
        return (Sample(f"line {number}", *words[number % spec.count]) for number in numbers)


class BuiltError(Exception):
    """Tells with which options a pipeline would be built."""


@pytest.fixture
def tuned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Recipe]:
    """Return what gives the recipe that words are tuned for with, up to where its pipeline is built."""

    def build(options: argparse.Namespace) -> None:
        raise BuiltError(options)

    monkeypatch.setenv("WORDMILL_BUCKET", "b")
    monkeypatch.setattr("wordmill.store.storage.Store.from_environment", lambda: None)
    monkeypatch.setattr("components.train.start.start_without", lambda store, recipe, own: None)
    monkeypatch.setattr("pipelines.local.services.STATE", tmp_path)
    monkeypatch.setattr(tuning, "data_set", lambda options: ("w", WORDS))
    monkeypatch.setattr(tuning, "fetched", lambda name, entry: nullcontext(Rendered()))
    monkeypatch.setattr(tuning, "MOST_COMPOSED", 50)
    monkeypatch.setattr(tuning, "build_pipeline", build)

    def recipe(*changes: str) -> Recipe:
        with pytest.raises(BuiltError) as built:
            tuning.tune(options("small", *changes))
        return load_inputs(built.value.args[0], 1)[0]

    return recipe


def test_words_composed_of_the_own_ones_are_learnt_from(tuned: Callable[..., Recipe], tmp_path: Path) -> None:
    told = tuned()
    assert told.data.train == ("w_train", "w_composed", "rendered_train")
    assert 0.15 < told.train.start_share < 0.4  # words that are read well before
    assert tuned("train.start_share=0.0").train.start_share == 0
    entry = json.loads((tmp_path / "tune" / "w.yaml").read_text())["w_composed"]
    assert entry["samples"] == 50
    assert entry["sha256"] == hash_file(Path(entry["source"].removeprefix("file://")))
    shares = {"w_train": 0.1, "w_composed": 0.5, "rendered_train": 0.4}
    assert tuned(f"data.shares={json.dumps(shares)}").data.shares == shares


@pytest.mark.parametrize("few", [True, False])
def test_nothing_is_composed_that_nothing_learns_from_or_of_many_words(
    few: bool, tuned: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = []
    if few:
        changes = ["data.train=[w_train,rendered_train]", 'data.shares={"w_train":0.5,"rendered_train":0.5}']
    else:
        monkeypatch.setattr(first_reading, "FEW", 209)
    told = tuned(*changes)
    assert told.data.train == ("w_train", "rendered_train")
    assert told.data.shares == {"w_train": 0.5, "rendered_train": 0.5}
    assert [*(tmp_path / "tune").glob("*composed*")] == []


def test_weights_that_fit_nothing_are_refused_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORDMILL_BUCKET", "b")
    monkeypatch.setattr("wordmill.store.storage.Store.from_environment", lambda: None)
    monkeypatch.setattr("pipelines.local.services.STATE", tmp_path)
    monkeypatch.setattr(tuning, "data_set", lambda options: ("w", WORDS))
    monkeypatch.setattr(tuning, "fetched", lambda name, entry: nullcontext(Rendered()))
    path = tmp_path / "other.safetensors"
    checkpoint.save(path, lively(1))
    with pytest.raises(ValueError, match="model.backbone: found compact, expected the recipe's separable"):
        tuning.tune(options("quickstart", f"train.start_from={path}"))
    path.write_bytes(b"no weights")
    with pytest.raises(ValueError, match="other.safetensors|[0-9a-f]{16}.safetensors"):
        tuning.tune(options("quickstart", f"train.start_from={path}"))
