import dataclasses

import numpy as np
import pytest

from components.recognition.ms.model import BiLstm, build, count_frames
from tests.recognition.ms import COMPACT, DATA, VGG7, ms


def count(net: ms.nn.Cell) -> int:
    return sum(weight.size for weight in net.trainable_params())


def test_vgg7_has_the_published_size_and_24_frames() -> None:
    net = build(VGG7, DATA[3], 37)
    assert count(net) == 8_725_413
    assert (count(net.backbone), count(net.neck), count(net.head)) == (5_552_512, 3_153_920, 18_981)
    assert count_frames(net, DATA[3]) == 24


def test_compact_has_the_size_of_its_layers_and_25_frames() -> None:
    net = build(COMPACT, DATA[1], 37)
    convolutions = 16 * 32 + 9 * (32 * 48 + 48 * 96 + 96 * 96 + 96 * 192 + 192 * 256) + 6 * 256 * 320
    norms = 2 * (32 + 48 + 96 + 96 + 192 + 256 + 320)
    lstm = 2 * 4 * 32 * (320 + 32 + 2)
    assert count(net) == convolutions + norms + lstm + 37 * (64 + 1)
    assert count_frames(net, DATA[1]) == 25


def test_counting_frames_leaves_the_running_statistics_and_the_mode_alone() -> None:
    net = build(COMPACT, DATA[1], 37)
    count_frames(net, DATA[1])
    assert net.training
    assert net.backbone.bn1.training
    assert np.array_equal(net.backbone.bn1.moving_mean.asnumpy(), np.zeros(32))
    assert np.array_equal(net.backbone.bn1.moving_variance.asnumpy(), np.ones(32))


def test_what_is_not_built_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="model.backbone: 'mobilenet_v3' is not built yet, expected one of compact"):
        build(dataclasses.replace(COMPACT, backbone="mobilenet_v3"), DATA[1], 37)
    with pytest.raises(ValueError, match="model.name: 'rare'"):
        build(dataclasses.replace(COMPACT, name="rare"), DATA[1], 37)
    with pytest.raises(ValueError, match="data.height is 48, expected 32"):
        build(COMPACT, dataclasses.replace(DATA[1], height=48), 37)


def test_running_statistics_move_by_a_tenth_towards_the_unbiased_batch() -> None:
    net = build(COMPACT, DATA[1], 37)
    x = np.random.default_rng(0).normal(3, 2, (4, 32, 2, 5)).astype(np.float32)
    net.backbone.bn1(ms.Tensor(x))
    columns = x.transpose(1, 0, 2, 3).reshape(32, -1).astype(np.float64)
    assert np.allclose(net.backbone.bn1.moving_mean.asnumpy(), 0.1 * columns.mean(axis=1), atol=1e-5)
    expected = 0.9 + 0.1 * columns.var(axis=1, ddof=1)
    assert np.allclose(net.backbone.bn1.moving_variance.asnumpy(), expected, atol=1e-5)


def test_the_neck_reads_columns_in_both_directions() -> None:
    neck = BiLstm(3, 2, 1)
    x = np.random.default_rng(1).normal(size=(1, 3, 1, 6)).astype(np.float32)
    changed = x.copy()
    changed[:, :, :, 3] += 1
    moved = np.abs(neck(ms.Tensor(x)).asnumpy() - neck(ms.Tensor(changed)).asnumpy())[0] > 1e-7
    assert moved[:, :2].any(axis=1).tolist() == [False, False, False, True, True, True]
    assert moved[:, 2:].any(axis=1).tolist() == [True, True, True, True, False, False]
