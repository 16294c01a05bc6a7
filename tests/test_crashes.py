"""Every stage that was killed at any of its points and is started again makes what it would have made."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from components import keys
from components.fetch import stage as fetch_stage
from components.shard import stage as shard_stage
from tests.components.shard.shard_sets import drawn, photos, png, section
from tests.components.train.test_stage import combined_manifest
from tests.crash_places import Place, in_a_copy, table
from tests.crashed_training import train, train_here
from tests.crashes import kinds_of, try_all
from tests.wordmill.training.numpy_trainer import Group, NumpyTrainer
from tests.wordmill.training.tiny import DATA, TRAIN
from wordmill.recipe.frameworks import PACKAGES, environment
from wordmill.store.children import tied
from wordmill.store.storage import Store


@pytest.fixture
def place(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    return Place(tmp_path / "tries", monkeypatch)


@pytest.fixture
def sources(tmp_path: Path) -> str:
    words = photos(tmp_path / "w.zip", {"Word": png(10), "it's": png(200), "cat": png(90)})
    return json.dumps({"words": words, "drawn": drawn(6)})


def fetch(sources: str, output: Path) -> None:
    fetch_stage.run(sources=sources, run_tag="r", output=str(output))


@pytest.mark.slow
def test_fetch(place: Place, sources: str) -> None:
    table("fetch", try_all(place.prepare, in_a_copy(lambda: fetch(sources, place.output)), place.look))


@pytest.mark.slow
def test_shard(place: Place, sources: str) -> None:
    place.know(keys.of_leaks(), keys.of_shard("synth"), keys.of_shard("label_file"))
    fetched = place.base / "fetched"

    def work() -> None:
        data = section(train=["drawn"], val=["words"])
        shard_stage.run(data=data, sources=str(fetched), run_tag="r", output=str(place.output))

    prepare = place.given(lambda: fetch(sources, fetched))
    table("shard", try_all(prepare, in_a_copy(work), place.look))


def trained_on(place: Place) -> Callable[[int], Path]:
    place.know(keys.of_train(TRAIN, DATA, "cpu"))

    def prepare(number: int) -> Path:
        folder = place.prepare(number)
        combined_manifest(place.store, folder)
        return folder

    return prepare


WEIGHTS = ("model.safetensors", "last.safetensors", "reference.npz")


@pytest.mark.slow
def test_training_at_every_point(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    train_here(monkeypatch, lambda job: NumpyTrainer(job, 0, Group(1), frozenset(), lambda step: None))
    work = in_a_copy(lambda: train(place.folder, TRAIN))
    table("train, NumPy", try_all(trained_on(place), work, lambda: place.look(WEIGHTS)))


@pytest.mark.slow
@pytest.mark.parametrize("framework", PACKAGES)
def test_training_at_twenty_points_of_a_framework(framework: str, place: Place) -> None:
    """By a process of its own for each try: a framework's threads do not live on in a copy."""

    def work(folder: Path, at: int) -> tuple[int, list[str]]:
        command = tied([sys.executable, "-m", "tests.crashed_training", framework, str(folder), str(at)])
        with folder.with_name(f"{folder.name}.log").open("ab") as log:
            variables = os.environ | environment(framework, "cpu")
            code = subprocess.run(command, env=variables, stdout=log, stderr=log, check=False).returncode
        return code, kinds_of(folder) if code == 0 else []

    table(f"train, {framework}", try_all(trained_on(place), work, lambda: place.look(WEIGHTS), 20))
