import numpy as np

from tests.wordmill.models.ms import ms  # isort: skip  # before anything imports MindSpore
from wordmill.models.ms.rectification import Tps


def pictures(samples: int, channels: int) -> np.ndarray:
    return np.random.default_rng(samples).normal(size=(samples, channels, 32, 100)).astype(np.float32)


def test_it_has_the_size_of_dtrbs_rectification() -> None:
    """DTRB's recognisers of gray pictures with and without it: 49,555,182 and 47,862,790 parameters."""
    assert sum(weight.size for weight in Tps(1, 32, 100).trainable_params()) == 49_555_182 - 47_862_790


def test_a_fresh_one_leaves_pictures_as_they_are() -> None:
    images = pictures(3, 3)
    assert np.abs(Tps(3, 32, 100).set_train(False)(ms.Tensor(images)).asnumpy() - images).max() < 1e-4


def test_it_shows_what_lies_under_the_moved_control_points_and_the_edge_beyond() -> None:
    images, net = pictures(2, 1), Tps(1, 32, 100).set_train(False)
    moved = net.fc2.bias.asnumpy() + np.tile(np.array([2 * 3 / 99, -2 * 5 / 31], dtype=np.float32), 20)
    net.fc2.bias.set_data(ms.Tensor(moved))
    found = net(ms.Tensor(images)).asnumpy()  # 3 pixels to the right and 5 up
    assert np.abs(found[:, :, 5:, :97] - images[:, :, :27, 3:]).max() < 1e-3
    assert np.abs(found[:, :, 0, :97] - images[:, :, 0, 3:]).max() < 1e-3
    assert np.abs(found[:, :, 5:, 99] - images[:, :, :27, 99]).max() < 1e-3
