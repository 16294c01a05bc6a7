from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.wordmill.shards.test_loader import Numbered, numbers
from wordmill.shards.loader import training_batches
from wordmill.shards.mixing import Mixture, mixed_batches


class Renumbered(Numbered):
    """Samples whose labels begin at a number, so that those of several sets are told apart."""

    def __init__(self, count: int, start: int) -> None:
        super().__init__([count])
        self.start = start

    def window(self, blocks: object) -> Numbered.Window:
        return self.Window(np.arange(self.samples) + self.start, self.shape)


def mixture(sizes: tuple[int, ...], shares: tuple[float, ...]) -> Mixture:
    """Return sets whose labels are the numbers 0.., 1000.., 2000.. and so on."""
    sets = [Renumbered(size, 1000 * place) for place, size in enumerate(sizes)]
    return Mixture(sets=sets, shares=shares, samples=sum(sizes))


def test_of_the_first_samples_each_set_has_its_share_rounded() -> None:
    halves = mixture((3, 5), (0.5, 0.5))
    assert halves.drawn(np.arange(6)).tolist() == [[0, 1, 1, 2, 2, 3], [0, 0, 1, 1, 2, 2]]
    assert mixture((1, 1, 1), (0.5, 0.25, 0.25)).drawn(np.arange(5)).tolist() == [
        [0, 1, 1, 2, 2], [0, 0, 1, 1, 1], [0, 0, 0, 0, 1]
    ]  # fmt: skip
    assert mixture((1, 1, 1), (0.7, 0.2, 0.1)).drawn(1000).tolist() == [700, 200, 100]


@given(parts=st.lists(st.integers(1, 1000), min_size=1, max_size=8), first=st.integers(0, 10**9))
def test_any_stretch_has_every_share_at_both_ends(parts: list[int], first: int) -> None:
    shares = tuple(part / sum(parts) for part in parts)
    counts = np.arange(first, first + 50)
    drawn = mixture((1,) * len(parts), shares).drawn(counts)
    assert (drawn.sum(axis=0) == counts).all()
    steps = np.diff(drawn, axis=1)
    assert (steps >= 0).all()
    assert (steps.sum(axis=0) == 1).all()
    assert np.abs(drawn - np.outer(shares, counts)).max() < (0.501 if len(shares) < 3 else 2)


def test_a_small_set_comes_round_again_and_a_large_one_goes_on() -> None:
    mixed = mixture((3, 21), (0.5, 0.5))  # 24 samples in an epoch, 12 of each
    epochs = [numbers_of(mixed, epoch) for epoch in (0, 1)]
    small, large = ([n for epoch in epochs for n in epoch if (n < 1000) == kind] for kind in (True, False))
    assert (len(small), len(large)) == (24, 24)
    assert Counter(small) == {0: 8, 1: 8, 2: 8}
    assert all(sorted(small[place : place + 3]) == [0, 1, 2] for place in range(0, 24, 3))  # pass after pass
    assert sorted(large[:21]) == list(range(1000, 1021))  # the first pass ends within the second epoch
    alone = [int(label) for batch in training_batches(mixed.sets[1], batch=1, rank=0, ranks=1, seed=5, epoch=0)
             for label in batch.labels]  # fmt: skip
    assert large[:21] == alone


def numbers_of(mixed: Mixture, epoch: int, batch: int = 4) -> list[int]:
    return numbers(mixed_batches(mixed, batch=batch, rank=0, ranks=1, seed=5, epoch=epoch))


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 60), min_size=2, max_size=4),
    weights=st.lists(st.integers(1, 9), min_size=4, max_size=4),
    batch=st.integers(1, 12),
    ranks=st.integers(1, 4),
    epoch=st.integers(0, 50),
    data=st.data(),
)
def test_ranks_share_a_mixed_epoch_and_resume_anywhere(
    sizes: list[int], weights: list[int], batch: int, ranks: int, epoch: int, data: st.DataObject
) -> None:
    own = weights[: len(sizes)]
    mixed = mixture(tuple(sizes), tuple(weight / sum(own) for weight in own))
    steps = mixed.samples // (batch * ranks)
    if not steps:
        with pytest.raises(ValueError, match="do not fill one global batch"):
            numbers_of(mixed, epoch, batch * ranks)
        return
    parts = [
        list(mixed_batches(mixed, batch=batch, rank=rank, ranks=ranks, seed=5, epoch=epoch)) for rank in range(ranks)
    ]
    whole = [number for step in range(steps) for rank in parts for number in numbers([rank[step]])]
    assert whole == numbers_of(mixed, epoch, batch * ranks)
    counts = Counter(number // 1000 for number in whole)
    assert [counts[place] for place in range(len(sizes))] == mixed.drawn(len(whole)).tolist()

    start, rank = data.draw(st.integers(0, steps)), data.draw(st.integers(0, ranks - 1))
    rest = mixed_batches(mixed, batch=batch, rank=rank, ranks=ranks, seed=5, epoch=epoch, start_step=start)
    assert [step.labels for step in rest] == [step.labels for step in parts[rank][start:]]
