"""How each recogniser is trained, against what its publishers' settings and schedulers say."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest

from pipelines.building import FOLDER, recipe_path
from wordmill.recipe.catalogue import load_catalogue, select
from wordmill.recipe.loading import load_recipe
from wordmill.recipe.schedule import Plan, make_plan
from wordmill.recipe.sections import Train

# fmt: off
CHINESE = {"epochs": 60, "global_batch": 2048, "optimizer": "adamw", "lr": 1e-3, "min_lr": 1e-5, "warmup_epochs": 6,
           "weight_decay": 0.05, "clip_norm": 0.1, "amp": "O2", "loss_scale": 512, "loss_scaling": "dynamic"}
RARE = {"epochs": 30, "global_batch": 2048, "loss": "cross_entropy", "optimizer": "adamw", "lr": 5e-4,
        "warmup_epochs": 1, "weight_decay": 0.05, "amp": "O2", "loss_scale": 512, "loss_scaling": "dynamic"}
NONE = {"start_charset": "same", "start_share": 0.0, "step_epochs": 0.0, "step_factor": 0.0,
        "piece_epochs": (), "piece_lrs": (), "lr_factors": {}, "freeze": {},
        "choose_by": "accuracy", "patience": 0, "keep_best": 1, "augment_strength": 0.0, "min_lr": 0.0,
        "clip_norm": 0.0, "accumulation": 0, "ema_decay": 0.0, "beta1": 0.9, "beta2": 0.999,
        "decay_all": True, "teacher_forcing": 1.0, "augment": "none", "schedule": "warmup_cosine", "warmup_epochs": 0,
        "weight_decay": 0.0, "sync_batch_norm": False, "loss_scaling": "static", "validations_per_epoch": 1,
        "start_from": "", "seed": 42, "flat_start_epochs": 0.0,
        "guide": 0.0}
# fmt: on
PUBLISHED: dict[str, dict[str, Any]] = {
    "crnn_vgg7": {
        "epochs": 10,
        "global_batch": 128,
        "loss": "ctc",
        "optimizer": "adamw",
        "lr": 5e-4,
        "warmup_epochs": 1,
        "weight_decay": 1e-4,
        "amp": "O3",
        "loss_scale": 1024,
    },
    "crnn_r34": {
        "epochs": 30,
        "global_batch": 512,
        "loss": "ctc",
        "optimizer": "adamw",
        "lr": 5e-4,
        "warmup_epochs": 1,
        "weight_decay": 1e-4,
        "amp": "O3",
        "loss_scale": 512,
    },
    "crnn_r34_ch": CHINESE | {"loss": "ctc"},
    "crnn_icdar15": {
        "epochs": 12,
        "global_batch": 32,
        "loss": "ctc",
        "optimizer": "lion",
        "lr": 5e-5,
        "min_lr": 6e-7,
        "warmup_epochs": 4,
        "weight_decay": 5e-4,
        "decay_all": False,
        "clip_norm": 5.0,
        "accumulation": 2,
        "ema_decay": 0.9999,
        "beta2": 0.99,
        "amp": "O0",
        "loss_scale": 512,
        "loss_scaling": "dynamic",
        "start_from": "crnn_r34",
    },
    "rare_r34": RARE,
    "rare_r34_tps": RARE,
    "rare_r34_ch": CHINESE | {"loss": "cross_entropy"},
    "crnn_npu": {
        "epochs": 20,
        "global_batch": 2560,
        "loss": "ctc_by_length",
        "optimizer": "adadelta",
        "lr": 1.0,
        "schedule": "constant",
        "amp": "O2",
        "loss_scale": 128,
        "seed": 1234,
    },
    "crnn_mv3": {
        "epochs": 72,
        "global_batch": 1024,
        "loss": "ctc",
        "optimizer": "adam",
        "lr": 5e-4,
        "schedule": "constant",
        "amp": "O0",
        "loss_scale": 1024,
        "validations_per_epoch": 7,
    },
    "svtr_tiny": {
        "epochs": 30,
        "global_batch": 2048,
        "loss": "ctc",
        "optimizer": "adamw",
        "lr": 1e-3,
        "min_lr": 1e-5,
        "warmup_epochs": 3,
        "weight_decay": 0.05,
        "ema_decay": 0.9999,
        "augment": "svtr",
        "amp": "O2",
        "loss_scale": 512,
        "loss_scaling": "dynamic",
    },
    "seq2seq_fsns": {
        "epochs": 20,
        "global_batch": 256,
        "loss": "cross_entropy_unmasked",
        "optimizer": "adam",
        "lr": 8e-4,
        "beta1": 0.5,
        "schedule": "constant",
        "amp": "O2",
        "loss_scale": 1024,
        "teacher_forcing": 0.5,
        "augment": "views",
        "seed": 1,
    },
}  # fmt: skip

# Steps of an epoch, then the rates of step 1, 2, the last of the warm-up, the first full one, that in the middle of
# the fall, and the last one of all; of a constant rate the first and the last.
RATES = {
    "crnn_vgg7": (112_828, 0, 4.43152e-9, 4.9999557e-4, 5e-4, 2.5e-4, 1.19645e-15),
    "crnn_r34": (28_207, 0, 1.77261e-8, 4.9998227e-4, 5e-4, 2.5e-4, 1.84374e-15),
    "crnn_r34_ch": (498, 0, 3.34672e-7, 9.9966533e-4, 1e-3, 5.05e-4, 1.0000003e-5),
    "crnn_icdar15": (139, 0, 8.99281e-8, 4.9910072e-5, 5e-5, 2.53e-5, 6.0009857e-7),
    "rare_r34": (7_051, 0, 7.09119e-8, 4.9992909e-4, 5e-4, 2.5e-4, 2.95061e-14),
    "rare_r34_tps": (7_051, 0, 7.09119e-8, 4.9992909e-4, 5e-4, 2.5e-4, 2.95061e-14),
    "rare_r34_ch": (498, 0, 3.34672e-7, 9.9966533e-4, 1e-3, 5.05e-4, 1.0000003e-5),
    "crnn_npu": (2_822, 1.0, 1.0),
    "crnn_mv3": (14_103, 5e-4, 5e-4),
    "seq2seq_fsns": (4_081, 8e-4, 8e-4),
    "svtr_tiny": (7_051, 0, 4.72746e-8, 9.9995273e-4, 1e-3, 5.05e-4, 1.0000000674e-5),
}


def recipe_train(name: str) -> Train:
    return load_recipe(recipe_path(name)).train


def plan_of(name: str, processes: int = 1) -> Plan:
    """Return the plan of a training on all that the recipe's data sets hold."""
    recipe = load_recipe(recipe_path(name))
    sets = select(load_catalogue([FOLDER / "datasets.yaml"]), list(recipe.data.train))
    return make_plan(recipe.train, sum(entry.samples or 0 for entry in sets.values()), processes)


