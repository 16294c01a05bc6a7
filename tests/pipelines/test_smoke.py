"""What a smoke run changes of a recipe, and which rendered sets it takes."""

import dataclasses
from pathlib import Path

import pytest
import yaml

from pipelines import smoke
from pipelines.building import FOLDER, load_inputs, recipe_path
from pipelines.cli import command_line
from wordmill.recipe.catalogue import Entry, load_catalogue
from wordmill.recipe.loading import load_recipe
from wordmill.recipe.schedule import make_plan
from wordmill.recipe.sections import Recipe

RECIPES = [path.stem for path in sorted((FOLDER / "recipes").glob("*.yaml"))]


def inputs(*words: str) -> tuple[Recipe, dict[str, Entry]]:
    return load_inputs(command_line().parse_args(["compile", *words, "--smoke"]), processes=1)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("quickstart", ""), ("crnn_npu", ""), ("crnn_r34", "colour"), ("crnn_icdar15", "colour"),
     ("rare_r34_ch", "chinese"), ("seq2seq_fsns", "signs")],
)  # fmt: skip
def test_rendered_sets_are_of_the_recipes_kind(name: str, kind: str) -> None:
    assert smoke.rendered_kind(load_recipe(recipe_path(name))) == kind


def test_what_is_not_at_hand_is_rendered_and_says_what_it_stands_for() -> None:
    recipe, catalogue = inputs("crnn_icdar15")
    assert recipe.data.train == ("rendered_colour_train",)
    assert recipe.data.val == ("rendered_colour_val",)
    assert recipe.benchmarks == ("rendered_colour_test",)
    assert smoke.told(catalogue) == [
        "rendered_colour_train stands for icdar15_train",
        "rendered_colour_val stands for IC13_1015, SVTP",
        "rendered_colour_test stands for icdar15_test",
    ]


def test_sets_with_an_address_are_not_downloaded() -> None:
    recipe, catalogue = inputs("seq2seq_fsns")
    assert list(catalogue) == ["rendered_signs_train", "rendered_signs_val", "rendered_signs_test"]
    assert recipe.data.train == ("rendered_signs_train",)


def test_what_the_command_line_gives_is_used() -> None:
    recipe, catalogue = inputs("crnn_r34", "--from", "mj_train=/data/mj", "--from", "SVT=/data/svt")
    assert recipe.data.train == ("mj_train", "rendered_colour_train")
    assert recipe.benchmarks == ("SVT", "rendered_colour_test")
    assert (catalogue["SVT"].samples, catalogue["SVT"].stands_for) == (647, ())  # whole
    assert catalogue["rendered_colour_train"].stands_for == ("mj_valid", "mj_test", "st")


@pytest.mark.parametrize(
    "changes",
    [("schedule=step", "step_epochs=3.0", "step_factor=0.1"), ("schedule=one_cycle", "min_lr=1.0e-6"),
     ("schedule=piecewise", "piece_epochs=[3,6]", "piece_lrs=[0.001,0.0001]")],
)  # fmt: skip
def test_rates_that_fall_at_epochs_that_there_are_not_are_constant(changes: tuple[str, ...], tmp_path: Path) -> None:
    document = yaml.safe_load(recipe_path("quickstart").read_text())
    document["train"] |= {key: yaml.safe_load(value) for key, value in (change.split("=") for change in changes)}
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(document | {"train": document["train"] | {"epochs": 9}}))
    train = inputs(str(path))[0].train
    assert (train.schedule, train.epochs, train.piece_epochs, train.step_epochs, train.min_lr) == (
        "constant",
        1,
        (),
        0,
        0,
    )
    make_plan(train, 128, 1)


def test_shares_of_sets_that_are_not_at_hand_are_left_out() -> None:
    words = ("--set", "data.train=[mj_train,st]", "--set", "data.shares={mj_train: 0.75, st: 0.25}",
             "--set", "data.fractions={st: 0.5}", "--set", "data.epoch_samples=9999")  # fmt: skip
    small = inputs("crnn_r34", *words)[0].data
    assert (small.shares, small.fractions, small.epoch_samples) == ({}, {}, 0)
    own = ("--set", "data.train=[rendered_train]", "--set", "data.shares={rendered_train: 1}")
    assert inputs("quickstart", *own)[0].data.shares == {"rendered_train": 1.0}


