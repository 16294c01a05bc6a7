import pytest
import torch
from torch import nn

from wordmill.models.pt.winograd import Winograd, use_winograd


def test_a_row_by_hand() -> None:
    layer = nn.Conv2d(1, 1, 3, padding=1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[[[0.0, 0.0, 0.0], [1.0, 10.0, 100.0], [0.0, 0.0, 0.0]]]]))
        layer.bias.fill_(1000.0)
        found = Winograd(layer)(torch.tensor([[[[1.0, 2.0, 3.0, 4.0, 5.0]]]]))
    # A pixel has 1 x the one before it, 10 x itself, 100 x the one behind it.
    torch.testing.assert_close(found, torch.tensor([[[[1210.0, 1321.0, 1432.0, 1543.0, 1054.0]]]]), rtol=1e-6, atol=0)


@pytest.mark.parametrize("width", range(1, 10))
@pytest.mark.parametrize("bias", [True, False])
def test_the_convolution_is_the_same_for_any_width(width: int, bias: bool) -> None:
    torch.manual_seed(width)
    layer = nn.Conv2d(24, 16, 3, padding=1, bias=bias)
    x = torch.randn(3, 24, 4, width)
    with torch.inference_mode():
        fast = Winograd(layer)
        found, exact = fast(x), layer.double()(x.double())
    assert (found.shape, found.dtype) == ((3, 16, 4, width), torch.float32)
    assert (found - exact).abs().max() < 5e-6
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_only_what_is_faster_is_changed() -> None:
    kept = {
        "few": nn.Conv2d(64, 128, 3, padding=1),
        "few_out": nn.Conv2d(128, 64, 3, padding=1),
        "strides": nn.Conv2d(128, 128, 3, stride=(2, 1), padding=1),
        "shrinks": nn.Conv2d(128, 128, 3),
        "dilated": nn.Conv2d(128, 128, 3, padding=1, dilation=2),
        "grouped": nn.Conv2d(128, 128, 3, padding=1, groups=2),
        "pointwise": nn.Conv2d(128, 128, 1),
    }
    net = nn.ModuleDict({**kept, "inner": nn.Sequential(nn.Conv2d(128, 160, 3, padding=1, bias=False))})
    use_winograd(net)
    assert all(net[name] is layer for name, layer in kept.items())
    assert isinstance(net["inner"][0], Winograd)
