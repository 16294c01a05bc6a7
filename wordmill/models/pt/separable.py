"""A small backbone of depthwise separable convolutions in PyTorch (Howard et al. 2017, arXiv 1704.04861)."""

from torch import Tensor, nn

from wordmill.models.architectures import SEPARABLE_BLOCKS, SEPARABLE_HEAD, SEPARABLE_STEM
from wordmill.models.pt.layers import ConvNorm


class SeparableConv(nn.Module):
    """Depthwise and pointwise convolution, each normalised; added to its input where both have one shape."""

    def __init__(self, inputs: int, kernel: tuple[int, int], outputs: int, stride: tuple[int, int]) -> None:
        super().__init__()
        self.depthwise = ConvNorm(inputs, inputs, kernel, stride, groups=inputs)
        self.pointwise = ConvNorm(inputs, outputs, 1)
        self.adds = inputs == outputs and stride == (1, 1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Return features (N, outputs, H / stride, W / stride) of (N, inputs, H, W)."""
        inner = self.pointwise(self.depthwise(x))
        features: Tensor = self.relu(x + inner if self.adds else inner)
        return features


class Separable(nn.Module):
    """A third of a compact CNN's work: (N, C, 32, W) to (N, 256, 1, W/4), 32x100 gives 25 columns."""

    channels = SEPARABLE_HEAD

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(channels, SEPARABLE_STEM, 3, stride=2)
        inputs = (SEPARABLE_STEM, *(outputs for _, outputs, _ in SEPARABLE_BLOCKS))
        self.blocks = nn.Sequential(*(SeparableConv(inputs[i], *row) for i, row in enumerate(SEPARABLE_BLOCKS)))
        self.conv2 = nn.Conv2d(SEPARABLE_HEAD, SEPARABLE_HEAD, (2, 1), bias=False)
        self.bn2 = nn.BatchNorm2d(SEPARABLE_HEAD)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Return features (N, 256, 1, T)."""
        x = self.blocks(self.relu(self.conv1(x)))
        features: Tensor = self.relu(self.bn2(self.conv2(x)))
        return features
