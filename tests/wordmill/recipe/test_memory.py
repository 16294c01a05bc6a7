"""How many parts memory asks for, by a made-up need that is easy to reckon with."""

import dataclasses
from pathlib import Path

import pytest

from tests.wordmill.recipe.test_schedule import train
from wordmill.recipe import memory
from wordmill.recipe.loading import load_recipe
from wordmill.recipe.sections import Data, Model

ROOT = Path(__file__).resolve().parents[3]
MIB = 2**20
DATA = Data(train=("t",), val=("v",), charset="lower36", height=32, width=128, channels=3)  # 4,096 pixels
MODEL = Model(name="crnn", backbone="vgg7", neck="bilstm", hidden=16, layers=1)


@pytest.fixture(autouse=True)
def need(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process takes 100 MiB, a picture 4,096 times 2 KiB: 8 MiB."""
    monkeypatch.setattr(memory, "NEED", {"pytorch": {"crnn/vgg7": (100, 2.0), "crnn/compact": (900, 1.0)}})


@pytest.mark.parametrize(("parts", "needed"), [(0, 100 + 64 * 8), (1, 100 + 64 * 8), (4, 100 + 16 * 8)])
def test_a_process_needs_its_own_and_its_pictures(parts: int, needed: int) -> None:
    section = train(global_batch=128, accumulation=parts)
    assert memory.bytes_needed(section, DATA, MODEL, processes=2) == needed * MIB


# Three quarters of the machine are shared by 2 processes, of 48 pictures each: 1 part needs 484 MiB, 2 292, 3 228, 4
# 196, 6 164, 8 148, 12 132, 16 124 and 24, the smallest, of two pictures, 116.
@pytest.mark.parametrize(
    ("share", "parts"), [(484, 1), (483, 2), (292, 2), (291, 3), (195, 6), (148, 8), (116, 24), (60, 24)]
)
def test_as_few_parts_as_fit_are_taken(share: int, parts: int) -> None:
    machine = share * MIB * 2 * 4 // 3
    section = train(global_batch=96)
    assert memory.parts_that_fit(section, DATA, MODEL, 2, machine + 8) == parts


def test_a_batch_of_one_picture_is_one_part() -> None:
    assert memory.parts_that_fit(train(global_batch=2), DATA, MODEL, 2, 1) == 1


def test_what_nobody_has_measured_needs_as_much_as_the_dearest() -> None:
    model = dataclasses.replace(MODEL, backbone="mobilenet_v3")
    assert memory.need_of("pytorch", model) == memory.need_of("pytorch", MODEL) == (100, 2.0)


@pytest.mark.parametrize("framework", ["pytorch", "mindspore"])
def test_the_need_of_every_recipes_recogniser_is_measured(framework: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    models = [load_recipe(path).model for path in (ROOT / "pipelines" / "recipes").glob("*.yaml")]
    needed = {f"{model.name}/{model.backbone}" for model in models}
    assert set(memory.NEED[framework]) == needed | {"crnn/compact"}  # of models that people have registered
