import dataclasses
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.waiting import wait_until
from tests.wordmill.training.tiny import TRAIN, make_job, picture, write_index, write_set
from wordmill.pictures.image import encode
from wordmill.recipe.sections import Data
from wordmill.shards.blocks import ShardWriter
from wordmill.shards.loader import Batch
from wordmill.text.charset import Charset, load_charset
from wordmill.text.decoding import CtcCodec
from wordmill.training import stream as streams
from wordmill.training import targets as encoded
from wordmill.training.context import make_context
from wordmill.training.stream import parts_of, prefetched, training_stream
from wordmill.training.targets import Draws, draw

LETTERS = CtcCodec(charset=Charset(name="abc", symbols="abc"))
LOWER = CtcCodec(charset=load_charset("lower36"))


def test_stream_gives_each_process_its_rows_of_every_epoch(tmp_path: Path) -> None:
    job = make_job(tmp_path, train=dataclasses.replace(TRAIN, epochs=2), processes=2)
    whole = dataclasses.replace(job, processes=1)
    streams = []
    for at, rank in ((whole, 0), (job, 0), (job, 1)):
        stream = training_stream(make_context(at, rank, LOWER, 25))
        streams.append([batch.labels for ((batch, _),) in stream])
    assert [len(stream) for stream in streams] == [8, 8, 8]
    assert streams[0] == [left + right for left, right in zip(streams[1], streams[2], strict=True)]
    assert streams[0][:4] != streams[0][4:]


def test_parts_are_equal_and_each_is_packed_by_itself() -> None:
    batch = Batch(images=np.arange(4 * 6, dtype=np.uint8).reshape(4, 1, 2, 3), labels=["a", "?", "abc", "ab"])
    drawn = Draws(forced=np.array([1, 0, 0, 1], np.float32), seeds=np.array([5, -6, 7, 8], np.int32))
    train = dataclasses.replace(TRAIN, accumulation=2)
    parts = parts_of(batch, train, LETTERS, 3, drawn)
    assert [part.labels for part, _ in parts] == [["a", "?"], ["abc", "ab"]]
    assert np.array_equal(np.concatenate([part.images for part, _ in parts]), batch.images)
    assert [targets.classes.tolist() for _, targets in parts] == [[[1, 0, 0], [1, 0, 0]], [[1, 2, 3], [1, 2, 0]]]
    assert [targets.forced.tolist() for _, targets in parts] == [[1.0, 0.0], [0.0, 1.0]]
    assert [targets.seeds.tolist() for _, targets in parts] == [[5, -6], [7, 8]]
    assert [targets.counted for _, targets in parts] == [2, 2]
    # ctc_by_length: the mean over the part's two samples, not over the batch's four
    assert parts[0][1].weights == pytest.approx([1 / 2, 0.0])
    assert parts[1][1].weights == pytest.approx([1 / 6, 1 / 4])


@pytest.mark.parametrize("done", [0, 3, 4, 5])
def test_draws_of_the_stream_are_those_of_each_step_and_row(done: int, tmp_path: Path) -> None:
    train = dataclasses.replace(TRAIN, epochs=2, accumulation=2, teacher_forcing=0.5)
    job = make_job(tmp_path, train=train, processes=2)
    found = list(training_stream(make_context(job, 1, LOWER, 25), done))
    assert len(found) == 8 - done
    for step, parts in enumerate(found, start=done + 1):
        for number, (_, targets) in enumerate(parts):
            expected = draw(train, step, slice(8 + 4 * number, 12 + 4 * number))  # the second half, in two parts
            assert targets.forced.tolist() == expected.forced.tolist()
            assert targets.seeds.tolist() == expected.seeds.tolist()


def test_a_stream_of_shares_has_them_in_every_epoch_and_leaves_out_what_does_not_fit(tmp_path: Path) -> None:
    job = make_job(tmp_path, train=dataclasses.replace(TRAIN, epochs=2))
    shares = dataclasses.replace(job.data, train=("own", "t"), shares={"t": 0.25, "own": 0.75})
    own = write_set(tmp_path / "own.shard", 8, ("mine", "x" * 26))  # of which four have a label of 51 frames
    job = dataclasses.replace(job, data=shares, train_sets=(own, *job.train_sets))
    context = make_context(job, 0, LOWER, 25)
    assert (context.unfit, context.train_set.samples, context.plan.steps_per_epoch) == (4, 68, 4)
    found = [[batch.labels.count("mine") for ((batch, _),) in training_stream(context, done)] for done in (0, 5)]
    assert found == [[12] * 8, [12] * 3]