def test_a_recipe_of_rendered_words_keeps_its_sets() -> None:
    recipe, catalogue = inputs("quickstart")
    assert (recipe.data.train, recipe.benchmarks) == (("rendered_train",), ("rendered_easy", "rendered_hard"))
    assert smoke.told(catalogue) == []


def test_rendered_sets_are_cut_to_what_is_used() -> None:
    catalogue = inputs("crnn_r34_ch")[1]
    # 32 words of 32x100 pixels are 10 lines of 32x320: 16 are the least.
    assert catalogue["rendered_chinese_test"].samples == 16
    assert catalogue["rendered_chinese_test"].source.startswith("synth://chinese?seed=23&count=16&")
    assert catalogue["rendered_chinese_train"].samples == 200_000  # cut by data.limit


@pytest.mark.parametrize(
    ("name", "limit", "batch", "warmup"),
    [("crnn_r34", 128, 8, 1 / 30), ("crnn_r34_ch", 40, 2, 0.1), ("seq2seq_fsns", 24, 2, 0), ("crnn_mv3", 128, 8, 0)],
)
def test_schedule_and_batch_are_scaled_to_the_pictures(name: str, limit: int, batch: int, warmup: float) -> None:
    recipe = inputs(name)[0]
    assert (recipe.data.limit, recipe.train.global_batch, recipe.train.epochs) == (limit, batch, 1)
    assert recipe.train.warmup_epochs == pytest.approx(warmup, abs=1e-6)
    assert recipe.train.lr == load_recipe(recipe_path(name)).train.lr


@pytest.mark.parametrize(("processes", "accumulation", "batch"), [(1, 1, 8), (2, 2, 8), (3, 1, 6), (8, 1, 16)])
def test_each_part_of_a_batch_has_two_pictures_at_least(processes: int, accumulation: int, batch: int) -> None:
    recipe = load_recipe(recipe_path("crnn_r34"), (f"train.accumulation={accumulation}",))
    assert f"train.global_batch={batch}" in smoke.scaled(recipe, processes)


def test_many_processes_have_steps_too() -> None:
    changes = smoke.scaled(load_recipe(recipe_path("crnn_r34")), processes=32)
    assert {"train.global_batch=64", "data.limit=512"} <= set(changes)


def test_weights_of_a_champion_that_may_not_be_there_are_fresh_ones() -> None:
    assert inputs("crnn_icdar15")[0].train.start_from == ""
    assert inputs("crnn_icdar15", "--set", "train.start_from=own.safetensors")[0].train.start_from == "own.safetensors"


def test_the_command_line_wins_but_for_a_promotion() -> None:
    recipe = inputs("quickstart", "--set", "data.limit=512", "--set", "gate.promote=true")[0]
    assert (recipe.data.limit, recipe.gate.promote) == (512, False)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_runs_on_rendered_sets_alone(name: str) -> None:
    recipe, catalogue = inputs(name)
    assert {entry.reader for entry in catalogue.values()} == {"synth"}
    assert recipe.gate.promote is False
    asked = load_recipe(recipe_path(name))
    assert recipe.export == dataclasses.replace(asked.export, optional=())
    assert recipe.model == asked.model
    assert dataclasses.replace(recipe.train, **{key: getattr(asked.train, key) for key in CHANGED}) == asked.train


CHANGED = ("epochs", "global_batch", "warmup_epochs", "validations_per_epoch", "start_from", "flat_start_epochs")


def test_a_set_that_is_built_in_elsewhere_too_is_at_hand() -> None:
    built_in = load_catalogue([FOLDER / "datasets.yaml"])
    own = {name: dataclasses.replace(entry, source="file:///data/mj") for name, entry in built_in.items()}
    recipe = load_recipe(recipe_path("crnn_npu"))
    assert smoke.replaced(recipe, own, built_in) == ("gate.promote=false",)