def test_every_published_recipe_is_compared() -> None:
    found = {path.stem for path in (FOLDER / "recipes").glob("*.yaml")} - {"quickstart", "small"}
    assert set(PUBLISHED) == set(RATES) == found


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_recipe_trains_as_published(name: str) -> None:
    recipe = load_recipe(recipe_path(name))
    found = dataclasses.asdict(recipe.train)
    assert found.pop("protocol") == recipe.evaluation.protocol
    for operation in ("framework", "checkpoint_minutes", "step_timeout_minutes", "profile"):
        del found[operation]
    assert found == NONE | PUBLISHED[name]


@pytest.mark.parametrize("name", RATES)
def test_a_recipes_rates_are_the_tabulated_ones(name: str) -> None:
    per_epoch, *expected = RATES[name]
    plan, train = plan_of(name), recipe_train(name)
    assert plan.steps_per_epoch == per_epoch
    assert plan.steps == per_epoch * train.epochs
    if len(expected) == 2:
        assert [plan.rates[0], plan.rates[-1]] == pytest.approx(expected, rel=1e-7)
        return
    full = per_epoch * PUBLISHED[name]["warmup_epochs"]
    places = [0, 1, full - 1, full, (full + plan.steps) // 2, plan.steps - 1]
    assert plan.rates[0] == 0.0
    assert [float(plan.rates[place]) for place in places] == pytest.approx(expected, rel=2e-5)


@pytest.mark.parametrize("name", RATES)
def test_every_step_has_the_published_schedules_rate(name: str) -> None:
    """The cosine by the half-angle formula: (1 + cos x) / 2 is the square of cos(x / 2)."""
    plan, told = plan_of(name), NONE | PUBLISHED[name]
    full = plan.steps_per_epoch * told["warmup_epochs"]
    step = np.arange(plan.steps)
    if told["schedule"] == "constant":
        assert full == 0
        assert set(plan.rates.tolist()) == {float(np.float32(told["lr"]))}
        return
    fall = (step - full) / (plan.steps - full)
    high, low = told["lr"], told["min_lr"]
    expected = np.where(step < full, high * step / full, low + (high - low) * np.cos(math.pi / 2 * fall) ** 2)
    np.testing.assert_allclose(plan.rates, expected, rtol=3e-7, atol=1e-19)
    assert (np.diff(plan.rates[:full]) > 0).all()
    assert (np.diff(plan.rates[full:]) <= 0).all()


@pytest.mark.parametrize("name", RATES)
@pytest.mark.parametrize("processes", [2, 4, 8])
def test_more_processes_change_the_batch_of_each_and_nothing_else(name: str, processes: int) -> None:
    alone, together = plan_of(name), plan_of(name, processes)
    assert together.batch * processes == alone.batch == PUBLISHED[name]["global_batch"]
    assert np.array_equal(together.rates, alone.rates)
    assert together.validate_after == alone.validate_after


@pytest.mark.parametrize(
    ("name", "batch", "processes"),
    [("crnn_vgg7", 16, 8), ("crnn_r34", 64, 8), ("crnn_r34_ch", 256, 8), ("rare_r34", 512, 4), ("rare_r34_ch", 256, 8),
     ("crnn_npu", 2560, 1), ("seq2seq_fsns", 32, 8), ("crnn_mv3", 256, 4)],
)  # fmt: skip
def test_the_published_devices_have_the_published_batch(name: str, batch: int, processes: int) -> None:
    assert plan_of(name, processes).batch == batch


def test_validation_comes_where_it_is_published() -> None:
    assert plan_of("crnn_vgg7").validate_after == frozenset(112_828 * epoch for epoch in range(1, 11))
    gaps = np.diff([0, *sorted(plan_of("crnn_mv3").validate_after)])
    assert (gaps.min(), gaps.max()) == (2014, 2015)  # 2,000 are published
