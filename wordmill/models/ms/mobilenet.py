"""MobileNetV3 in MindSpore (Howard et al. 2019, arXiv 1905.02244), the backbone of PaddleOCR's small CRNN."""

from mindspore import Tensor, nn, ops

from wordmill.models.architectures import MOBILENET_BLOCKS, MOBILENET_HEAD, MOBILENET_STEM, SQUEEZE
from wordmill.models.ms.layers import ConvNorm, conv


class SqueezeExcitation(nn.Cell):
    """Weights of the channels worked out from their means (Hu et al. 2017, arXiv 1709.01507), a quarter as many inside.

    The hard sigmoid is that of Howard et al., relu6(x + 3) / 6; some releases of PaddleOCR have a slope of 0.2.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = conv(channels, channels // SQUEEZE, 1, padding=0, bias=True)
        self.conv2 = conv(channels // SQUEEZE, channels, 1, padding=0, bias=True)

    def construct(self, x: Tensor) -> Tensor:
        """Return features (N, channels, H, W) of the same."""
        inner = ops.relu(self.conv1(x.mean((2, 3), keep_dims=True)))
        return x * ops.hardsigmoid(self.conv2(inner))


class InvertedResidual(nn.Cell):
    """Expansion, depthwise convolution, squeeze and excitation, projection; added to its input where both fit."""

    def __init__(
        self, inputs: int, kernel: int, inner: int, outputs: int, squeezes: bool, swishes: bool, stride: int
    ) -> None:
        super().__init__()
        self.expand = ConvNorm(inputs, inner, 1)
        self.depthwise = ConvNorm(inner, inner, kernel, (stride, 1), groups=inner)
        self.squeeze = SqueezeExcitation(inner) if squeezes else nn.Identity()
        self.project = ConvNorm(inner, outputs, 1)
        self.activation = nn.HSwish() if swishes else nn.ReLU()
        self.adds = stride == 1 and inputs == outputs

    def construct(self, x: Tensor) -> Tensor:
        """Return features (N, outputs, H / stride, W) of (N, inputs, H, W)."""
        inner = self.activation(self.depthwise(self.activation(self.expand(x))))
        features = self.project(self.squeeze(inner))
        return x + features if self.adds else features


class MobileNetV3(nn.Cell):
    """The large network at half its channels: (N, C, 32, W) to (N, 480, 1, W/4), 32x100 gives 25 columns."""

    channels = MOBILENET_HEAD

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(channels, MOBILENET_STEM, 3, stride=2)
        inputs = (MOBILENET_STEM, *(outputs for _, _, outputs, _, _, _ in MOBILENET_BLOCKS))
        self.blocks = nn.SequentialCell(*(InvertedResidual(inputs[i], *row) for i, row in enumerate(MOBILENET_BLOCKS)))
        self.conv2 = ConvNorm(inputs[-1], MOBILENET_HEAD, 1)
        self.activation = nn.HSwish()
        self.pool = nn.MaxPool2d(2, 2)

    def columns(self, width: int) -> int:
        """Return T for pictures of a width."""
        return (width + 1) // 2 // 2

    def construct(self, x: Tensor) -> Tensor:
        """Return features (N, 480, 1, T)."""
        x = self.blocks(self.activation(self.conv1(x)))
        return self.pool(self.activation(self.conv2(x)))
