"""Layers that several backbones in MindSpore are made of."""

import math

from mindspore import Tensor, nn
from mindspore.common.initializer import HeUniform, Uniform


# MindSpore's own defaults differ from PyTorch's, so padding, bias, start, momentum and epsilon are all spelt out.
def conv(
    inputs: int,
    outputs: int,
    kernel: int | tuple[int, int],
    padding: int | tuple[int, int, int, int],
    stride: int | tuple[int, int] = 1,
    groups: int = 1,
    bias: bool = False,
) -> nn.Conv2d:
    """Return a convolution that starts as PyTorch's; four paddings are top, bottom, left and right."""
    sides = (kernel, kernel) if isinstance(kernel, int) else kernel
    bound = 1 / math.sqrt(inputs // groups * sides[0] * sides[1])
    return nn.Conv2d(
        inputs, outputs, kernel, stride, pad_mode="pad", padding=padding, group=groups, has_bias=bias,
        weight_init=HeUniform(math.sqrt(5)), bias_init=Uniform(bound),
    )  # fmt: skip


def norm(channels: int, eps: float = 1e-5) -> nn.BatchNorm2d:
    """Return a batch normalisation; momentum is the old statistics' share here, PyTorch's 0.1."""
    return nn.BatchNorm2d(channels, eps=eps, momentum=0.9)


class ConvNorm(nn.Cell):
    """A convolution without bias that keeps the size but for its stride, and batch normalisation.

    Fresh weights are the framework's own, U(-b, b) with b = 1 / sqrt(fan-in), which MindOCR relies on.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int | tuple[int, int] = 1, groups: int = 1
    ) -> None:
        super().__init__()
        self.conv = conv(inputs, outputs, kernel, kernel // 2, stride, groups)
        self.bn = norm(outputs)

    def construct(self, x: Tensor) -> Tensor:
        """Return features (N, outputs, H / stride, W / stride) of (N, inputs, H, W)."""
        return self.bn(self.conv(x))
