import numpy as np
import pytest

from tests.wordmill.models.ms import ms  # isort: skip  # before anything imports MindSpore
from wordmill.models.ms.layers import Dropout

SEEDS = np.array([0, 1, -1, 2**31 - 1, -(2**31), 123456789], np.int32)


def hashed(seed: int, place: int, salt: int) -> int:
    """Return the word of one value, by Python's own numbers."""
    word = (seed + (place + 1) * 0x9E3779B1 + salt * 0x85EBCA77) % 2**32
    word = (word ^ (word >> 16)) * 0x7FEB352D % 2**32
    word = (word ^ (word >> 15)) * 0x846CA68B % 2**32
    return word ^ (word >> 16)


@pytest.mark.parametrize(("p", "salt"), [(0.1, 3), (0.5, 0)])
def test_dropout_goes_by_seed_place_and_salt(p: float, salt: int) -> None:
    x = np.random.default_rng(1).normal(size=(len(SEEDS), 5, 2, 7)).astype(np.float32)
    found = Dropout(p).set_train()(ms.Tensor(x), ms.Tensor(SEEDS), salt).asnumpy()
    kept = [[hashed(int(seed), place, salt) >> 1 >= round(p * 2**31) for place in range(70)] for seed in SEEDS]
    assert np.allclose(found, x * np.reshape(kept, x.shape) / (1 - p), atol=1e-6)
    assert np.mean(kept) == pytest.approx(1 - p, abs=0.06)  # 420 coins


def test_masks_of_several_salts_are_those_of_each() -> None:
    dropout, seeds = Dropout(0.5).set_train(), ms.Tensor(SEEDS)
    masks = dropout.masks(seeds, ms.Tensor([1, 2, 65], ms.int32), 9).asnumpy()
    assert masks.shape == (6, 3, 9)
    ones = ms.ops.ones((6, 9))
    for number, salt in enumerate((1, 2, 65)):
        assert np.array_equal(masks[:, number], dropout(ones, seeds, salt).asnumpy())
    assert not np.array_equal(masks[:, 0], masks[:, 1])


def test_nothing_is_dropped_from_what_is_read() -> None:
    x = ms.Tensor(np.ones((2, 3), np.float32))
    assert np.array_equal(Dropout(0.5).set_train(False)(x, ms.Tensor([1, 2], ms.int32), 0).asnumpy(), x.asnumpy())
