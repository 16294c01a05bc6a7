"""A small backbone of depthwise separable convolutions in MindSpore (Howard et al. 2017, arXiv 1704.04861)."""

from mindspore import Tensor, nn, ops

from wordmill.models.architectures import SEPARABLE_BLOCKS, SEPARABLE_HEAD, SEPARABLE_STEM
from wordmill.models.ms.layers import ConvNorm, conv, norm


class SeparableConv(nn.Cell):
    """Depthwise and pointwise convolution, each normalised; added to its input where both have one shape."""

    def __init__(self, inputs: int, kernel: tuple[int, int], outputs: int, stride: tuple[int, int]) -> None:
        super().__init__()
        self.depthwise = ConvNorm(inputs, inputs, kernel, stride, groups=inputs)
        self.pointwise = ConvNorm(inputs, outputs, 1)
        self.adds = inputs == outputs and stride == (1, 1)

    def construct(self, x: Tensor) -> Tensor:
        """Return features (N, outputs, H / stride, W / stride) of (N, inputs, H, W)."""
        inner = self.pointwise(self.depthwise(x))
        return ops.relu(x + inner if self.adds else inner)


class Separable(nn.Cell):
    """A third of a compact CNN's work: (N, C, 32, W) to (N, 256, 1, W/4), 32x100 gives 25 columns."""

    channels = SEPARABLE_HEAD

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(channels, SEPARABLE_STEM, 3, stride=2)
        inputs = (SEPARABLE_STEM, *(outputs for _, outputs, _ in SEPARABLE_BLOCKS))
        self.blocks = nn.SequentialCell(*(SeparableConv(inputs[i], *row) for i, row in enumerate(SEPARABLE_BLOCKS)))
        self.conv2 = conv(SEPARABLE_HEAD, SEPARABLE_HEAD, (2, 1), padding=0)
        self.bn2 = norm(SEPARABLE_HEAD)

    def construct(self, x: Tensor) -> Tensor:
        """Return features (N, 256, 1, T)."""
        x = self.blocks(ops.relu(self.conv1(x)))
        return ops.relu(self.bn2(self.conv2(x)))
