"""ResNet34_vd in PyTorch, the backbone of CRNNs and RAREs of MindOCR and PaddleOCR."""

from torch import Tensor, nn
from torch.nn import functional

from wordmill.models.architectures import RESNET_STAGES, RESNET_STEM
from wordmill.models.pt.layers import ConvNorm


class BasicBlock(nn.Module):
    """Two convolutions beside a shortcut (He et al. 2015, arXiv 1512.03385), which `projects` or passes its input on.

    Where the block strides, the shortcut averages and then projects (variant D of He et al. 2018, arXiv 1812.01187).
    """

    def __init__(self, inputs: int, outputs: int, stride: tuple[int, int], projects: bool) -> None:
        super().__init__()
        self.conv1 = ConvNorm(inputs, outputs, 3, stride)
        self.conv2 = ConvNorm(outputs, outputs, 3)
        self.pool = nn.Identity() if stride == (1, 1) else nn.AvgPool2d(stride)
        self.shortcut = ConvNorm(inputs, outputs, 1) if projects else nn.Identity()
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Return features (N, outputs, H / stride, W / stride) of (N, inputs, H, W)."""
        shortcut = self.shortcut(self.pool(x))
        features: Tensor = self.relu(self.conv2(self.relu(self.conv1(x))) + shortcut)
        return features


class SamePool(nn.Module):
    """Largest of 3x3 by stride 2, padded as MindSpore's "same": (N, C, H, W), H even, to (N, C, H/2, W/2 rounded up).

    Of a side that is even only the end is padded, of an odd one both. `any_width`: a traced graph is to work that out.
    """

    any_width = False

    def forward(self, x: Tensor) -> Tensor:
        """Return the maxima."""
        if self.any_width:
            x = functional.pad(x, (x.shape[3] % 2, 0), value=float("-inf"))
            return functional.max_pool2d(x, 3, 2, ceil_mode=True)
        return functional.max_pool2d(x, 3, 2, (0, int(x.shape[3]) % 2), ceil_mode=True)


class ResNet34Vd(nn.Module):
    """MindOCR's backbone rec_resnet34: (N, C, 32, W) to (N, 512, 1, W/4), 32x100 gives 25 columns."""

    channels = RESNET_STAGES[-1][0]

    def __init__(self, channels: int, padded: bool = False) -> None:
        super().__init__()
        c = (channels, *RESNET_STEM)
        self.conv1 = ConvNorm(c[0], c[1], 3)
        self.conv2 = ConvNorm(c[1], c[2], 3)
        self.conv3 = ConvNorm(c[2], c[3], 3)
        self.pool_start = nn.MaxPool2d(3, 2, 1) if padded else SamePool()
        blocks, inputs = [], c[3]
        for stage, (outputs, depth) in enumerate(RESNET_STAGES):
            for number in range(depth):
                stride = (2, 1) if stage > 0 and number == 0 else (1, 1)
                blocks.append(BasicBlock(inputs, outputs, stride, projects=number == 0))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.pool = nn.MaxPool2d(2)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Return features (N, 512, 1, T)."""
        x = self.relu(self.conv1(x))
        x = self.relu(self.conv2(x))
        x = self.relu(self.pool_start(self.conv3(x)))
        features: Tensor = self.pool(self.blocks(x))
        return features


class ResNet34VdPadded(ResNet34Vd):
    """PaddleOCR's, whose first pool is padded on all sides and so lies a pixel further up and to the left."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, padded=True)
