"""Places in which a stage is killed and started again: a bucket and a cache for each try, and what is found there."""

import pickle
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest

import wordmill.store.tracking  # noqa: F401
from tests.crashes import Attempt, Found, Tally, forked
from wordmill.sources.locating import RENDERER
from wordmill.store import files
from wordmill.store.artifacts import read_manifest
from wordmill.store.keys import Ingredients
from wordmill.store.stages import work_folder
from wordmill.store.storage import Store

VOLATILE = ("images_per_s", "start_s", "attempts", "missed_checkpoints", "versions")
Told = TypeVar("Told")


class Place:
    """A bucket and a cache of their own for each try, and what lies there."""

    def __init__(self, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.base, self.patch = base, monkeypatch
        self.base.mkdir()
        self.store = Store.from_environment()
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        monkeypatch.setenv("WORDMILL_COMMIT", "c0ffee")  # else every copy asks git
        self.know(RENDERER)

    def know(self, *ingredients: Ingredients) -> None:
        """Find out here what every copy of this process would find out anew."""
        for one in ingredients:
            one.digest()

    def prepare(self, number: int) -> Path:
        """Make an empty place, to which the environment leads."""
        self.folder = self.base / f"try-{number}"
        self.folder.mkdir()
        self.patch.setenv("WORDMILL_BUCKET", f"crash-{secrets.token_hex(6)}")
        self.patch.setenv("WORDMILL_CACHE", str(self.folder / "cache"))
        self.store = Store.from_environment()
        self.store.make_bucket()
        return self.folder

    def given(self, make: Callable[[], object]) -> Callable[[int], Path]:
        """Return what makes places that have what this leaves in the store."""
        told(make, self.prepare(-1))
        kept = {key: self.store.get_bytes(key) or b"" for key in self.store.keys("")}

        def prepare(number: int) -> Path:
            folder = self.prepare(number)
            for key, body in kept.items():
                self.store.put_bytes(key, body, "application/octet-stream")
            return folder

        return prepare

    @property
    def output(self) -> Path:
        return self.folder / "out" / "manifest"

    def look(self, kept: Sequence[str] = (), volatile: Sequence[str] = VOLATILE) -> Found:
        """Tell what a stage has left: of its objects those `kept`, or all, and the facts that no clock decides."""
        with work_folder(self.store, "any"):  # what was left is removed by whoever works next
            made = read_manifest(self.output)
        objects = {entry.name: entry.sha256 for entry in made.objects if not kept or entry.name in kept}
        missing = [entry.name for entry in made.objects if not self.store.has(entry)]
        facts = {name: value for name, value in made.facts.items() if name not in volatile}
        return Found((made.key, objects, facts), missing, (self.documents(), self.files()))

    def documents(self) -> list[str]:
        """Return the keys in the bucket but those of objects."""
        return sorted(key for key in self.store.keys("") if not key.startswith("objects/"))

    def files(self) -> list[str]:
        """Return the files in the cache but those of objects, an hour later: who writes there then tidies up first."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(files, "LEFT_OVER_S", -1.0)
            for folder in (path for path in (self.folder / "cache").rglob("*") if path.is_dir()):
                files._sweep.cache_clear()
                files._sweep(folder)
        found = (path.relative_to(self.folder) for path in (self.folder / "cache").rglob("*") if path.is_file())
        return sorted(path.as_posix() for path in found if path.parts[1] not in ("objects", "verified"))


def told(work: Callable[[], Told], folder: Path) -> Told:
    """Return what work gives in a copy of this process: connections and threads of it are none of this one's."""
    answer = folder.with_name(f"{folder.name}.told")
    code, _ = forked(lambda: answer.write_bytes(pickle.dumps(work())), folder)
    assert code == 0, folder.with_name(f"{folder.name}.log").read_text()[-3000:]
    given: Any = pickle.loads(answer.read_bytes())  # noqa: S301 (of this test)
    return given  # type: ignore[no-any-return]


def in_a_copy(work: Callable[[], object]) -> Attempt:
    """Return what does this work in a copy of this process."""
    return lambda folder, at: forked(work, folder, at)


def table(name: str, tally: Tally) -> None:
    """Print a work's line, and fail with what went wrong."""
    print(f"\n{tally.row(name)}")
    assert tally.wrong == [], "\n\n".join(tally.wrong)
