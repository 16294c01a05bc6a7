"""Real training stages whose parts are killed at random points: the weights are those of an undisturbed run."""

import dataclasses
import random
import secrets
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.components.train.killing import POLL_S, Attempt, StageProcess, kill, left_over
from tests.components.train.test_stage import combined_manifest
from tests.waiting import wait_until
from tests.wordmill.training.tiny import TRAIN
from wordmill.store.artifacts import Manifest
from wordmill.store.stages import RESUME
from wordmill.store.storage import Store

pytestmark = pytest.mark.slow

SEED = 20261121
CHECKPOINT_S = 0.3
# Of 4 steps an epoch. A step is waited for so long that a hang costs little, and that a busy machine makes none.
LONG = dataclasses.replace(
    TRAIN, epochs=75, ema_decay=0.9, checkpoint_minutes=CHECKPOINT_S / 60, step_timeout_minutes=0.2
)
POINTS = ["rank"] * 6 + ["launcher"] * 4 + ["all"] * 4 + ["stage"] * 4 + ["early"] * 2 + ["hang"] * 2 + ["term"] * 2
WEIGHTS = ("model.safetensors", "last.safetensors", "reference.npz")


@dataclass(frozen=True)
class Point:
    """What was killed, and steps: begun after, done, of the newest checkpoint on the disk, and of where it went on."""

    how: str
    begun: int
    done: int
    kept: int
    resumed: int


def new_store(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A bucket and a cache of its own, to which the environment leads."""
    monkeypatch.setenv("WORDMILL_BUCKET", f"bucket-{secrets.token_hex(6)}")
    monkeypatch.setenv("WORDMILL_CACHE", str(folder / "cache"))
    folder.mkdir(exist_ok=True)
    store = Store.from_environment()
    store.make_bucket()
    return store


def undisturbed(folder: Path, train: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> Manifest:
    """What an undisturbed run makes."""
    store = new_store(folder, monkeypatch)
    with stage(store, folder, train) as process:
        return process.manifest()


@contextmanager
def stage(store: Store, folder: Path, train: dict[str, object], before: str = "") -> Iterator[StageProcess]:
    """A running stage, of which nothing is left afterwards."""
    process = StageProcess(store, combined_manifest(store, folder), dataclasses.replace(LONG, **train), folder, before)
    try:
        yield process
    finally:
        process.stop()
    wait_until(lambda: not left_over(folder))


def strike(process: StageProcess, how: str, attempt: Attempt, rng: random.Random) -> int:
    """Let an attempt go on for some steps, until it has a checkpoint of its own, and kill a part of it.

    Returns the step of the newest checkpoint on the disk before that.
    """
    target = attempt.step + rng.randint(1, 12)
    process.wait(lambda: process.steps() >= target and process.kept() > attempt.step, f"step {target}, to kill {how}")
    launcher, workers = process.launcher(), process.workers()
    victim = rng.choice(workers)
    time.sleep(rng.uniform(0.0, 0.1))  # anywhere in a step, in a checkpoint's writing, in a validation
    kept = process.kept()
    if how in ("rank", "hang"):
        kill([victim], signal.SIGKILL if how == "rank" else signal.SIGSTOP)
    elif how in ("launcher", "all"):
        kill([*(workers if how == "all" else []), launcher])
    else:
        process.process.send_signal(signal.SIGTERM if how == "term" else signal.SIGKILL)
        assert process.end() == (RESUME if how == "term" else -signal.SIGKILL), process.tail()
        process.start()
    if how == "early":
        moment = time.monotonic() + rng.uniform(0.0, 6.0)  # while the stage or its workers start
        while time.monotonic() < moment and process.attempt() in (None, attempt):
            time.sleep(POLL_S)
        process.kill_all()
        process.start()
    return kept


def survive(process: StageProcess, hows: list[str], rng: random.Random) -> list[Point]:
    """Kill in all these ways, and tell for each how far the run was and where it went on."""
    points, attempt = [], process.wait_for_attempt(None)
    for how in hows:
        with (
            process.run_folder() / "pulse.0"
        ).open() as pulse:  # it can still be read when the next attempt has its own
            kept, last = strike(process, how, attempt, rng), attempt
            attempt = process.wait_for_attempt(last)
            points.append(Point(how, last.step, int(pulse.read()), kept, attempt.step))
        print(points[-1], flush=True)
    return points


@pytest.mark.parametrize(
    ("framework", "epochs", "hows"), [("pytorch", 75, POINTS), ("mindspore", 12, ["rank", "stage", "all"])]
)
def test_a_run_killed_anywhere_ends_as_if_nothing_had_happened(
    framework: str, epochs: int, hows: list[str], store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    train: dict[str, object] = {"framework": framework, "epochs": epochs}
    expected = undisturbed(tmp_path / "undisturbed", train, monkeypatch)
    rng = random.Random(SEED)
    hows = rng.sample(hows, len(hows))
    print(f"seed {SEED}: {' '.join(hows)}")
    folder = tmp_path / "killed"
    with stage(new_store(folder, monkeypatch), folder, train) as process:
        points = survive(process, hows, rng)
        found = process.manifest()
        assert not process.run_folder().exists()
    for point in points:  # no checkpoint is lost, and what is done again are steps after it
        assert max(point.kept, point.begun + 1) <= point.resumed <= point.done
        assert point.how != "term" or point.resumed == point.done
    for name in WEIGHTS:
        assert found.object(name).sha256 == expected.object(name).sha256, name
    for name in ("val/accuracy", "val/loss"):
        assert [entry[:2] for entry in found.curves[name]] == [entry[:2] for entry in expected.curves[name]]
    steps = [attempt["step"] for attempt in found.facts["attempts"]]
    assert steps == [0, *(point.resumed for point in points)]
