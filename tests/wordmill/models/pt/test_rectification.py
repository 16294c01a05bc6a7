from pathlib import Path

import numpy as np
import pytest
import torch

from wordmill.inference.onnx_runtime import onnxruntime
from wordmill.models.pt.rectification import Tps
from wordmill.models.tps import control_points


def test_it_has_the_size_of_dtrbs_rectification() -> None:
    """DTRB's recognisers of gray pictures with and without it: 49,555,182 and 47,862,790 parameters."""
    assert sum(weight.numel() for weight in Tps(1, 32, 100).parameters()) == 49_555_182 - 47_862_790
    assert sum(weight.numel() for weight in Tps(3, 32, 100).parameters()) == 1_693_544


def test_a_fresh_one_leaves_pictures_as_they_are() -> None:
    images = torch.randn(3, 3, 32, 100)
    for net in (Tps(3, 32, 100).train(), Tps(3, 32, 100).eval()):
        assert torch.allclose(net(images), images, atol=1e-4)


def shifted(x: float, y: float) -> Tps:
    """Return one that looks for every control point so far to the right and so far down."""
    net = Tps(1, 32, 100).eval()
    with torch.no_grad():
        net.fc2.bias.add_(torch.tensor([x, y]).repeat(20))
    return net


def test_it_shows_what_lies_under_the_moved_control_points_and_the_edge_beyond() -> None:
    images = torch.randn(2, 1, 32, 100)
    found = shifted(2 * 3 / 99, -2 * 5 / 31)(images)  # 3 pixels to the right and 5 up
    assert torch.allclose(found[:, :, 5:, :97], images[:, :, :27, 3:], atol=1e-3)
    assert torch.allclose(found[:, :, 0, :97], images[:, :, 0, 3:], atol=1e-3)
    assert torch.allclose(found[:, :, 5:, 99], images[:, :, :27, 99], atol=1e-3)


def test_between_pixels_it_mixes_the_neighbours() -> None:
    images = torch.randn(1, 1, 32, 100)
    found = shifted(2 * 0.25 / 99, 0.0)(images)
    expected = 0.75 * images[..., :-1] + 0.25 * images[..., 1:]
    assert torch.allclose(found[..., :-1], expected, atol=1e-3)


def test_the_localisation_network_learns() -> None:
    net = Tps(1, 32, 100)
    torch.nn.init.normal_(net.fc2.weight, std=0.01)
    (net(torch.randn(4, 1, 32, 100)) ** 2).mean().backward()
    assert all(weight.grad is not None and weight.grad.abs().max() > 0 for weight in net.parameters())


def test_only_weights_are_saved() -> None:
    names = set(Tps(1, 32, 100).state_dict())
    assert "fc2.bias" in names
    assert not any("pixels" in name for name in names)
    assert Tps(1, 32, 100).fc2.bias.detach().numpy() == pytest.approx(control_points().ravel())


def test_it_exports_to_onnx_opset_17(tmp_path: Path) -> None:
    torch.manual_seed(5)
    net = Tps(1, 32, 100).eval()
    torch.nn.init.normal_(net.fc2.weight, std=0.5)
    images, path = torch.randn(3, 1, 32, 100), f"{tmp_path}/tps.onnx"
    torch.onnx.export(
        net, (images[:1],), path, dynamo=False, opset_version=17, input_names=["images"],
        dynamic_axes={"images": {0: "N"}},
    )  # fmt: skip
    (found,) = onnxruntime.InferenceSession(path).run(None, {"images": images.numpy()})
    expected = net(images).detach().numpy()
    assert np.abs(expected - images.numpy()).max() > 0.1
    assert np.abs(found - expected).max() < 1e-4
