"""A backbone of two layers, the twin of that in MindSpore."""

from torch import Tensor, nn


class Shallow(nn.Module):
    """Stands for the compact backbone: (N, C, 32, W) to (N, 12, 1, W/4)."""

    channels = 12

    def __init__(self, channels: int, height: int = 32) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, 8, 4, stride=4, bias=False), nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 12, (height // 4, 3), padding=(0, 1), bias=False)
        self.bn2 = nn.BatchNorm2d(12)

    def forward(self, x: Tensor) -> Tensor:
        """Return features (N, 12, 1, T)."""
        features: Tensor = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu())).relu()
        return features
