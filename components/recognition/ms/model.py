"""The CRNN (Shi, Bai and Yao, 2015) in MindSpore: backbone, bidirectional LSTM, CTC head."""

from mindspore import Tensor, nn, ops
from mindspore.common.initializer import TruncatedNormal

from components.recognition.recipe import Data, Model

HEIGHT = 32  # rows that the backbones reduce to one


def _conv(inputs: int, outputs: int, kernel: int | tuple[int, int], padding: tuple[int, int], stride: int = 1) -> nn.Conv2d:
    """Return a convolution without bias; the padding is (rows, columns) on each side."""
    around = (padding[0], padding[0], padding[1], padding[1])
    return nn.Conv2d(inputs, outputs, kernel, stride=stride, pad_mode="pad", padding=around, has_bias=False)


def _norm(channels: int, eps: float) -> nn.BatchNorm2d:
    """Return a batch normalisation; MindSpore's momentum weighs the old value, 0.9 here is 0.1 in PyTorch."""
    return nn.BatchNorm2d(channels, eps=eps, momentum=0.9)


def _pool(rows: int, columns: int) -> nn.MaxPool2d:
    """Return a max pooling whose stride is its window."""
    return nn.MaxPool2d(kernel_size=(rows, columns), stride=(rows, columns), pad_mode="valid")


class Compact(nn.Cell):
    """Seven convolutions with batch normalisation, (N, C, 32, W) -> (N, 320, 1, W / 4); sized for processors."""

    features = 320

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = _conv(channels, 32, 4, (1, 1), stride=2)
        self.bn1 = _norm(32, 1e-5)
        self.conv2 = _conv(32, 48, 3, (1, 1))
        self.bn2 = _norm(48, 1e-5)
        self.conv3 = _conv(48, 96, 3, (1, 1))
        self.bn3 = _norm(96, 1e-5)
        self.conv4 = _conv(96, 96, 3, (1, 1))
        self.bn4 = _norm(96, 1e-5)
        self.conv5 = _conv(96, 192, 3, (1, 1))
        self.bn5 = _norm(192, 1e-5)
        self.conv6 = _conv(192, 256, 3, (1, 1))
        self.bn6 = _norm(256, 1e-5)
        self.conv7 = _conv(256, 320, (2, 3), (0, 1))
        self.bn7 = _norm(320, 1e-5)
        self.halve = _pool(2, 2)
        self.flatten = _pool(2, 1)

    def construct(self, x: Tensor) -> Tensor:
        """Return the features (N, 320, 1, W / 4) of images (N, C, 32, W)."""
        x = ops.relu(self.bn1(self.conv1(x)))
        x = self.halve(ops.relu(self.bn2(self.conv2(x))))
        x = ops.relu(self.bn3(self.conv3(x)))
        x = self.flatten(ops.relu(self.bn4(self.conv4(x))))
        x = ops.relu(self.bn5(self.conv5(x)))
        x = self.flatten(ops.relu(self.bn6(self.conv6(x))))
        return ops.relu(self.bn7(self.conv7(x)))


class Vgg7(nn.Cell):
    """MindOCR's seven-layer VGG, (N, C, 32, W) -> (N, 512, 1, W / 4 - 1)."""

    features = 512

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = self._conv(channels, 64)
        self.conv2 = self._conv(64, 128)
        self.conv3 = self._conv(128, 256)
        self.bn3 = _norm(256, 1e-4)
        self.conv4 = self._conv(256, 256)
        self.conv5 = self._conv(256, 512)
        self.bn5 = _norm(512, 1e-4)
        self.conv6 = self._conv(512, 512)
        self.conv7 = self._conv(512, 512, kernel=2, padding=0)
        self.bn7 = _norm(512, 1e-4)
        self.halve = _pool(2, 2)
        self.flatten = _pool(2, 1)

    @staticmethod
    def _conv(inputs: int, outputs: int, kernel: int = 3, padding: int = 1) -> nn.Conv2d:
        return nn.Conv2d(
            inputs,
            outputs,
            kernel,
            pad_mode="pad",
            padding=padding,
            has_bias=True,
            weight_init=TruncatedNormal(0.02),
            bias_init=TruncatedNormal(0.01),
        )

    def construct(self, x: Tensor) -> Tensor:
        """Return the features (N, 512, 1, W / 4 - 1) of images (N, C, 32, W)."""
        x = self.halve(ops.relu(self.conv1(x)))
        x = self.halve(ops.relu(self.conv2(x)))
        x = ops.relu(self.bn3(self.conv3(x)))
        x = self.flatten(ops.relu(self.conv4(x)))
        x = ops.relu(self.bn5(self.conv5(x)))
        x = self.flatten(ops.relu(self.conv6(x)))
        return ops.relu(self.bn7(self.conv7(x)))


class BiLstm(nn.Cell):
    """A bidirectional LSTM along the width, (N, C, 1, T) -> (N, T, 2 * hidden)."""

    def __init__(self, inputs: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.rnn = nn.LSTM(inputs, hidden, num_layers=layers, bidirectional=True)

    def construct(self, x: Tensor) -> Tensor:
        """Return the sequence (N, T, 2 * hidden) of features (N, C, 1, T)."""
        sequence, _ = self.rnn(x.squeeze(2).transpose(2, 0, 1))
        return sequence.transpose(1, 0, 2)


class CRNN(nn.Cell):
    """Backbone, neck and a linear head: images (N, C, H, W) -> CTC logits (N, T, classes)."""

    def __init__(self, backbone: nn.Cell, neck: nn.Cell, head: nn.Cell) -> None:
        super().__init__()
        self.backbone = backbone
        self.neck = neck
        self.head = head

    def construct(self, images: Tensor) -> Tensor:
        """Return raw logits (N, T, classes) of normalised float32 images (N, C, H, W)."""
        return self.head(self.neck(self.backbone(images)))


BACKBONES: dict[str, type[Compact] | type[Vgg7]] = {"compact": Compact, "vgg7": Vgg7}


def build(model: Model, data: Data, classes: int) -> CRNN:
    """Build the recogniser of a recipe, newly initialised, in training mode."""
    if model.name != "crnn" or model.backbone not in BACKBONES:
        raise ValueError(f"model: {model.name} with backbone {model.backbone} is not built: use crnn with {', '.join(BACKBONES)}")
    if data.height != HEIGHT:
        raise ValueError(f"data.height: found {data.height}, backbone {model.backbone} needs {HEIGHT}")
    kind = BACKBONES[model.backbone]
    neck = BiLstm(kind.features, model.hidden, model.layers)
    net = CRNN(kind(data.channels), neck, nn.Dense(2 * model.hidden, classes))
    net.set_train(True)
    return net
