import dataclasses
import os
import signal
import subprocess

import numpy as np
import pytest

from tests.wordmill.training.tiny import TRAIN
from wordmill.pictures.distortion import distort
from wordmill.pictures.image import fit_picture
from wordmill.recipe.sections import Data
from wordmill.shards.loader import Batch
from wordmill.synth.renderer import Renderer, SynthSpec
from wordmill.training.rendered import Streamed, rendered_batches
from wordmill.training.targets import draw

SPEC = SynthSpec(seed=5, count=10, words="train", difficulty="easy")
DATA = Data(train=("a",), val=("b",), charset="lower36", height=32, width=100, channels=3)


def batches(rank: int, ranks: int, batch: int, start_step: int = 0) -> list[Batch]:
    return list(
        rendered_batches(SPEC, DATA, TRAIN, batch=batch, rank=rank, ranks=ranks, steps=4, start_step=start_step)
    )


def pictures(batch: list[Batch]) -> list[bytes]:
    return [image.tobytes() for one in batch for image in one.images]


@pytest.fixture(scope="module")
def alone() -> list[Batch]:
    """Four steps of six samples on one rank."""
    return batches(0, 1, 6)


def test_batches_hold_the_sets_pictures_in_their_order_and_go_on_behind_its_count(alone: list[Batch]) -> None:
    renderer = Renderer(SPEC)
    expected = [renderer.sample(index) for index in range(24)]
    assert [one.images.shape for one in alone] == [(6, 32, 100, 3)] * 4
    assert [label for one in alone for label in one.labels] == [label for _, label in expected]
    assert pictures(alone) == [fit_picture(image, DATA).tobytes() for image, _ in expected]
    assert len(set(pictures(alone))) == 24


def test_the_global_batch_is_the_same_for_any_number_of_ranks(alone: list[Batch]) -> None:
    of_three = [batches(rank, 3, 2) for rank in range(3)]
    together = [np.concatenate([of_three[rank][step].images for rank in range(3)]) for step in range(4)]
    assert all(np.array_equal(mine, one.images) for mine, one in zip(together, alone, strict=True))


def test_words_are_changed_before_they_are_fitted_by_the_seeds_of_step_and_row() -> None:
    train = dataclasses.replace(TRAIN, global_batch=6, augment="words", augment_strength=1.0)
    stream = rendered_batches(SPEC, DATA, train, batch=3, rank=1, ranks=2, steps=2)
    renderer = Renderer(SPEC)
    for step, batch in enumerate(stream):
        seeds = draw(train, step + 1, slice(3, 6)).seeds.view(np.uint32).tolist()
        samples = [renderer.sample(6 * step + row)[0] for row in (3, 4, 5)]
        expected = [fit_picture(distort(image, seed, 1.0), DATA) for image, seed in zip(samples, seeds, strict=True)]
        assert np.array_equal(batch.images, np.stack(expected))


def test_training_resumes_at_any_step(alone: list[Batch]) -> None:
    assert pictures(batches(0, 1, 6, start_step=3)) == pictures(alone[3:])


@pytest.fixture
def feeders(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[bytes]]:
    """The processes that are started."""
    started: list[subprocess.Popen[bytes]] = []

    class Noted(subprocess.Popen[bytes]):
        def __enter__(self) -> "Noted":
            started.append(self)
            return self

    monkeypatch.setattr(subprocess, "Popen", Noted)
    return started


def test_nothing_is_left_running_when_training_stops_early(feeders: list[subprocess.Popen[bytes]]) -> None:
    stream = rendered_batches(SPEC, DATA, TRAIN, batch=2, rank=0, ranks=1, steps=1000)
    next(stream)
    assert feeders[0].poll() is None
    stream.close()  # type: ignore[attr-defined]  # a generator has it
    assert feeders[0].poll() == -signal.SIGKILL


def test_a_killed_feeder_is_an_error_and_not_the_end_of_the_data(feeders: list[subprocess.Popen[bytes]]) -> None:
    stream = rendered_batches(SPEC, DATA, TRAIN, batch=64, rank=0, ranks=1, steps=100000)
    next(stream)
    os.kill(feeders[0].pid, signal.SIGKILL)
    with pytest.raises(RuntimeError, match="renders training pictures ended with status -9"):
        for _ in stream:
            pass


def test_an_epoch_is_as_long_as_the_recipe_limits_it() -> None:
    limited = Data(train=("a",), val=("b",), charset="lower36", height=32, width=100, channels=3, limit=7)
    assert (Streamed(spec=SPEC, data=DATA).samples, Streamed(spec=SPEC, data=limited).samples) == (10, 7)
