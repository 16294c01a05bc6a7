"""The recognisers in MindSpore: one class for each part that a recipe names."""

import mindspore as ms
from mindspore import Tensor, nn, ops
from mindspore.common.initializer import TruncatedNormal

from components.recognition.recipe import Data, Model


class Compact(nn.Cell):
    """A small backbone for processors: (N, C, 32, W) to (N, 320, 1, W/4), 32x100 gives 25 columns."""

    channels = 320

    def __init__(self, channels: int) -> None:
        super().__init__()
        # The first layer halves the picture both ways, which saves most of the work of a VGG.
        self.conv1, self.bn1 = _conv(channels, 32, 4, padding=1, stride=2), _norm(32)
        self.conv2, self.bn2 = _conv(32, 48, 3, padding=1), _norm(48)
        self.conv3, self.bn3 = _conv(48, 96, 3, padding=1), _norm(96)
        self.conv4, self.bn4 = _conv(96, 96, 3, padding=1), _norm(96)
        self.conv5, self.bn5 = _conv(96, 192, 3, padding=1), _norm(192)
        self.conv6, self.bn6 = _conv(192, 256, 3, padding=1), _norm(256)
        self.conv7, self.bn7 = _conv(256, 320, (2, 3), padding=(0, 0, 1, 1)), _norm(320)
        self.pool = nn.MaxPool2d(2, 2)
        self.pool_height = nn.MaxPool2d((2, 1), (2, 1))

    def construct(self, x: Tensor) -> Tensor:
        """Return features (N, 320, 1, T)."""
        x = ops.relu(self.bn1(self.conv1(x)))
        x = self.pool(ops.relu(self.bn2(self.conv2(x))))
        x = ops.relu(self.bn3(self.conv3(x)))
        x = self.pool_height(ops.relu(self.bn4(self.conv4(x))))
        x = ops.relu(self.bn5(self.conv5(x)))
        x = self.pool_height(ops.relu(self.bn6(self.conv6(x))))
        return ops.relu(self.bn7(self.conv7(x)))


class Vgg7(nn.Cell):
    """MindOCR's backbone rec_vgg7: (N, C, 32, W) to (N, 512, 1, W/4 - 1), 32x100 gives 24 columns."""

    channels = 512

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = _biased_conv(channels, 64, 3, padding=1)
        self.conv2 = _biased_conv(64, 128, 3, padding=1)
        self.conv3, self.bn3 = _biased_conv(128, 256, 3, padding=1), _norm(256, eps=1e-4)
        self.conv4 = _biased_conv(256, 256, 3, padding=1)
        self.conv5, self.bn5 = _biased_conv(256, 512, 3, padding=1), _norm(512, eps=1e-4)
        self.conv6 = _biased_conv(512, 512, 3, padding=1)
        self.conv7, self.bn7 = _biased_conv(512, 512, 2, padding=0), _norm(512, eps=1e-4)
        self.pool = nn.MaxPool2d(2, 2)
        self.pool_height = nn.MaxPool2d((2, 1), (2, 1))

    def construct(self, x: Tensor) -> Tensor:
        """Return features (N, 512, 1, T)."""
        x = self.pool(ops.relu(self.conv1(x)))
        x = self.pool(ops.relu(self.conv2(x)))
        x = ops.relu(self.bn3(self.conv3(x)))
        x = self.pool_height(ops.relu(self.conv4(x)))
        x = ops.relu(self.bn5(self.conv5(x)))
        x = self.pool_height(ops.relu(self.conv6(x)))
        return ops.relu(self.bn7(self.conv7(x)))


class BiLstm(nn.Cell):
    """The neck: stacked bidirectional LSTMs over the columns, (N, C, 1, T) to (N, T, 2 * hidden)."""

    def __init__(self, channels: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.rnn = nn.LSTM(channels, hidden, layers, bidirectional=True)

    def construct(self, x: Tensor) -> Tensor:
        """Return features (N, T, 2 * hidden)."""
        # In fp32 on processors, where it has no half-precision kernel (the twin trains in bfloat16); fp16 on Ascend.
        columns, _ = self.rnn(x.astype(ms.float32).squeeze(2).transpose(2, 0, 1))
        return columns.transpose(1, 0, 2)


class CRNN(nn.Cell):
    """Shi et al. 2015 (arXiv 1507.05717): backbone, neck and a linear head that CTC reads."""

    def __init__(self, backbone: Compact | Vgg7, neck: BiLstm, hidden: int, classes: int) -> None:
        super().__init__()
        self.backbone, self.neck = backbone, neck
        self.head = nn.Dense(2 * hidden, classes)

    def construct(self, images: Tensor) -> Tensor:
        """Return logits (N, T, classes) float32 of normalised images (N, C, H, W) float32."""
        return self.head(self.neck(self.backbone(images)))


def build(model: Model, data: Data, classes: int) -> CRNN:
    """Build the recogniser of a recipe with fresh weights, in training mode; ValueError for what is not built yet."""
    if model.name != "crnn":
        raise ValueError(f"model.name: '{model.name}' is not built yet, expected crnn")
    if model.backbone not in BACKBONES:
        raise ValueError(f"model.backbone: '{model.backbone}' is not built yet, expected one of {', '.join(BACKBONES)}")
    if data.height != 32:
        raise ValueError(f"data.height is {data.height}, expected 32: backbone {model.backbone} ends in one row of 32")
    backbone = BACKBONES[model.backbone](data.channels)
    neck = BiLstm(backbone.channels, model.hidden, model.layers)
    net = CRNN(backbone, neck, model.hidden, classes)
    net.set_train()
    return net


def count_frames(net: CRNN, data: Data) -> int:
    """Return T, how many columns the recogniser makes of a picture."""
    training = net.training
    images = ops.zeros((1, data.channels, data.height, data.width))
    features = net.set_train(False).backbone(images)
    net.set_train(training)  # in training mode the batch of zeros would have moved the running statistics
    return int(features.shape[3])


# MindSpore's own defaults differ from PyTorch's, so padding, bias, momentum and epsilon are all spelt out.
def _conv(
    inputs: int, outputs: int, kernel: int | tuple[int, int], padding: int | tuple[int, int, int, int], stride: int = 1
) -> nn.Conv2d:
    """Return a convolution without bias; four paddings are top, bottom, left and right."""
    return nn.Conv2d(inputs, outputs, kernel, stride, pad_mode="pad", padding=padding, has_bias=False)


def _biased_conv(inputs: int, outputs: int, kernel: int, padding: int) -> nn.Conv2d:
    """Return a convolution with bias, initialised as MindOCR does; the normal is cut at two deviations."""
    weight, bias = TruncatedNormal(0.02), TruncatedNormal(0.01)
    return nn.Conv2d(
        inputs, outputs, kernel, pad_mode="pad", padding=padding, has_bias=True, weight_init=weight, bias_init=bias
    )


def _norm(channels: int, eps: float = 1e-5) -> nn.BatchNorm2d:
    """Return a batch normalisation; momentum is the old statistics' share here, PyTorch's 0.1."""
    return nn.BatchNorm2d(channels, eps=eps, momentum=0.9)


BACKBONES: dict[str, type[Compact | Vgg7]] = {"compact": Compact, "vgg7": Vgg7}
