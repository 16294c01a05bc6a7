"""The recognisers in PyTorch: one class for each part that a recipe names."""

import torch
from torch import nn

from components.recognition.recipe import Data, Model


class Compact(nn.Module):
    """A small backbone for processors: (N, C, 32, W) to (N, 320, 1, W/4), 32x100 gives 25 columns."""

    channels = 320

    def __init__(self, channels: int) -> None:
        super().__init__()
        # The first layer halves the picture both ways, which saves most of the work of a VGG.
        self.conv1, self.bn1 = nn.Conv2d(channels, 32, 4, stride=2, padding=1, bias=False), nn.BatchNorm2d(32)
        self.conv2, self.bn2 = nn.Conv2d(32, 48, 3, padding=1, bias=False), nn.BatchNorm2d(48)
        self.conv3, self.bn3 = nn.Conv2d(48, 96, 3, padding=1, bias=False), nn.BatchNorm2d(96)
        self.conv4, self.bn4 = nn.Conv2d(96, 96, 3, padding=1, bias=False), nn.BatchNorm2d(96)
        self.conv5, self.bn5 = nn.Conv2d(96, 192, 3, padding=1, bias=False), nn.BatchNorm2d(192)
        self.conv6, self.bn6 = nn.Conv2d(192, 256, 3, padding=1, bias=False), nn.BatchNorm2d(256)
        self.conv7, self.bn7 = nn.Conv2d(256, 320, (2, 3), padding=(0, 1), bias=False), nn.BatchNorm2d(320)
        self.pool = nn.MaxPool2d(2)
        self.pool_height = nn.MaxPool2d((2, 1))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return features (N, 320, 1, T)."""
        # ReLU after pooling gives the same as before it, on fewer numbers.
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.pool(self.bn2(self.conv2(x))))
        x = self.relu(self.bn3(self.conv3(x)))
        x = self.relu(self.pool_height(self.bn4(self.conv4(x))))
        x = self.relu(self.bn5(self.conv5(x)))
        x = self.relu(self.pool_height(self.bn6(self.conv6(x))))
        features: torch.Tensor = self.relu(self.bn7(self.conv7(x)))
        return features


class Vgg7(nn.Module):
    """MindOCR's backbone rec_vgg7: (N, C, 32, W) to (N, 512, 1, W/4 - 1), 32x100 gives 24 columns."""

    channels = 512

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 64, 3, padding=1)
        self.conv2 = nn.Conv2d(64, 128, 3, padding=1)
        self.conv3, self.bn3 = nn.Conv2d(128, 256, 3, padding=1), nn.BatchNorm2d(256, eps=1e-4)
        self.conv4 = nn.Conv2d(256, 256, 3, padding=1)
        self.conv5, self.bn5 = nn.Conv2d(256, 512, 3, padding=1), nn.BatchNorm2d(512, eps=1e-4)
        self.conv6 = nn.Conv2d(512, 512, 3, padding=1)
        self.conv7, self.bn7 = nn.Conv2d(512, 512, 2), nn.BatchNorm2d(512, eps=1e-4)
        self.pool = nn.MaxPool2d(2)
        self.pool_height = nn.MaxPool2d((2, 1))
        self.relu = nn.ReLU(inplace=True)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d) and layer.bias is not None:
                _truncated_normal(layer.weight, 0.02)
                _truncated_normal(layer.bias, 0.01)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return features (N, 512, 1, T)."""
        x = self.relu(self.pool(self.conv1(x)))
        x = self.relu(self.pool(self.conv2(x)))
        x = self.relu(self.bn3(self.conv3(x)))
        x = self.relu(self.pool_height(self.conv4(x)))
        x = self.relu(self.bn5(self.conv5(x)))
        x = self.relu(self.pool_height(self.conv6(x)))
        features: torch.Tensor = self.relu(self.bn7(self.conv7(x)))
        return features


class BiLstm(nn.Module):
    """The neck: stacked bidirectional LSTMs over the columns, (N, C, 1, T) to (N, T, 2 * hidden)."""

    def __init__(self, channels: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.rnn = nn.LSTM(channels, hidden, layers, bidirectional=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return features (N, T, 2 * hidden) float32; inside it computes in the precision of its input."""
        columns: torch.Tensor = self.rnn(x.squeeze(2).permute(2, 0, 1).contiguous())[0]
        return columns.float().permute(1, 0, 2)


class CRNN(nn.Module):
    """Shi et al. 2015 (arXiv 1507.05717): backbone, neck and a linear head that CTC reads."""

    def __init__(self, backbone: Compact | Vgg7, neck: BiLstm, hidden: int, classes: int) -> None:
        super().__init__()
        self.backbone, self.neck = backbone, neck
        self.head = nn.Linear(2 * hidden, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits (N, T, classes) float32 of normalised images (N, C, H, W) float32."""
        features = self.neck(self.backbone(images))
        with torch.autocast(images.device.type, enabled=False):
            logits: torch.Tensor = self.head(features)
        return logits


def build(model: Model, data: Data, classes: int) -> CRNN:
    """Build the recogniser of a recipe with fresh weights; ValueError for what is not built yet."""
    # Deliberate deviations from MindOCR's crnn_vgg7: the blank is class 0, not the last; pictures are normalised by
    # (x - 127.5) / 127.5, not (x - 127) / 127; labels that do not fit are left out, not taught as empty words.
    if model.name != "crnn":
        raise ValueError(f"model.name: '{model.name}' is not built yet, expected crnn")
    if model.backbone not in BACKBONES:
        raise ValueError(f"model.backbone: '{model.backbone}' is not built yet, expected one of {', '.join(BACKBONES)}")
    if data.height != 32:
        raise ValueError(f"data.height is {data.height}, expected 32: backbone {model.backbone} ends in one row of 32")
    backbone = BACKBONES[model.backbone](data.channels)
    neck = BiLstm(backbone.channels, model.hidden, model.layers)
    return CRNN(backbone, neck, model.hidden, classes)


def count_frames(net: CRNN, data: Data) -> int:
    """Return T, how many columns the recogniser makes of a picture."""
    training = net.training
    with torch.no_grad():
        images = torch.zeros(1, data.channels, data.height, data.width, device=net.head.weight.device)
        features = net.eval().backbone(images)
    net.train(training)  # in training mode the batch of zeros would have moved the running statistics
    return int(features.shape[3])


def _truncated_normal(weight: torch.Tensor, deviation: float) -> None:
    """Fill with MindSpore's TruncatedNormal: cut at two deviations."""
    nn.init.trunc_normal_(weight, std=deviation, a=-2 * deviation, b=2 * deviation)


BACKBONES: dict[str, type[Compact | Vgg7]] = {"compact": Compact, "vgg7": Vgg7}
