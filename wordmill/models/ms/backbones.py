"""Backbones in MindSpore: from normalised pictures (N, C, H, W) to features (N, channels, 1, T)."""

from mindspore import Tensor, nn, ops
from mindspore.common.initializer import HeNormal, Normal, TruncatedNormal, initializer

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
from wordmill.models.ms.layers import ConvNorm, conv, norm
from wordmill.models.ms.mobilenet import MobileNetV3
from wordmill.models.ms.resnet import ResNet34Vd, ResNet34VdPadded
from wordmill.models.ms.svtr import SvtrTiny


class Compact(nn.Cell):
    """A small backbone for processors: (N, C, H, W) to (N, 320, 1, W/4), 32x100 gives 25 columns; H is 32 or 48."""

    channels = COMPACT[-1]

    def __init__(self, channels: int, height: int = 32) -> None:
        super().__init__()
        c = (channels, *COMPACT)
        # The first layer halves the picture both ways, which saves most of the work of a VGG.
        self.conv1, self.bn1 = conv(c[0], c[1], 4, padding=1, stride=2), norm(c[1])
        self.conv2, self.bn2 = conv(c[1], c[2], 3, padding=1), norm(c[2])
        self.conv3, self.bn3 = conv(c[2], c[3], 3, padding=1), norm(c[3])
        self.conv4, self.bn4 = conv(c[3], c[4], 3, padding=1), norm(c[4])
        self.conv5, self.bn5 = conv(c[4], c[5], 3, padding=1), norm(c[5])
        self.conv6, self.bn6 = conv(c[5], c[6], 3, padding=1), norm(c[6])
        self.conv7, self.bn7 = conv(c[6], c[7], (height // 16, 3), padding=(0, 0, 1, 1)), norm(c[7])
        self.pool = nn.MaxPool2d(2, 2)
        self.pool_height = nn.MaxPool2d((2, 1), (2, 1))

    def columns(self, width: int) -> int:
        """Return T for pictures of a width."""
        return width // 2 // 2

    def construct(self, x: Tensor) -> Tensor:
        """Return features (N, 320, 1, T)."""
        x = ops.relu(self.bn1(self.conv1(x)))
        x = self.pool(ops.relu(self.bn2(self.conv2(x))))
        x = ops.relu(self.bn3(self.conv3(x)))
        x = self.pool_height(ops.relu(self.bn4(self.conv4(x))))
        x = ops.relu(self.bn5(self.conv5(x)))
        x = self.pool_height(ops.relu(self.bn6(self.conv6(x))))
        return ops.relu(self.bn7(self.conv7(x)))


class SeparableConv(nn.Cell):
    """Depthwise and pointwise convolution (Howard et al. 2017, arXiv 1704.04861), normalised, added where it fits."""

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
    """A third of a compact CNN's work: (N, C, H, W) to (N, 256, 1, W/4), 32x100 gives 25 columns; H is 32 or 48."""

    channels = SEPARABLE_HEAD

    def __init__(self, channels: int, height: int = 32) -> None:
        super().__init__()
        self.conv1 = ConvNorm(channels, SEPARABLE_STEM, 3, stride=2)
        inputs = (SEPARABLE_STEM, *(outputs for _, outputs, _ in SEPARABLE_BLOCKS))
        self.blocks = nn.SequentialCell(*(SeparableConv(inputs[i], *row) for i, row in enumerate(SEPARABLE_BLOCKS)))
        self.conv2 = conv(SEPARABLE_HEAD, SEPARABLE_HEAD, (height // 16, 1), padding=0)
        self.bn2 = norm(SEPARABLE_HEAD)

    def columns(self, width: int) -> int:
        """Return T for pictures of a width."""
        return (width + 3) // 4

    def construct(self, x: Tensor) -> Tensor:
        """Return features (N, 256, 1, T)."""
        x = self.blocks(ops.relu(self.conv1(x)))
        return ops.relu(self.bn2(self.conv2(x)))


class Vgg7(nn.Cell):
    """MindOCR's backbone rec_vgg7: (N, C, 32, W) to (N, 512, 1, W/4 - 1), 32x100 gives 24 columns."""

    channels = VGG7[-1]

    def __init__(self, channels: int, padded: bool = False) -> None:
        super().__init__()
        c, eps = (channels, *VGG7), NORM_EPSILON if padded else VGG7_EPSILON
        self.conv1 = conv(c[0], c[1], 3, padding=1, bias=True)
        self.conv2 = conv(c[1], c[2], 3, padding=1, bias=True)
        self.conv3, self.bn3 = conv(c[2], c[3], 3, padding=1, bias=True), norm(c[3], eps)
        self.conv4 = conv(c[3], c[4], 3, padding=1, bias=True)
        self.conv5, self.bn5 = conv(c[4], c[5], 3, padding=1, bias=True), norm(c[5], eps)
        self.conv6 = conv(c[5], c[6], 3, padding=1, bias=True)
        self.conv7, self.bn7 = conv(c[6], c[7], 2, padding=0, bias=True), norm(c[7], eps)
        self.pool = nn.MaxPool2d(2, 2)
        self.pool_height = PaddedPool() if padded else nn.MaxPool2d((2, 1), (2, 1))
        self.added = 2 if padded else 0  # columns, by both of them
        for layer in self.cells():
            (_start_from_normals if padded else _start_from_cut_normals)(layer)

    def columns(self, width: int) -> int:
        """Return T for pictures of a width."""
        return width // 2 // 2 + self.added - 1

    def construct(self, x: Tensor) -> Tensor:
        """Return features (N, 512, 1, T)."""
        x = self.pool(ops.relu(self.conv1(x)))
        x = self.pool(ops.relu(self.conv2(x)))
        x = ops.relu(self.bn3(self.conv3(x)))
        x = self.pool_height(ops.relu(self.conv4(x)))
        x = ops.relu(self.bn5(self.conv5(x)))
        x = self.pool_height(ops.relu(self.conv6(x)))
        return ops.relu(self.bn7(self.conv7(x)))


class Vgg7Padded(Vgg7):
    """The CNN of the CRNN in Ascend's ModelZoo-PyTorch: (N, C, 32, W) to (N, 512, 1, W/4 + 1), 32x100 gives 26."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, padded=True)


class Vgg7Dtrb(nn.Cell):
    """DTRB's VGG (Baek et al. 2019): (N, C, 32, W) to (N, 512, 1, W/4 - 1), 32x100 gives 24 columns."""

    channels = VGG7[-1]

    def __init__(self, channels: int) -> None:
        super().__init__()
        c = (channels, *VGG7)
        self.conv1 = conv(c[0], c[1], 3, padding=1, bias=True)
        self.conv2 = conv(c[1], c[2], 3, padding=1, bias=True)
        self.conv3 = conv(c[2], c[3], 3, padding=1, bias=True)
        self.conv4 = conv(c[3], c[4], 3, padding=1, bias=True)
        self.conv5, self.bn5 = conv(c[4], c[5], 3, padding=1), norm(c[5])
        self.conv6, self.bn6 = conv(c[5], c[6], 3, padding=1), norm(c[6])
        self.conv7 = conv(c[6], c[7], 2, padding=0, bias=True)
        self.pool = nn.MaxPool2d(2, 2)
        self.pool_height = nn.MaxPool2d((2, 1), (2, 1))

    def columns(self, width: int) -> int:
        """Return T for pictures of a width."""
        return width // 2 // 2 - 1

    def construct(self, x: Tensor) -> Tensor:
        """Return features (N, 512, 1, T)."""
        x = self.pool(ops.relu(self.conv1(x)))
        x = self.pool(ops.relu(self.conv2(x)))
        x = ops.relu(self.conv3(x))
        x = self.pool_height(ops.relu(self.conv4(x)))
        x = ops.relu(self.bn5(self.conv5(x)))
        x = self.pool_height(ops.relu(self.bn6(self.conv6(x))))
        return ops.relu(self.conv7(x))


class PaddedPool(nn.Cell):
    """Largest of 2x2 by stride (2, 1) with a column at either side: (N, C, H, W) to (N, C, H/2, W + 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.pad = nn.Pad(((0, 0), (0, 0), (0, 0), (1, 1)))
        self.pool = nn.MaxPool2d(2, (2, 1))

    def construct(self, x: Tensor) -> Tensor:
        """Return the maxima of what ReLU left, of which zeros are never more than the largest."""
        return self.pool(self.pad(x))


def _start_from_cut_normals(layer: nn.Cell) -> None:
    """Fill a convolution as MindOCR does, with normals that are cut at two deviations."""
    if isinstance(layer, nn.Conv2d):
        # MindSpore 2.9 takes the bounds as values, not in deviations as it documents: its default cuts nothing here.
        for parameter, sigma in ((layer.weight, VGG7_WEIGHTS), (layer.bias, VGG7_BIASES)):
            parameter.set_data(initializer(TruncatedNormal(sigma, a=-2 * sigma, b=2 * sigma), parameter.shape))


def _start_from_normals(layer: nn.Cell) -> None:
    """Fill weights as DCGAN does (Radford et al. 2015, arXiv 1511.06434), and after it many a CRNN."""
    if isinstance(layer, nn.Conv2d):
        layer.weight.set_data(initializer(Normal(NORMALS), layer.weight.shape))
    elif isinstance(layer, nn.BatchNorm2d):
        layer.gamma.set_data(initializer(Normal(NORMALS, mean=1.0), layer.gamma.shape))


class ViewsCnn(nn.Cell):
    """One network for four square views: (N, C, 128, 512) to (N, 128, 1, 64), 32 channels of each view in turn.

    The views go through it as one batch, so batch normalisation sees all of them together; the published code
    takes one after the other.
    """

    channels = VIEWS * VIEWS_CNN[-1]

    def __init__(self, channels: int) -> None:
        super().__init__()
        c = (channels, *VIEWS_CNN)
        self.conv1 = conv(c[0], c[1], 3, padding=1)
        self.conv2 = conv(c[1], c[2], 3, padding=1)
        self.conv3, self.bn3 = conv(c[2], c[3], 3, padding=1), norm(c[3])
        self.conv4 = conv(c[3], c[4], 3, padding=1)
        self.conv5, self.bn5 = conv(c[4], c[5], 3, padding=1), norm(c[5])
        self.conv6 = conv(c[5], c[6], 3, padding=1)
        self.conv7, self.bn7 = conv(c[6], c[7], 3, padding=1), norm(c[7])
        self.conv8 = conv(c[7], c[8], 3, padding=1)
        self.conv9, self.bn9 = conv(c[8], c[9], 3, padding=1), norm(c[9])
        self.conv10 = conv(c[9], c[10], 3, padding=1)
        self.conv11, self.bn11 = conv(c[10], c[11], 2, padding=(0, 0, 0, 1)), norm(c[11])
        self.pool = nn.MaxPool2d(2, 2)
        self.pool_height = nn.MaxPool2d((2, 1), (2, 1))
        for layer in self.cells():
            if isinstance(layer, nn.Conv2d):
                layer.weight.set_data(initializer(HeNormal(nonlinearity="relu"), layer.weight.shape))

    def columns(self, width: int) -> int:
        """Return T for pictures of a width, four views of which pooling halves."""
        return width // VIEWS // 2

    def construct(self, x: Tensor) -> Tensor:
        """Return features (N, 128, 1, 64); ValueError for a picture that is not four squares side by side."""
        _, channels, height, width = x.shape
        check_views(height, width)
        views = x.reshape(-1, channels, height, VIEWS, height).transpose(0, 3, 1, 2, 4)
        features = self.read(views.reshape(-1, channels, height, height))
        return features.reshape(-1, self.channels, 1, features.shape[3])

    def read(self, x: Tensor) -> Tensor:
        """Return features (N, 32, 1, 64) of single views (N, C, 128, 128)."""
        x = self.pool(ops.relu(self.conv1(x)))
        x = self.pool_height(ops.relu(self.conv2(x)))
        x = ops.relu(self.bn3(self.conv3(x)))
        x = self.pool_height(ops.relu(self.conv4(x)))
        x = ops.relu(self.bn5(self.conv5(x)))
        x = self.pool_height(ops.relu(self.conv6(x)))
        x = ops.relu(self.bn7(self.conv7(x)))
        x = self.pool_height(ops.relu(self.conv8(x)))
        x = ops.relu(self.bn9(self.conv9(x)))
        x = self.pool_height(ops.relu(self.conv10(x)))
        return ops.relu(self.bn11(self.conv11(x)))


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
