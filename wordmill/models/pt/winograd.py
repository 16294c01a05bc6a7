"""3x3 convolutions with half of the products, for prediction in float32 on a processor.

F(4, 3) of Lavin and Gray 2015 (arXiv 1509.09308) along the width: six products of 3x1 give four columns, which take
twelve in the convolution itself. Its points are 0, LOW and -LOW, HIGH and -HIGH, and infinity; of points that are
reciprocals the rounding is less than with the usual 1 and 2.
"""

import torch
from torch import Tensor, nn

LOW, HIGH = 0.5**0.5, 2**0.5
# By point, what a row of the kernel is multiplied by, and the bias; they fit what `_spread` and `_join` do.
KERNELS = ((1.0, 0.0, 0.0),
           (-2 / 3, -2 / 3 * LOW, -1 / 3), (-2 / 3, 2 / 3 * LOW, -1 / 3),
           (1 / 6, 1 / 6 * HIGH, 1 / 3), (1 / 6, -1 / 6 * HIGH, 1 / 3),
           (0.0, 0.0, 1.0))  # fmt: skip
BIASES = (0.5, 0.0, 0.0, 0.25 + LOW / 2, 0.25 - LOW / 2, -1.0)
COLUMNS = 4
CHANNELS = 128  # with fewer, the sums take what the products save


def use_winograd(net: nn.Module) -> None:
    """Put Winograd's products in the place of a network's convolutions where they are faster."""
    for part in net.modules():
        for name, layer in list(part.named_children()):
            if isinstance(layer, nn.Conv2d) and _is_faster(layer):
                setattr(part, name, Winograd(layer))


def _is_faster(layer: nn.Conv2d) -> bool:
    form = layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.groups
    return form == ((3, 3), (1, 1), (1, 1), (1, 1), 1) and min(layer.in_channels, layer.out_channels) >= CHANNELS


class Winograd(nn.Module):
    """A 3x3 convolution of stride 1 that keeps the size."""

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__()
        self.points = nn.ModuleList(_at_point(layer, *factors) for factors in zip(KERNELS, BIASES, strict=True))

    def forward(self, x: Tensor) -> Tensor:
        """Return features (N, outputs, H, W) of (N, inputs, H, W)."""
        return _join([point(values) for point, values in zip(self.points, _spread(x), strict=True)], x.shape[3])


def _at_point(layer: nn.Conv2d, row: tuple[float, ...], share: float) -> nn.Conv2d:
    """Return a layer's convolution of 3x1 at a point."""
    channels, biased = (layer.in_channels, layer.out_channels), layer.bias is not None
    point = nn.Conv2d(*channels, (3, 1), padding=(1, 0), bias=biased, device="meta")  # without weights of its own
    weight = layer.weight.detach().double() @ torch.tensor(row, dtype=torch.float64)
    point.weight = nn.Parameter(weight.float().unsqueeze(3))
    if layer.bias is not None:
        point.bias = nn.Parameter(share * layer.bias.detach())
    return point


def _spread(x: Tensor) -> tuple[Tensor, ...]:
    """Return the values of x (N, C, H, W) at the six points, each (N, C, H, tiles)."""
    whole = -(-x.shape[3] // COLUMNS) * COLUMNS
    padded = nn.functional.pad(x, (1, 1 + whole - x.shape[3]))
    a, b, c, d, e, f = (padded[..., first : first + whole : COLUMNS] for first in range(COLUMNS + 2))
    even, odd = torch.sub(e, c, alpha=2), torch.sub(d, b, alpha=2)
    even_high, odd_high = torch.sub(e, c, alpha=0.5), torch.sub(d, b, alpha=0.5)
    return (torch.add(a, e).sub_(c, alpha=2.5),
            torch.add(even, odd, alpha=LOW), even.sub_(odd, alpha=LOW),
            torch.add(even_high, odd_high, alpha=HIGH), even_high.sub_(odd_high, alpha=HIGH),
            torch.add(b, f).sub_(d, alpha=2.5))  # fmt: skip


def _join(products: list[Tensor], width: int) -> Tensor:
    """Return features (N, C, H, width) of what the six points give, each (N, C, H, tiles); that is written over."""
    start, plus, minus, plus_high, minus_high, end = products
    even, odd = plus + minus, plus.sub_(minus)
    even_high, odd_high = plus_high + minus_high, plus_high.sub_(minus_high)
    columns = (
        start.add_(even).add_(even_high),
        torch.mul(odd, LOW).add_(odd_high, alpha=HIGH),
        torch.mul(even, 0.5).add_(even_high, alpha=2),
        end.add_(odd, alpha=0.5 * LOW).add_(odd_high, alpha=2 * HIGH),
    )
    size = (*start.shape[:3], width)
    joined = torch.empty(size, dtype=start.dtype, memory_format=torch.channels_last)
    for first, column in enumerate(columns):
        part = joined[..., first::COLUMNS]
        part.copy_(column[..., : part.shape[3]])
    return joined
