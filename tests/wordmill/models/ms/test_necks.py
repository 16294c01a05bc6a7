import numpy as np
import pytest

from tests.wordmill.models.ms import ms  # isort: skip  # before anything imports MindSpore
from wordmill.models.ms.necks import BiLstm, BiLstmLinked

RECURRENT = (BiLstm, BiLstmLinked)


@pytest.mark.parametrize("kind", RECURRENT)
def test_necks_read_columns_in_both_directions(kind: type[BiLstm] | type[BiLstmLinked]) -> None:
    neck = kind(3, 2, 1)
    x = np.random.default_rng(1).normal(size=(1, 3, 1, 6)).astype(np.float32)
    changed = x.copy()
    changed[:, :, :, 3] += 1
    moved = np.abs(neck(ms.Tensor(x)).asnumpy() - neck(ms.Tensor(changed)).asnumpy())[0] > 1e-7
    assert moved[:, :2].any(axis=1).tolist() == [False, False, False, True, True, True]
    assert moved[:, 2:].any(axis=1).tolist() == [True, True, True, True, False, False]


@pytest.mark.parametrize("kind", RECURRENT)
def test_necks_give_float32_rows_of_twice_the_hidden_size(kind: type[BiLstm] | type[BiLstmLinked]) -> None:
    neck = kind(7, 5, 2)
    assert neck.channels == 10
    neck.set_inputs(ms.Tensor(shape=[None, 7, 1, 4], dtype=ms.float32))
    for samples in (3, 1):
        features = neck(ms.ops.ones((samples, 7, 1, 4)))
        assert (features.shape, features.dtype) == ((samples, 4, 10), ms.float32)


@pytest.mark.parametrize(
    ("kind", "channels", "hidden", "parameters"),
    [
        (BiLstm, 512, 256, 3_153_920),
        (BiLstmLinked, 512, 256, 1_576_960 + 131_328 + 1_052_672),
        (BiLstmLinked, 128, 128, 2 * (2 * 4 * 128 * (128 + 128 + 2)) + 128 * 257),
    ],
)
def test_necks_have_the_published_size(
    kind: type[BiLstm] | type[BiLstmLinked], channels: int, hidden: int, parameters: int
) -> None:
    neck = kind(channels, hidden, 2)
    assert sum(weight.size for weight in neck.trainable_params()) == parameters
