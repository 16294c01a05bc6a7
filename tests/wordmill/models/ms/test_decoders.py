from collections.abc import Iterator

import numpy as np
import pytest

from tests.wordmill.models.ms import cell_by_cell, ms  # isort: skip  # before anything imports MindSpore
from wordmill.models.ms.decoders import GruAttention, PositionAttention


@pytest.fixture(autouse=True)
def _uncompiled() -> Iterator[None]:
    """Compile no graph of what is told and of what is left out: test_twin_decoders.py compiles both decoders."""
    with cell_by_cell():
        yield


def parameters(net: ms.nn.Cell) -> int:
    return sum(weight.size for weight in net.trainable_params())


def test_the_decoders_have_the_published_sizes() -> None:
    assert parameters(GruAttention(512, 256, 38, 26)) == 827_430
    assert parameters(GruAttention(128, 256, 6625, 41)) == 7_185_889
    position = PositionAttention(256, 128, 10_000, 64)
    assert parameters(position.bridge) == 32_896
    assert parameters(position) - 32_896 == 2_718_416


@pytest.mark.parametrize("kind", [GruAttention, PositionAttention])
def test_a_sample_is_told_the_truth_or_goes_by_its_own_reading(kind: type[GruAttention | PositionAttention]) -> None:
    ms.set_seed(3)
    net = kind(6, 8, 7, 4).set_train(False)
    for weight in net.trainable_params():
        ms.ops.assign(weight, weight * 3)
    rng = np.random.default_rng(0)
    features, classes = (
        ms.Tensor(rng.normal(size=(4, 4, 6)).astype(np.float32)),
        rng.integers(2, 7, (4, 4), dtype=np.int32),
    )

    def read(number: np.ndarray, forced: list[float]) -> np.ndarray:
        return net(features, ms.Tensor(number), ms.Tensor(forced, ms.float32)).asnumpy()

    free = net(features).asnumpy()
    told, own = read(classes, [1, 1, 1, 1]), read(free.argmax(axis=2).astype(np.int32), [1, 1, 1, 1])
    mixed = read(classes, [0, 1, 0, 1])
    assert np.allclose(own, free, atol=1e-5)
    assert np.abs(told[:, -1] - free[:, -1]).max(axis=1).min() > 1e-3
    assert np.allclose(mixed[[1, 3]], told[[1, 3]], atol=1e-5)
    assert np.allclose(mixed[[0, 2]], free[[0, 2]], atol=1e-5)


def test_dropout_is_on_in_training_only_and_goes_by_the_seeds() -> None:
    net, features = PositionAttention(6, 8, 7, 2), ms.Tensor(np.ones((2, 2, 6), dtype=np.float32))
    classes, forced = ms.Tensor(np.full((2, 2), 3, np.int32)), ms.Tensor([1.0, 1.0], ms.float32)

    def read(*seeds: int) -> np.ndarray:
        return net(features, classes, forced, ms.Tensor(seeds, ms.int32)).asnumpy()

    net.set_train(False)
    whole = net(features, classes, forced).asnumpy()
    assert np.array_equal(read(1, 2), whole)
    net.set_train()
    one, same, other = read(1, 2), read(1, 2), read(1, 5)
    assert np.array_equal(one, same)
    assert not np.allclose(one, whole, atol=1e-4)
    assert np.array_equal(one[0], other[0])
    assert not np.allclose(one[1], other[1], atol=1e-4)


def test_embeddings_start_from_the_standard_normal_as_in_pytorch() -> None:
    table = PositionAttention(6, 100, 200, 4).embedding.embedding_table.asnumpy()
    assert table.std() == pytest.approx(1.0, abs=0.03)
