from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.wordmill.shards.test_sets import write_shard
from wordmill.recipe.schedule import steps_per_epoch
from wordmill.shards.blocks import Shape
from wordmill.shards.loader import (
    RANGES,
    Batch,
    chosen_batch,
    ordered_batches,
    pictures_at_once,
    spread_batches,
    training_batches,
)
from wordmill.shards.sets import ShardSet


@pytest.fixture
def shards(tmp_path: Path) -> ShardSet:
    """10,040 samples in 41 blocks of three files, a last block of 44 in the first, of 212 in the second, of 56."""
    sizes = [(0, 5164), (5164, 4820), (9984, 56)]
    return ShardSet.open([write_shard(tmp_path / str(first), first, count) for first, count in sizes])


class Numbered:
    """Samples without files: number i of the stored order has label `i` and a picture of the pixel i % 251."""

    def __init__(self, counts: Sequence[int], shape: tuple[int, int, int] = (1, 1, 1), block_bytes: int = 1) -> None:
        self.shape, self.block_bytes = shape, block_bytes
        self.counts = np.array(counts, dtype=np.int64)
        self.samples = int(self.counts.sum())
        self.prefetched: list[int] = []

    def prefetch(self, blocks: Sequence[int]) -> None:
        self.prefetched += blocks

    def window(self, blocks: Sequence[int]) -> "Numbered.Window":
        starts = np.cumsum(self.counts) - self.counts
        rows = [np.arange(self.counts[block]) + starts[block] for block in blocks]
        return self.Window(np.concatenate(rows), self.shape)

    class Window:
        def __init__(self, numbers: np.ndarray, shape: tuple[int, int, int]) -> None:
            self.numbers, self.shape = numbers, shape
            self.labels = [str(number) for number in numbers.tolist()]

        def take(self, places: np.ndarray) -> np.ndarray:
            levels = (self.numbers[places] % 251).astype(np.uint8)
            return np.broadcast_to(levels[:, None, None, None], (len(places), *self.shape))


def numbers(batches: Iterable[Batch]) -> list[int]:
    """The samples' numbers, having checked that each picture goes with its label."""
    found = []
    for batch in batches:
        assert batch.images.dtype == np.uint8
        assert (batch.images.reshape(len(batch.labels), -1) == np.array([[int(x) % 251] for x in batch.labels])).all()
        found += map(int, batch.labels)
    return found


def test_an_epoch_has_every_sample_at_most_once(shards: ShardSet) -> None:
    found = numbers(training_batches(shards, batch=64, rank=0, ranks=1, seed=1, epoch=0))
    assert len(found) == 156 * 64  # 10,040 // 64 = 156
    assert len(set(found)) == len(found)
    assert found != sorted(found)


def test_batches_of_one_use_every_sample(shards: ShardSet) -> None:
    found = numbers(training_batches(shards, batch=1, rank=0, ranks=1, seed=1, epoch=0))
    assert sorted(found) == list(range(10_040))


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(0, 40), min_size=1, max_size=200).filter(lambda counts: sum(counts) > 0),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 4), st.sampled_from([1, 3])),
    block_bytes=st.sampled_from([1, 5 << 20, 100 << 20]),  # windows of 64 blocks, of 12, of one
    batch=st.integers(1, 50),
    ranks=st.integers(1, 9),
    seed=st.integers(0, 2**63),
    epoch=st.integers(0, 1000),
    data=st.data(),
)
def test_ranks_share_an_epoch_without_loss_and_resume_anywhere(
    counts: list[int],
    shape: tuple[int, int, int],
    block_bytes: int,
    batch: int,
    ranks: int,
    seed: int,
    epoch: int,
    data: st.DataObject,
) -> None:
    samples = Numbered(counts, shape, block_bytes)
    steps = samples.samples // (batch * ranks)
    if not steps:
        with pytest.raises(ValueError, match="do not fill one global batch"):
            list(training_batches(samples, batch=batch, rank=0, ranks=ranks, seed=seed, epoch=epoch))
        return
    parts = [
        list(training_batches(samples, batch=batch, rank=rank, ranks=ranks, seed=seed, epoch=epoch))
        for rank in range(ranks)
    ]
    assert all(part.images.shape == (batch, *shape) for rank in parts for part in rank)
    whole = [numbers(rank[step] for rank in parts) for step in range(steps)]
    assert [len(rank) for rank in parts] == [steps] * ranks
    assert len({number for step in whole for number in step}) == steps * batch * ranks
    alone = training_batches(samples, batch=batch * ranks, rank=0, ranks=1, seed=seed, epoch=epoch)
    assert [numbers([step]) for step in alone] == whole

    start, rank = data.draw(st.integers(0, steps)), data.draw(st.integers(0, ranks - 1))
    rest = training_batches(samples, batch=batch, rank=rank, ranks=ranks, seed=seed, epoch=epoch, start_step=start)
    assert [step.labels for step in rest] == [step.labels for step in parts[rank][start:]]


