from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from components.recognition.loader import Batch, ordered_batches, training_batches
from components.recognition.schedule import steps_per_epoch
from components.recognition.shards import ShardSet
from tests.recognition.test_shards import write_shard


@pytest.fixture
def shards(tmp_path: Path) -> ShardSet:
    """10,040 samples in 41 blocks of three files: two shuffling windows, a last block of 44 in each of two files."""
    sizes = [(0, 5164), (5164, 4820), (9984, 56)]
    return ShardSet.open([write_shard(tmp_path / str(first), first, count) for first, count in sizes])


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


def test_a_batch_mixes_blocks_from_all_over(shards: ShardSet) -> None:
    labels = next(training_batches(shards, batch=128, rank=0, ranks=1, seed=1, epoch=0)).labels
    # 128 draws from 32 blocks of 41: all but a few of the blocks are met, in all parts of the data.
    assert len({int(label) // 256 for label in labels}) > 20
    assert min(map(int, labels)) < 2000 < 8000 < max(map(int, labels))


def test_samples_that_were_left_out_do_not_come(shards: ShardSet) -> None:
    kept = shards.keep(lambda label: int(label) >= 9000 and int(label) % 2 == 1)
    assert kept.samples == 520
    found = numbers(training_batches(kept, batch=8, rank=0, ranks=1, seed=1, epoch=0))
    assert sorted(found) == list(range(9001, 10_040, 2))
    assert numbers(ordered_batches(kept, 100)) == list(range(9001, 10_040, 2))


def test_evaluation_has_all_samples_in_order(shards: ShardSet) -> None:
    batches = list(ordered_batches(shards, 1000))
    assert [len(batch.labels) for batch in batches] == [1000] * 10 + [40]
    assert numbers(batches) == list(range(10_040))


def test_steps_leave_the_remainder_out() -> None:
    assert steps_per_epoch(200_000, 128) == 1562  # 1562 * 128 = 199,936
    assert steps_per_epoch(128, 128) == 1
    with pytest.raises(ValueError, match="127 samples do not fill one global batch of 128"):
        steps_per_epoch(127, 128)


def test_the_order_is_fixed_for_good(tmp_path: Path) -> None:
    """Runs go on where an older version stopped, so the order must not change; here from the definition."""
    shards = ShardSet.open([write_shard(tmp_path / "a", 0, 10)])

    def words(*key: int) -> list[int]:
        return np.random.Philox(np.random.SeedSequence(key)).random_raw(10).tolist()

    draws = words(5, 2, 1)  # one block: window 0 alone is shuffled, by key (seed, epoch, 1 + window)
    expected = sorted(range(10), key=lambda i: draws[i])
    assert numbers(training_batches(shards, batch=10, rank=0, ranks=1, seed=5, epoch=2)) == expected
