"""Layers that several backbones in PyTorch are made of."""

import torch
from torch import Tensor, nn

from wordmill.models.architectures import MIX1, MIX2, PLACE, SALT


class ConvNorm(nn.Module):
    """A convolution without bias that keeps the size but for its stride, and batch normalisation.

    Fresh weights are the framework's own, U(-b, b) with b = 1 / sqrt(fan-in), which MindOCR relies on.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int | tuple[int, int], stride: int | tuple[int, int] = 1,
        groups: int = 1,
    ) -> None:  # fmt: skip
        super().__init__()
        height, width = kernel if isinstance(kernel, tuple) else (kernel, kernel)
        around = height // 2, width // 2
        self.conv = nn.Conv2d(inputs, outputs, (height, width), stride, around, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Return features (N, outputs, H / stride, W / stride) of (N, inputs, H, W)."""
        features: Tensor = self.bn(self.conv(x))
        return features


class Dropout(nn.Module):
    """Zeroes each value with probability p while training, and divides the others by 1 - p (Srivastava et al. 2014).

    What is zeroed depends on the sample's seed, the value's place in the sample and the salt alone, so it is the same
    in both frameworks, for any number of processes and after any restart.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.threshold, self.kept = round(p * 2**31), 1 - p

    def forward(self, x: Tensor, seeds: Tensor, salt: int) -> Tensor:
        """Return x (N, ...) with values zeroed by seeds (N,) int32; in evaluation mode x as it is."""
        if not self.training:
            return x
        salts = torch.full((1,), salt, dtype=torch.int32, device=x.device)
        return x * self.masks(seeds, salts, x[0].numel()).reshape(x.shape).to(x.dtype)

    def masks(self, seeds: Tensor, salts: Tensor, size: int) -> Tensor:
        """Return the factors (N, S, size) float32 of so many values for seeds (N,) and salts (S,) int32."""
        places = torch.arange(1, size + 1, dtype=torch.int32, device=seeds.device) * PLACE
        words = seeds.reshape(-1, 1, 1) + (salts * SALT).reshape(1, -1, 1) + places
        words = (words ^ _shifted(words, 16)) * MIX1
        words = (words ^ _shifted(words, 15)) * MIX2
        words = words ^ _shifted(words, 16)
        return (_shifted(words, 1) >= self.threshold).float() / self.kept


def _shifted(words: Tensor, bits: int) -> Tensor:
    """Return the words shifted to the right, zeros coming in from the left."""
    shifted: Tensor = (words >> bits) & (2 ** (32 - bits) - 1)
    return shifted
