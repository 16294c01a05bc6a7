"""How near the loader's order comes to shuffling all samples: 2^19 of them, as the shard stage stores a training set.

The source is sorted: samples 0 .. 314,572 are of one data set and the rest of another, and labels rise with the number.
The shard stage shuffles within each shard of 16,384, and a window of the loader has 16,384 samples too.
"""

import numpy as np
import pytest

from tests.wordmill.shards.test_loader import Numbered
from wordmill.shards.loader import training_batches

SAMPLES, SHARD, BLOCK, BATCH = 1 << 19, 16384, 256, 256
FIRST_SOURCE = 314_573  # three fifths


@pytest.fixture(scope="module")
def batches() -> np.ndarray:
    """The samples' numbers in the source, (steps, BATCH), as an epoch has them."""
    samples = Numbered([BLOCK] * (SAMPLES // BLOCK), block_bytes=819_200)  # gray 32x100: windows of 64 blocks
    order = training_batches(samples, batch=BATCH, rank=0, ranks=1, seed=11, epoch=0)
    stored = np.array([batch.labels for batch in order], dtype=np.int64)
    rng = np.random.default_rng(5)
    packed = np.concatenate([start + rng.permutation(SHARD) for start in range(0, SAMPLES, SHARD)])
    return packed[stored]


def test_a_sources_share_of_batches_spreads_as_in_random_ones(batches: np.ndarray) -> None:
    shares = (batches < FIRST_SOURCE).mean(axis=1)
    ideal = np.sqrt(0.6 * 0.4 / BATCH)  # 0.0306
    assert abs(shares.mean() - 0.6) < 1e-5
    # The deviation of 2,048 shares is known to 1.6 %; windows of equal shares take 0.8 % from it.
    assert 0.95 < shares.std() / ideal < 1.05
    assert abs(shares - 0.6).max() < 5 * ideal


def test_consecutive_samples_do_not_go_together(batches: np.ndarray) -> None:
    numbers = batches.ravel().astype(np.float64)
    for lag in (1, 2, 3, 10, BATCH, SHARD):
        correlation = np.corrcoef(numbers[lag:], numbers[:-lag])[0, 1]
        assert abs(correlation) < 4 / np.sqrt(len(numbers)), lag  # 0.0055


def test_the_mean_number_of_batches_spreads_as_in_random_ones(batches: np.ndarray) -> None:
    means = batches.mean(axis=1)
    ideal = SAMPLES / np.sqrt(12 * BATCH)
    assert 0.95 < means.std() / ideal < 1.05
    steps = np.arange(len(means))
    assert abs(np.corrcoef(steps, means)[0, 1]) < 4 / np.sqrt(len(means))  # no drift over the epoch


def test_labels_spread_over_batches_as_in_random_ones(batches: np.ndarray) -> None:
    initials = batches * 26 // SAMPLES  # of sorted words, every letter as frequent as any other
    counts = np.stack([(initials == letter).sum(axis=1) for letter in range(26)], axis=1)
    chi_square = ((counts - BATCH / 26) ** 2 / (BATCH / 26)).sum(axis=1)
    assert 0.96 < chi_square.mean() / 25 < 1.04  # known to 0.6 %


def test_neighbours_of_the_source_meet_in_a_batch_no_more_often_than_in_random_ones(batches: np.ndarray) -> None:
    ordered = np.sort(batches, axis=1)
    near = (np.diff(ordered, axis=1) < 100).sum()
    # Distances of neighbours in a sorted random batch are about exponential, of mean SAMPLES / BATCH.
    ideal = len(batches) * (BATCH - 1) * (1 - np.exp(-100 * BATCH / SAMPLES))  # 24,895
    assert 0.95 < near / ideal < 1.05
