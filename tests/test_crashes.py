"""Every stage that was killed at any of its points and is started again makes what it would have made."""

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import wordmill.store.tracking  # noqa: F401
from components import keys
from components.fetch import stage as fetch_stage
from components.shard import stage as shard_stage
from tests.components.shard.shard_sets import drawn, photos, png, section
from tests.components.train.test_stage import combined_manifest
from tests.crashed_training import train, train_here
from tests.crashes import Attempt, Found, Tally, forked, kinds_of, try_all
from tests.wordmill.training.numpy_trainer import Group, NumpyTrainer
from tests.wordmill.training.tiny import DATA, TRAIN
from wordmill.recipe.frameworks import PACKAGES, environment
from wordmill.sources.locating import RENDERER
from wordmill.store.artifacts import read_manifest
from wordmill.store.children import tied
from wordmill.store.stages import work_folder
from wordmill.store.storage import Store

# What every copy of this process would find out, or import, anew.
KNOWN = (
    RENDERER,
    keys.of_leaks(),
    keys.of_shard("synth"),
    keys.of_shard("label_file"),
    keys.of_train(TRAIN, DATA, "cpu"),
)
VOLATILE = ("images_per_s", "start_s", "attempts", "missed_checkpoints", "versions")


class Place:
    """A bucket and a cache of their own for each try, and what lies there."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.base, self.patch = folder, monkeypatch
        for ingredients in KNOWN:
            ingredients.digest()
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def prepare(self, number: int) -> Path:
        """Make an empty place, to which the environment leads."""
        self.folder = self.base / f"try-{number}"
        self.folder.mkdir()
        self.patch.setenv("WORDMILL_BUCKET", f"crash-{secrets.token_hex(6)}")
        self.patch.setenv("WORDMILL_CACHE", str(self.folder / "cache"))
        self.store = Store.from_environment()
        self.store.make_bucket()
        return self.folder

    @property
    def output(self) -> Path:
        return self.folder / "out" / "manifest"

    def look(self, kept: tuple[str, ...] = ()) -> Found:
        """Tell what a stage has left: of its objects those `kept`, or all."""
        with work_folder(self.store, "any"):  # what was left is removed by whoever works next
            made = read_manifest(self.output)
        objects = {entry.name: entry.sha256 for entry in made.objects if not kept or entry.name in kept}
        missing = [entry.name for entry in made.objects if not self.store.has(entry)]
        facts = {name: value for name, value in made.facts.items() if name not in VOLATILE}
        keys = [key for key in self.store.keys("") if not key.startswith("objects/")]
        files = (path.relative_to(self.folder) for path in (self.folder / "cache").rglob("*") if path.is_file())
        here = sorted(path.as_posix() for path in files if path.parts[1] not in ("objects", "verified"))
        return Found((made.key, objects, facts), missing, (sorted(keys), here))


@pytest.fixture
def place(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    return (
        Place(tmp_path / "tries", monkeypatch) if (tmp_path / "tries").mkdir() is None else Place(tmp_path, monkeypatch)
    )


def in_a_copy(work: Callable[[], None]) -> Attempt:
    """Return what does this work in a copy of this process."""
    return lambda folder, at: forked(work, folder, at)


def table(name: str, tally: Tally) -> None:
    """Print a work's line, and fail with what went wrong."""
    print(f"\n{tally.row(name)}")
    assert tally.wrong == [], "\n\n".join(tally.wrong)


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
    def prepare(number: int) -> Path:
        folder = place.prepare(number)
        assert forked(lambda: fetch(sources, folder / "fetched"), folder)[0] == 0
        return folder

    def work() -> None:
        data = section(train=["drawn"], val=["words"])
        shard_stage.run(data=data, sources=str(place.folder / "fetched"), run_tag="r", output=str(place.output))

    table("shard", try_all(prepare, in_a_copy(work), place.look))


def trained_on(place: Place) -> Callable[[int], Path]:
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
