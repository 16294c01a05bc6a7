"""Layers that several backbones in PyTorch are made of."""

import torch
from torch import nn


class ConvNorm(nn.Module):
    """A convolution without bias that keeps the size but for its stride, and batch normalisation.

    Fresh weights are the framework's own, U(-b, b) with b = 1 / sqrt(fan-in), which MindOCR relies on.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int | tuple[int, int] = 1, groups: int = 1
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return features (N, outputs, H / stride, W / stride) of (N, inputs, H, W)."""
        features: torch.Tensor = self.bn(self.conv(x))
        return features
