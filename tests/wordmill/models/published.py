"""Recognisers of DTRB and PaddleOCR, as plain modules after their published layout, with random weights."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

Arrays = dict[str, np.ndarray]


def lively(make: Callable[[], nn.Module], gain: float) -> nn.Module:
    """Return a net for evaluation, with weights and statistics that keep activations alive, by a layer's gain."""
    torch.manual_seed(4)
    net = make()
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for tensor, low, high in ((layer.weight, 0.8, 1.2), (layer.bias, -0.1, 0.1),
                                      (layer.running_mean, -0.1, 0.1), (layer.running_var, 0.5, 1.5)):  # fmt: skip
                nn.init.uniform_(tensor, low, high)
        elif isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.normal_(layer.weight, std=gain / layer.weight[0].numel() ** 0.5)
    return net.eval()


class Recurrent(nn.Module):
    """DTRB's BidirectionalLSTM, with its linear layer."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.rnn = nn.LSTM(inputs, hidden, bidirectional=True, batch_first=True)
        self.linear = nn.Linear(2 * hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.rnn(x)[0])


class DtrbVgg(nn.Module):
    """DTRB's VGG, whose layers are counted with what lies between them."""

    def __init__(self) -> None:
        super().__init__()
        self.ConvNet = nn.Sequential(
            nn.Conv2d(1, 64, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(2, 2),
            nn.Conv2d(64, 128, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(2, 2),
            nn.Conv2d(128, 256, 3, 1, 1), nn.ReLU(),
            nn.Conv2d(256, 256, 3, 1, 1), nn.ReLU(), nn.MaxPool2d((2, 1), (2, 1)),
            nn.Conv2d(256, 512, 3, 1, 1, bias=False), nn.BatchNorm2d(512), nn.ReLU(),
            nn.Conv2d(512, 512, 3, 1, 1, bias=False), nn.BatchNorm2d(512), nn.ReLU(), nn.MaxPool2d((2, 1), (2, 1)),
            nn.Conv2d(512, 512, 2, 1, 0), nn.ReLU(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.ConvNet(x)


class Dtrb(nn.Module):
    """None-VGG-BiLSTM-CTC: blank 0, pictures (N, 1, 32, W) from -1 to 1."""

    def __init__(self, classes: int = 37, hidden: int = 256) -> None:
        super().__init__()
        self.FeatureExtraction = DtrbVgg()
        self.SequenceModeling = nn.Sequential(Recurrent(512, hidden, hidden), Recurrent(hidden, hidden, hidden))
        self.Prediction = nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        columns = self.FeatureExtraction(x).permute(0, 3, 1, 2).mean(3)
        return self.Prediction(self.SequenceModeling(columns))


class Unit(nn.Module):
    """PaddleOCR's convolution with normalisation, under the two pairs of names that its backbones give them."""

    def __init__(
        self, names: tuple[str, str], inputs: int, outputs: int, kernel: int, stride: int | tuple[int, int] = 1,
        groups: int = 1, act: str = "",
    ) -> None:  # fmt: skip
        super().__init__()
        self.names, self.act = names, act
        setattr(self, names[0], nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False))
        setattr(self, names[1], nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        x = getattr(self, self.names[1])(getattr(self, self.names[0])(x))
        return {"": x, "relu": functional.relu(x), "hs": x * functional.relu6(x + 3) / 6}[self.act]


MOBILE, RESNET = ("conv", "bn"), ("_conv", "_batch_norm")
# Kernel, channels inside and out, squeeze and excitation, activation, stride of the height.
ROWS = [
    (3, 8, 8, 0, "relu", 1), (3, 32, 16, 0, "relu", 2), (3, 40, 16, 0, "relu", 1), (5, 40, 24, 1, "relu", 2),
    (5, 64, 24, 1, "relu", 1), (5, 64, 24, 1, "relu", 1), (3, 120, 40, 0, "hs", 1), (3, 104, 40, 0, "hs", 1),
    (3, 96, 40, 0, "hs", 1), (3, 96, 40, 0, "hs", 1), (3, 240, 56, 1, "hs", 1), (3, 336, 56, 1, "hs", 1),
    (5, 336, 80, 1, "hs", 2), (5, 480, 80, 1, "hs", 1), (5, 480, 80, 1, "hs", 1),
]  # fmt: skip


class Squeeze(nn.Module):
    """Squeeze and excitation with PaddlePaddle's hard sigmoid of slope 0.2."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(channels, channels // 4, 1), nn.Conv2d(channels // 4, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.conv2(functional.relu(self.conv1(x.mean((2, 3), keepdim=True))))
        return x * (0.2 * inner + 0.5).clamp(0, 1)


class Residual(nn.Module):
    """A block of MobileNetV3."""

    def __init__(self, inputs: int, kernel: int, inner: int, outputs: int, squeezes: int, act: str, down: int) -> None:
        super().__init__()
        self.expand_conv = Unit(MOBILE, inputs, inner, 1, act=act)
        self.bottleneck_conv = Unit(MOBILE, inner, inner, kernel, (down, 1), inner, act)
        self.mid_se = Squeeze(inner) if squeezes else nn.Identity()
        self.linear_conv = Unit(MOBILE, inner, outputs, 1)
        self.adds = down == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear_conv(self.mid_se(self.bottleneck_conv(self.expand_conv(x))))
        return x + y if self.adds else y


class MobileNet(nn.Module):
    """MobileNetV3-large at half its channels, for words."""

    width = 480

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = Unit(MOBILE, 3, 8, 3, 2, act="hs")
        inputs = [8] + [row[2] for row in ROWS]
        self.blocks = nn.Sequential(*(Residual(inputs[i], *row) for i, row in enumerate(ROWS)))
        self.conv2 = Unit(MOBILE, 80, 480, 1, act="hs")

    def forward(self, x: Tensor) -> Tensor:
        return functional.max_pool2d(self.conv2(self.blocks(self.conv1(x))), 2)


class Basic(nn.Module):
    """A block of ResNet34_vd; `short` where it projects, behind an average where it strides."""

    def __init__(self, inputs: int, outputs: int, down: int, projects: bool) -> None:
        super().__init__()
        self.down = down
        self.conv0 = Unit(RESNET, inputs, outputs, 3, (down, 1), act="relu")
        self.conv1 = Unit(RESNET, outputs, outputs, 3)
        if projects:
            self.short = Unit(RESNET, inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(self.conv0(x))
        if hasattr(self, "short"):
            x = self.short(functional.avg_pool2d(x, (self.down, 1)) if self.down > 1 else x)
        return functional.relu(x + y)


class ResNet(nn.Module):
    """ResNet34_vd for words."""

    width = 512

    def __init__(self) -> None:
        super().__init__()
        self.conv1_1 = Unit(RESNET, 3, 32, 3, act="relu")
        self.conv1_2 = Unit(RESNET, 32, 32, 3, act="relu")
        self.conv1_3 = Unit(RESNET, 32, 64, 3, act="relu")
        self.order, inputs = list[str](), 64
        for stage, (outputs, depth) in enumerate([(64, 3), (128, 4), (256, 6), (512, 3)]):
            for number in range(depth):
                self.order.append(f"bb_{stage}_{number}")
                block = Basic(inputs, outputs, 2 if stage and not number else 1, not number)
                self.add_module(self.order[-1], block)
                inputs = outputs

    def forward(self, x: Tensor) -> Tensor:
        x = functional.max_pool2d(self.conv1_3(self.conv1_2(self.conv1_1(x))), 3, 2, 1)
        for name in self.order:
            x = getattr(self, name)(x)
        return functional.max_pool2d(x, 2)


class Encoder(nn.Module):
    """PaddleOCR's EncoderWithRNN."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(inputs, hidden, 2, bidirectional=True, batch_first=True)


class Paddle(nn.Module):
    """PaddleOCR's CRNN: blank 0, pictures (N, 3, 32, W) of blue, green and red from -1 to 1."""

    def __init__(self, backbone: MobileNet | ResNet, hidden: int, classes: int = 37) -> None:
        super().__init__()
        self.backbone = backbone
        self.neck = nn.ModuleDict({"encoder": Encoder(backbone.width, hidden)})
        self.head = nn.ModuleDict({"fc": nn.Linear(2 * hidden, classes)})

    def forward(self, x: Tensor) -> Tensor:
        columns = self.backbone(x).squeeze(2).permute(0, 2, 1)
        return self.head["fc"](self.neck["encoder"].lstm(columns)[0])


def dtrb_weights(net: nn.Module) -> Arrays:
    """Return a net's weights by the names in DTRB's .pth files, which DataParallel wrote."""
    return {f"module.{name}": tensor.numpy() for name, tensor in net.state_dict().items()}


def paddle_weights(net: nn.Module) -> Arrays:
    """Return a net's weights as PaddlePaddle has them: linear layers as (in, out), an LSTM's twice."""
    found: Arrays = {}
    for name, tensor in net.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        name = name.replace(".running_mean", "._mean").replace(".running_var", "._variance")
        found[name] = tensor.numpy().T.copy() if name == "head.fc.weight" else tensor.numpy()
        if ".lstm." in name:
            path, _, leaf = name.rpartition(".")
            leaf, _, way = leaf.partition("_reverse")[0], "", leaf.endswith("_reverse")
            leaf, _, layer = leaf.rpartition("_l")
            found[f"{path}.{layer}.cell_{'bw' if way else 'fw'}.{leaf}"] = tensor.numpy().copy()
    return found
