"""Backbones in PyTorch: from normalised pictures (N, C, H, W) to features (N, channels, 1, T)."""

from torch import Tensor, nn
from torch.nn import functional

from wordmill.models.architectures import (
    COMPACT,
    NORM_EPSILON,
    NORMALS,
    SEPARABLE_BLOCKS,
    SEPARABLE_HEAD,
    SEPARABLE_STEM,
    VGG7,
    VGG7_BIASES,
    VGG7_EPSILON,
    VGG7_WEIGHTS,
    VIEWS,
    VIEWS_CNN,
    check_views,
)  # fmt: skip
from wordmill.models.pt.layers import ConvNorm
from wordmill.models.pt.mobilenet import MobileNetV3
from wordmill.models.pt.resnet import ResNet34Vd, ResNet34VdPadded
from wordmill.models.pt.svtr import SvtrTiny


class Compact(nn.Module):
    """A small backbone for processors: (N, C, H, W) to (N, 320, 1, W/4), 32x100 gives 25 columns; H is 32 or 48."""

    channels = COMPACT[-1]

    def __init__(self, channels: int, height: int = 32) -> None:
        super().__init__()
        c = (channels, *COMPACT)
        # The first layer halves the picture both ways, which saves most of the work of a VGG.
        self.conv1, self.bn1 = nn.Conv2d(c[0], c[1], 4, stride=2, padding=1, bias=False), nn.BatchNorm2d(c[1])
        self.conv2, self.bn2 = nn.Conv2d(c[1], c[2], 3, padding=1, bias=False), nn.BatchNorm2d(c[2])
        self.conv3, self.bn3 = nn.Conv2d(c[2], c[3], 3, padding=1, bias=False), nn.BatchNorm2d(c[3])
        self.conv4, self.bn4 = nn.Conv2d(c[3], c[4], 3, padding=1, bias=False), nn.BatchNorm2d(c[4])
        self.conv5, self.bn5 = nn.Conv2d(c[4], c[5], 3, padding=1, bias=False), nn.BatchNorm2d(c[5])
        self.conv6, self.bn6 = nn.Conv2d(c[5], c[6], 3, padding=1, bias=False), nn.BatchNorm2d(c[6])
        self.conv7 = nn.Conv2d(c[6], c[7], (height // 16, 3), padding=(0, 1), bias=False)
        self.bn7 = nn.BatchNorm2d(c[7])
        self.pool = nn.MaxPool2d(2)
        self.pool_height = nn.MaxPool2d((2, 1))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Return features (N, 320, 1, T)."""
        # ReLU after pooling gives the same as before it, on fewer numbers.
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.pool(self.bn2(self.conv2(x))))
        x = self.relu(self.bn3(self.conv3(x)))
        x = self.relu(self.pool_height(self.bn4(self.conv4(x))))
        x = self.relu(self.bn5(self.conv5(x)))
        x = self.relu(self.pool_height(self.bn6(self.conv6(x))))
        features: Tensor = self.relu(self.bn7(self.conv7(x)))
        return features


class SeparableConv(nn.Module):
    """Depthwise and pointwise convolution (Howard et al. 2017, arXiv 1704.04861), normalised, added where it fits."""

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
    """A third of a compact CNN's work: (N, C, H, W) to (N, 256, 1, W/4), 32x100 gives 25 columns; H is 32 or 48."""

    channels = SEPARABLE_HEAD

    def __init__(self, channels: int, height: int = 32) -> None:
        super().__init__()
        self.conv1 = ConvNorm(channels, SEPARABLE_STEM, 3, stride=2)
        inputs = (SEPARABLE_STEM, *(outputs for _, outputs, _ in SEPARABLE_BLOCKS))
        self.blocks = nn.Sequential(*(SeparableConv(inputs[i], *row) for i, row in enumerate(SEPARABLE_BLOCKS)))
        self.conv2 = nn.Conv2d(SEPARABLE_HEAD, SEPARABLE_HEAD, (height // 16, 1), bias=False)
        self.bn2 = nn.BatchNorm2d(SEPARABLE_HEAD)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Return features (N, 256, 1, T)."""
        x = self.blocks(self.relu(self.conv1(x)))
        features: Tensor = self.relu(self.bn2(self.conv2(x)))
        return features


class Vgg7(nn.Module):
    """MindOCR's backbone rec_vgg7: (N, C, 32, W) to (N, 512, 1, W/4 - 1), 32x100 gives 24 columns."""

    channels = VGG7[-1]

    def __init__(self, channels: int, padded: bool = False) -> None:
        super().__init__()
        c, eps = (channels, *VGG7), NORM_EPSILON if padded else VGG7_EPSILON
        self.conv1 = nn.Conv2d(c[0], c[1], 3, padding=1)
        self.conv2 = nn.Conv2d(c[1], c[2], 3, padding=1)
        self.conv3, self.bn3 = nn.Conv2d(c[2], c[3], 3, padding=1), nn.BatchNorm2d(c[3], eps)
        self.conv4 = nn.Conv2d(c[3], c[4], 3, padding=1)
        self.conv5, self.bn5 = nn.Conv2d(c[4], c[5], 3, padding=1), nn.BatchNorm2d(c[5], eps)
        self.conv6 = nn.Conv2d(c[5], c[6], 3, padding=1)
        self.conv7, self.bn7 = nn.Conv2d(c[6], c[7], 2), nn.BatchNorm2d(c[7], eps)
        self.pool = nn.MaxPool2d(2)
        self.pool_height = nn.MaxPool2d(2, (2, 1), (0, 1)) if padded else nn.MaxPool2d((2, 1))
        self.relu = nn.ReLU(inplace=True)
        for layer in self.modules():
            (_start_from_normals if padded else _start_from_cut_normals)(layer)

    def forward(self, x: Tensor) -> Tensor:
        """Return features (N, 512, 1, T)."""
        x = self.relu(self.pool(self.conv1(x)))
        x = self.relu(self.pool(self.conv2(x)))
        x = self.relu(self.bn3(self.conv3(x)))
        x = self.relu(self.pool_height(self.conv4(x)))
        x = self.relu(self.bn5(self.conv5(x)))
        x = self.relu(self.pool_height(self.conv6(x)))
        features: Tensor = self.relu(self.bn7(self.conv7(x)))
        return features


class Vgg7Padded(Vgg7):
    """The CNN of the CRNN in Ascend's ModelZoo-PyTorch: (N, C, 32, W) to (N, 512, 1, W/4 + 1), 32x100 gives 26."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, padded=True)


class Vgg7Dtrb(nn.Module):
    """DTRB's VGG (Baek et al. 2019): (N, C, 32, W) to (N, 512, 1, W/4 - 1), 32x100 gives 24 columns."""

    channels = VGG7[-1]

    def __init__(self, channels: int) -> None:
        super().__init__()
        c = (channels, *VGG7)
        self.conv1 = nn.Conv2d(c[0], c[1], 3, padding=1)
        self.conv2 = nn.Conv2d(c[1], c[2], 3, padding=1)
        self.conv3 = nn.Conv2d(c[2], c[3], 3, padding=1)
        self.conv4 = nn.Conv2d(c[3], c[4], 3, padding=1)
        self.conv5, self.bn5 = nn.Conv2d(c[4], c[5], 3, padding=1, bias=False), nn.BatchNorm2d(c[5])
        self.conv6, self.bn6 = nn.Conv2d(c[5], c[6], 3, padding=1, bias=False), nn.BatchNorm2d(c[6])
        self.conv7 = nn.Conv2d(c[6], c[7], 2)
        self.pool = nn.MaxPool2d(2)
        self.pool_height = nn.MaxPool2d((2, 1))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Return features (N, 512, 1, T)."""
        x = self.relu(self.pool(self.conv1(x)))
        x = self.relu(self.pool(self.conv2(x)))
        x = self.relu(self.conv3(x))
        x = self.relu(self.pool_height(self.conv4(x)))
        x = self.relu(self.bn5(self.conv5(x)))
        x = self.relu(self.pool_height(self.bn6(self.conv6(x))))
        features: Tensor = self.relu(self.conv7(x))
        return features


def _start_from_cut_normals(layer: nn.Module) -> None:
    """Fill a convolution as MindOCR does, with MindSpore's TruncatedNormal: cut at two deviations."""
    if isinstance(layer, nn.Conv2d) and layer.bias is not None:
        nn.init.trunc_normal_(layer.weight, std=VGG7_WEIGHTS, a=-2 * VGG7_WEIGHTS, b=2 * VGG7_WEIGHTS)
        nn.init.trunc_normal_(layer.bias, std=VGG7_BIASES, a=-2 * VGG7_BIASES, b=2 * VGG7_BIASES)


def _start_from_normals(layer: nn.Module) -> None:
    """Fill weights as DCGAN does (Radford et al. 2015, arXiv 1511.06434), and after it many a CRNN."""
    if isinstance(layer, nn.Conv2d):
        nn.init.normal_(layer.weight, 0.0, NORMALS)
    elif isinstance(layer, nn.BatchNorm2d):
        nn.init.normal_(layer.weight, 1.0, NORMALS)


class ViewsCnn(nn.Module):
    """One network for four square views: (N, C, 128, 512) to (N, 128, 1, 64), 32 channels of each view in turn.

    The views go through it as one batch, so batch normalisation sees all of them together; the published code
    takes one after the other.
    """

    channels = VIEWS * VIEWS_CNN[-1]

    def __init__(self, channels: int) -> None:
        super().__init__()
        c = (channels, *VIEWS_CNN)
        self.conv1 = nn.Conv2d(c[0], c[1], 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(c[1], c[2], 3, padding=1, bias=False)
        self.conv3, self.bn3 = nn.Conv2d(c[2], c[3], 3, padding=1, bias=False), nn.BatchNorm2d(c[3])
        self.conv4 = nn.Conv2d(c[3], c[4], 3, padding=1, bias=False)
        self.conv5, self.bn5 = nn.Conv2d(c[4], c[5], 3, padding=1, bias=False), nn.BatchNorm2d(c[5])
        self.conv6 = nn.Conv2d(c[5], c[6], 3, padding=1, bias=False)
        self.conv7, self.bn7 = nn.Conv2d(c[6], c[7], 3, padding=1, bias=False), nn.BatchNorm2d(c[7])
        self.conv8 = nn.Conv2d(c[7], c[8], 3, padding=1, bias=False)
        self.conv9, self.bn9 = nn.Conv2d(c[8], c[9], 3, padding=1, bias=False), nn.BatchNorm2d(c[9])
        self.conv10 = nn.Conv2d(c[9], c[10], 3, padding=1, bias=False)
        self.conv11, self.bn11 = nn.Conv2d(c[10], c[11], 2, bias=False), nn.BatchNorm2d(c[11])
        self.pool = nn.MaxPool2d(2)
        self.pool_height = nn.MaxPool2d((2, 1))
        self.relu = nn.ReLU(inplace=True)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Return features (N, 128, 1, 64); ValueError for a picture that is not four squares side by side."""
        _, channels, height, width = x.shape
        check_views(height, width)
        views = x.reshape(-1, channels, height, VIEWS, height).permute(0, 3, 1, 2, 4)
        features = self.read(views.reshape(-1, channels, height, height))
        return features.reshape(-1, self.channels, 1, features.shape[3])

    def read(self, x: Tensor) -> Tensor:
        """Return features (N, 32, 1, 64) of single views (N, C, 128, 128)."""
        x = self.relu(self.pool(self.conv1(x)))
        x = self.relu(self.pool_height(self.conv2(x)))
        x = self.relu(self.bn3(self.conv3(x)))
        x = self.relu(self.pool_height(self.conv4(x)))
        x = self.relu(self.bn5(self.conv5(x)))
        x = self.relu(self.pool_height(self.conv6(x)))
        x = self.relu(self.bn7(self.conv7(x)))
        x = self.relu(self.pool_height(self.conv8(x)))
        x = self.relu(self.bn9(self.conv9(x)))
        x = self.relu(self.pool_height(self.conv10(x)))
        features: Tensor = self.relu(self.bn11(self.conv11(functional.pad(x, (0, 1)))))
        return features


AnySize = Compact | Separable | Vgg7 | Vgg7Dtrb | ResNet34Vd | MobileNetV3 | ViewsCnn
Backbone = AnySize | SvtrTiny

BACKBONES: dict[str, type[AnySize]] = {
    "compact": Compact, "separable": Separable, "vgg7": Vgg7, "vgg7_padded": Vgg7Padded, "vgg7_dtrb": Vgg7Dtrb,
    "resnet34_vd": ResNet34Vd, "resnet34_vd_padded": ResNet34VdPadded, "mobilenet_v3": MobileNetV3,
    "views_cnn": ViewsCnn,
}  # fmt: skip


def build_backbone(name: str, channels: int, height: int, width: int) -> Backbone:
    """Return a backbone with fresh weights for pictures (N, channels, height, width)."""
    match name:
        case "compact":
            return Compact(channels, height)
        case "separable":
            return Separable(channels, height)
        case "svtr_tiny":
            return SvtrTiny(channels, height, width)
    return BACKBONES[name](channels)
