"""ResNet34_vd in MindSpore, the backbone of CRNNs and RAREs of MindOCR and PaddleOCR."""

from mindspore import Tensor, nn, ops

from wordmill.models.architectures import RESNET_STAGES, RESNET_STEM
from wordmill.models.ms.layers import ConvNorm


class BasicBlock(nn.Cell):
    """Two convolutions beside a shortcut (He et al. 2015, arXiv 1512.03385), which `projects` or passes its input on.

    Where the block strides, the shortcut averages and then projects (variant D of He et al. 2018, arXiv 1812.01187).
    """

    def __init__(self, inputs: int, outputs: int, stride: tuple[int, int], projects: bool) -> None:
        super().__init__()
        self.conv1 = ConvNorm(inputs, outputs, 3, stride)
        self.conv2 = ConvNorm(outputs, outputs, 3)
        self.pool = nn.Identity() if stride == (1, 1) else nn.AvgPool2d(stride, stride)
        self.shortcut = ConvNorm(inputs, outputs, 1) if projects else nn.Identity()

    def construct(self, x: Tensor) -> Tensor:
        """Return features (N, outputs, H / stride, W / stride) of (N, inputs, H, W)."""
        shortcut = self.shortcut(self.pool(x))
        return ops.relu(self.conv2(ops.relu(self.conv1(x))) + shortcut)


class ResNet34Vd(nn.Cell):
    """MindOCR's backbone rec_resnet34: (N, C, 32, W) to (N, 512, 1, W/4), 32x100 gives 25 columns."""

    channels = RESNET_STAGES[-1][0]

    def __init__(self, channels: int, padded: bool = False) -> None:
        super().__init__()
        c = (channels, *RESNET_STEM)
        self.conv1 = ConvNorm(c[0], c[1], 3)
        self.conv2 = ConvNorm(c[1], c[2], 3)
        self.conv3 = ConvNorm(c[2], c[3], 3)
        self.pool_start = SidesPool() if padded else nn.MaxPool2d(3, 2, pad_mode="same")
        blocks, inputs = [], c[3]
        for stage, (outputs, depth) in enumerate(RESNET_STAGES):
            for number in range(depth):
                stride = (2, 1) if stage > 0 and number == 0 else (1, 1)
                blocks.append(BasicBlock(inputs, outputs, stride, projects=number == 0))
                inputs = outputs
        self.blocks = nn.SequentialCell(*blocks)
        self.pool = nn.MaxPool2d(2, 2)

    def columns(self, width: int) -> int:
        """Return T for pictures of a width."""
        return (width + 1) // 2 // 2

    def construct(self, x: Tensor) -> Tensor:
        """Return features (N, 512, 1, T)."""
        x = ops.relu(self.conv1(x))
        x = ops.relu(self.conv2(x))
        x = self.pool_start(ops.relu(self.conv3(x)))
        return self.pool(self.blocks(x))


class ResNet34VdPadded(ResNet34Vd):
    """PaddleOCR's, whose first pool is padded on all sides and so lies a pixel further up and to the left."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, padded=True)


class SidesPool(nn.Cell):
    """Largest of 3x3 by stride 2 with a pixel on all sides: (N, C, H, W) to (N, C, H/2, W/2), rounded up."""

    def __init__(self) -> None:
        super().__init__()
        self.pad = nn.Pad(((0, 0), (0, 0), (1, 1), (1, 1)))
        self.pool = nn.MaxPool2d(3, 2)

    def construct(self, x: Tensor) -> Tensor:
        """Return the maxima of what ReLU left, of which zeros are never more than the largest."""
        return self.pool(self.pad(x))
