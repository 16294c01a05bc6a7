from pathlib import Path

import pytest

from benchmarks import ours
from benchmarks.memory import RECIPES, rows_of
from wordmill.recipe.loading import load_recipe
from wordmill.recipe.memory import NEED

MIB = 2**20


def test_two_sizes_tell_a_pictures_memory_from_the_processs() -> None:
    # 16 pictures more take 16 x 3,200 pixels x 2 KiB = 100 MiB: 8 take 50 of the 450.
    process, pixel = rows_of("crnn_vgg7", "pytorch", {24: 550 * MIB, 8: 450 * MIB})
    assert (process["value"], pixel["value"]) == (pytest.approx(400), pytest.approx(2))
    assert [process["goal"], pixel["goal"]] == list(NEED["pytorch"]["crnn/vgg7"])
    assert process["met"] is (NEED["pytorch"]["crnn/vgg7"][0] >= 400)


def test_pictures_lie_ready_whatever_the_recipe_changes_of_them_before_they_are_fitted(tmp_path: Path) -> None:
    recipe = load_recipe(RECIPES / "svtr_tiny.yaml")
    job = ours.make_job(recipe, 2, "cpu", tmp_path)
    assert (recipe.train.augment, job.train.augment) == ("svtr", "none")
    assert (recipe.data.stored, job.data.stored) == ("encoded", "decoded")