@pytest.mark.parametrize("done", range(9))
def test_a_stream_goes_on_after_any_step(done: int, tmp_path: Path) -> None:
    job = make_job(tmp_path, train=dataclasses.replace(TRAIN, epochs=2), processes=2)
    context = make_context(job, 1, LOWER, 25)
    whole, rest = ([batch.labels for ((batch, _),) in training_stream(context, start)] for start in (0, done))
    assert rest == whole[done:]


def test_a_rendered_stream_goes_on_after_any_step_with_the_next_pictures(tmp_path: Path) -> None:
    spec = "synth://words?seed=5&count=40&fonts=train&words=train&difficulty=easy"
    job = make_job(tmp_path, train=dataclasses.replace(TRAIN, epochs=2, global_batch=8), processes=2)
    context = make_context(dataclasses.replace(job, rendered=spec), 1, LOWER, 25)
    assert (context.unfit, context.plan.steps) == (None, 10)
    whole, rest = (
        [(batch.images.tobytes(), batch.labels, targets.seeds.tolist()) for ((batch, targets),) in
         training_stream(context, start)]
        for start in (0, 7)
    )  # fmt: skip
    assert rest == whole[7:]
    assert len({images for images, _, _ in whole}) == 10


def test_views_are_changed_by_the_seeds_of_step_and_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def numbered(images: np.ndarray, seeds: np.ndarray) -> np.ndarray:
        return images * 0 + (seeds & 255).astype(np.uint8)[:, None, None, None]

    monkeypatch.setattr(streams, "augment_views", numbered)
    job = make_job(tmp_path, train=dataclasses.replace(TRAIN, augment="views"), processes=2)
    for rank in (0, 1):
        stream = training_stream(make_context(job, rank, LOWER, 25), 1)
        for step, ((batch, _),) in enumerate(stream, start=2):
            expected = draw(job.train, step, slice(8 * rank, 8 * rank + 8)).seeds & 255
            assert batch.images[:, 3, 4, 0].tolist() == expected.tolist()


@pytest.mark.parametrize("mixed", [False, True])
def test_words_are_changed_in_their_files_by_the_seeds_of_step_and_row(
    mixed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def marked(image: np.ndarray, seed: int, strength: float) -> np.ndarray:
        return np.full_like(image, seed % 256) + np.uint8(100 * strength)

    monkeypatch.setattr(encoded, "distort", marked)
    train = dataclasses.replace(TRAIN, epochs=2, augment="words", augment_strength=0.5)
    job = make_job(tmp_path, train=train, processes=2)
    data = dataclasses.replace(job.data, stored="encoded")
    job = dataclasses.replace(job, data=data, train_sets=(write_files(tmp_path / "files.shard", data),))
    if mixed:
        other = write_files(tmp_path / "more.shard", data)
        data = dataclasses.replace(data, train=("own", "t"), shares={"own": 0.3, "t": 0.7})
        job = dataclasses.replace(job, data=data, train_sets=(*job.train_sets, other))
    for rank in (0, 1):
        steps = 0
        for step, ((batch, _),) in enumerate(training_stream(make_context(job, rank, LOWER, 25), 1), start=2):
            seeds = draw(train, step, slice(8 * rank, 8 * rank + 8)).seeds.view(np.uint32).tolist()
            assert batch.images[:, 3, 4, 0].tolist() == [(seed + 50) % 256 for seed in seeds]
            steps += 1
        assert steps == (15 if mixed else 7)


def write_files(path: Path, data: Data) -> Path:
    """Write a shard of 64 pictures in their files, and its index; return that one's path."""
    with ShardWriter(path, (32, 100, 1), 64, data) as writer:
        for number in range(64):
            writer.add(encode(picture(number)), "abc")
    return write_index(path)


def test_prefetching_keeps_order_and_runs_ahead() -> None:
    taken: list[int] = []

    def source() -> Iterator[int]:
        for number in range(1, 7):
            taken.append(number)
            yield number

    items = prefetched(source(), 3)
    assert next(items) == 1
    wait_until(lambda: len(taken) >= 4)
    assert taken == [1, 2, 3, 4]
    assert list(items) == [2, 3, 4, 5, 6]
    assert not [thread for thread in threading.enumerate() if "ThreadPool" in thread.name]


def test_prefetching_hands_on_errors() -> None:
    def source() -> Iterator[int]:
        yield 1
        raise ValueError("block 3 is damaged")

    items = prefetched(source(), 2)
    assert next(items) == 1
    with pytest.raises(ValueError, match="block 3"):
        next(items)