@settings(max_examples=30, deadline=None)
@given(
    counts=st.lists(st.integers(0, 40), min_size=1, max_size=50).filter(lambda counts: sum(counts) > 0),
    batch=st.integers(1, 60),
    ranks=st.integers(1, 5),
)
def test_ranks_share_the_stored_order_batch_by_batch(counts: list[int], batch: int, ranks: int) -> None:
    samples = Numbered(counts)
    parts = [[numbers([b]) for b in ordered_batches(samples, batch, rank, ranks)] for rank in range(ranks)]
    found = [parts[turn % ranks][turn // ranks] for turn in range(sum(map(len, parts)))]
    assert [number for part in found for number in part] == list(range(sum(counts)))
    assert all(len(part) == batch for part in found[:-1])


@pytest.mark.parametrize("ranks", [2, 3, 8])
def test_global_batches_are_the_same_for_any_number_of_ranks(shards: ShardSet, ranks: int) -> None:
    batch = 24
    alone = list(training_batches(shards, batch=batch * ranks, rank=0, ranks=1, seed=1, epoch=3))
    parts = [list(training_batches(shards, batch=batch, rank=r, ranks=ranks, seed=1, epoch=3)) for r in range(ranks)]
    assert {len(part) for part in parts} == {len(alone)} == {10_040 // (24 * ranks)}
    for step, whole in enumerate(alone):
        assert [label for part in parts for label in part[step].labels] == whole.labels
        assert (np.concatenate([part[step].images for part in parts]) == whole.images).all()


@pytest.mark.parametrize("start", [1, 77, 128, 155, 156])
def test_an_epoch_resumes_at_any_step(shards: ShardSet, start: int) -> None:
    whole = [b.labels for b in training_batches(shards, batch=32, rank=1, ranks=2, seed=9, epoch=1)]
    rest = training_batches(shards, batch=32, rank=1, ranks=2, seed=9, epoch=1, start_step=start)
    assert [b.labels for b in rest] == whole[start:]


def test_seed_and_epoch_make_the_order(shards: ShardSet) -> None:
    def first(seed: int, epoch: int) -> list[str]:
        return next(training_batches(shards, batch=64, rank=0, ranks=1, seed=seed, epoch=epoch)).labels

    assert first(1, 0) == first(1, 0)
    assert len({tuple(first(seed, epoch)) for seed in (1, 2) for epoch in (0, 1)}) == 4


def test_every_window_has_one_block_of_each_range() -> None:
    samples = Numbered([1] * 205)  # each sample is a block
    found = numbers(training_batches(samples, batch=1, rank=0, ranks=1, seed=3, epoch=0))
    bounds = [number * 205 // RANGES for number in range(RANGES + 1)]  # ranges of 3 or 4 blocks
    ranges = np.searchsorted(bounds, found, side="right") - 1
    for start in (0, 64, 128):
        assert sorted(ranges[start : start + 64]) == list(range(64))
    assert len(set(ranges[192:])) == 13


def test_the_next_windows_blocks_are_asked_for_ahead_and_none_twice() -> None:
    samples = Numbered([4] * 200)
    batches = training_batches(samples, batch=4, rank=0, ranks=1, seed=3, epoch=0)
    next(batches)
    assert len(samples.prefetched) == 128
    list(batches)
    assert sorted(samples.prefetched) == list(range(200))
    late = Numbered([4] * 200)
    next(training_batches(late, batch=4, rank=0, ranks=1, seed=3, epoch=0, start_step=70))
    assert late.prefetched == samples.prefetched[64:192]


def test_blocks_of_the_stored_order_are_asked_for_ahead_and_none_twice() -> None:
    samples = Numbered([4] * 40)
    batches = ordered_batches(samples, 6)
    next(batches)
    assert samples.prefetched == list(range(16))
    next(batches)  # begins in block 1
    assert samples.prefetched == list(range(17))
    list(batches)
    assert samples.prefetched == list(range(40))


def test_samples_that_were_left_out_do_not_come(shards: ShardSet) -> None:
    stored = np.arange(10_040)
    kept = shards.keep((stored >= 9000) & (stored % 2 == 1))
    assert kept.samples == 520
    found = numbers(training_batches(kept, batch=8, rank=0, ranks=1, seed=1, epoch=0))
    assert sorted(found) == list(range(9001, 10_040, 2))
    assert numbers(ordered_batches(kept, 100)) == list(range(9001, 10_040, 2))


def test_evaluation_has_all_samples_in_order(shards: ShardSet) -> None:
    batches = list(ordered_batches(shards, 1000))
    assert [len(batch.labels) for batch in batches] == [1000] * 10 + [40]
    assert numbers(batches) == list(range(10_040))


def test_samples_are_chosen_by_number(shards: ShardSet) -> None:
    chosen = [9999, 0, 5163, 5164, 10_039, 0]
    assert numbers([chosen_batch(shards, np.array(chosen))]) == chosen


def test_samples_lie_evenly_over_all() -> None:
    def taken(most: int) -> list[list[str]]:
        return [batch.labels for batch in spread_batches(Numbered([4, 6]), most, 3)]

    assert taken(4) == [["0", "2", "5"], ["7"]]
    assert [label for labels in taken(99) for label in labels] == [str(number) for number in range(10)]


def test_steps_leave_the_remainder_out() -> None:
    assert steps_per_epoch(200_000, 128) == 1562  # 1562 * 128 = 199,936
    assert steps_per_epoch(128, 128) == 1
    with pytest.raises(ValueError, match="127 samples do not fill one global batch of 128"):
        steps_per_epoch(127, 128)


def halves(words: np.ndarray) -> list[int]:
    """The 32-bit words of 64-bit ones, the low half of each first."""
    return [half for word in words.tolist() for half in (word & 0xFFFFFFFF, word >> 32)]


def test_the_order_is_fixed_for_good(tmp_path: Path) -> None:
    """Runs go on where an older version stopped, so the order must not change; here from the definition."""
    shards = ShardSet.open([write_shard(tmp_path / "a", 0, 10)])

    def words(*key: int) -> list[int]:
        return halves(np.random.Philox(np.random.SeedSequence(key)).random_raw(5))

    draws = words(5, 2, 1)  # one block: window 0 alone is shuffled, by key (seed, epoch, 1 + window)
    expected = sorted(range(10), key=lambda i: draws[i])
    assert numbers(training_batches(shards, batch=10, rank=0, ranks=1, seed=5, epoch=2)) == expected


def test_the_order_of_blocks_is_fixed_for_good() -> None:
    draws = halves(np.random.Philox(np.random.SeedSequence((5, 2, 0))).random_raw(65))
    order = sorted(range(130), key=lambda i: draws[i])
    ranges = [[i for i in order if n * 130 // 64 <= i < (n + 1) * 130 // 64] for n in range(64)]
    samples = Numbered([1] * 130)
    next(training_batches(samples, batch=1, rank=0, ranks=1, seed=5, epoch=2))
    assert samples.prefetched[:64] == [own[0] for own in ranges]
    assert samples.prefetched[64:] == [own[1] for own in ranges]


@pytest.mark.parametrize(
    ("shape", "pictures"), [((32, 100, 1), 256), ((32, 100, 3), 256), ((16, 50, 1), 256), ((48, 320, 3), 53),
                            ((128, 512, 3), 12), ((1000, 1000, 3), 1)]
)  # fmt: skip
def test_of_large_pictures_fewer_are_read_at_once(shape: Shape, pictures: int) -> None:
    assert pictures_at_once(shape) == pictures
