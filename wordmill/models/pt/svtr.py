"""SVTR-Tiny in PyTorch, a backbone that mixes patches by attention (Du et al. 2022, arXiv 2205.00159)."""

import torch
from torch import Tensor, nn

from wordmill.models.architectures import (
    SVTR_COLUMNS,
    SVTR_DROPOUT,
    SVTR_EPSILON,
    SVTR_LOCAL,
    SVTR_MERGE_EPSILON,
    SVTR_PATCH,
    SVTR_STAGES,
    SVTR_WIDER,
    skipped_share,
    window_mask,
)  # fmt: skip
from wordmill.models.pt.layers import ConvNorm, Dropout

Grid = tuple[int, int]  # rows and columns of patches


class SvtrTiny(nn.Module):
    """MindOCR's SVTRNet of SVTR-Tiny: (N, C, 32, W) to (N, 192, 1, W/4), 32x100 gives 25 columns.

    Where a patch lies is among its weights, so that they are for one size.
    """

    channels = SVTR_COLUMNS

    def __init__(self, channels: int, height: int, width: int) -> None:
        super().__init__()
        rows, columns = height // SVTR_PATCH, width // SVTR_PATCH
        first = SVTR_STAGES[0][0]
        self.embed1, self.embed2 = ConvNorm(channels, first // 2, 3, 2), ConvNorm(first // 2, first, 3, 2)
        self.gelu = nn.GELU(approximate="tanh")  # as MindSpore's own
        self.positions = nn.Parameter(torch.zeros(1, rows * columns, first))
        self.blocks, self.merges = nn.ModuleList(), nn.ModuleList()
        for stage, (width_of, depth, heads) in enumerate(SVTR_STAGES):
            if stage:
                self.merges.append(Merge(SVTR_STAGES[stage - 1][0], width_of, (rows, columns)))
                rows //= 2
            for _ in range(depth):
                self.blocks.append(MixingBlock(len(self.blocks), width_of, heads, (rows, columns)))
        self.size = rows, columns
        self.norm = nn.LayerNorm(SVTR_STAGES[-1][0], SVTR_EPSILON)
        self.conv = nn.Conv2d(SVTR_STAGES[-1][0], SVTR_COLUMNS, 1, bias=False)
        self.dropout = Dropout(SVTR_DROPOUT)

    def forward(self, x: Tensor, seeds: Tensor | None = None) -> Tensor:
        """Return features (N, 192, 1, T); while training, what is left out goes by seeds (N,) int32."""
        x = self.gelu(self.embed2(self.gelu(self.embed1(x))))
        x = x.flatten(2).transpose(1, 2) + self.positions
        number = 0
        for stage, (_, depth, _) in enumerate(SVTR_STAGES):
            if stage:
                x = self.merges[stage - 1](x)
            for _ in range(depth):
                x = self.blocks[number](x, seeds)
                number += 1
        x = self.norm(x).transpose(1, 2).reshape(-1, SVTR_STAGES[-1][0], *self.size).mean(2, keepdim=True)
        x = nn.functional.hardswish(self.conv(x))
        if seeds is not None:
            x = self.dropout(x, seeds, 2 * len(self.blocks))
        return x


class MixingBlock(nn.Module):
    """A mixing block: attention among patches and two dense layers, each added to what it was given."""

    mask: Tensor | None

    def __init__(self, number: int, channels: int, heads: int, size: Grid) -> None:
        super().__init__()
        self.number, self.heads, self.patches, self.width = number, heads, size[0] * size[1], channels // heads
        self.norm1, self.norm2 = nn.LayerNorm(channels, SVTR_EPSILON), nn.LayerNorm(channels, SVTR_EPSILON)
        self.qkv, self.proj = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)
        self.fc1, self.fc2 = nn.Linear(channels, SVTR_WIDER * channels), nn.Linear(SVTR_WIDER * channels, channels)
        self.gelu = nn.GELU(approximate="tanh")
        self.skip = Dropout(skipped_share(number)) if number else None
        mask = torch.from_numpy(window_mask(*size)) if number < SVTR_LOCAL else None
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x: Tensor, seeds: Tensor | None = None) -> Tensor:
        """Return patches (N, patches, channels) mixed."""
        x = x + self.kept(self.mix(self.norm1(x)), seeds, 2 * self.number)
        return x + self.kept(self.fc2(self.gelu(self.fc1(self.norm2(x)))), seeds, 2 * self.number + 1)

    def mix(self, x: Tensor) -> Tensor:
        """Return what attention makes of patches (N, patches, channels), of those in a window alone or of all."""
        qkv = self.qkv(x).reshape(-1, self.patches, 3, self.heads, self.width).permute(2, 0, 3, 1, 4)
        scores = torch.matmul(qkv[0] * self.width**-0.5, qkv[1].transpose(2, 3))
        if self.mask is not None:
            scores = scores + self.mask
        mixed = torch.matmul(scores.softmax(3), qkv[2]).transpose(1, 2)
        projected: Tensor = self.proj(mixed.reshape(-1, self.patches, self.heads * self.width))
        return projected

    def kept(self, x: Tensor, seeds: Tensor | None, salt: int) -> Tensor:
        """Return x, while training with whole samples zeroed: stochastic depth (Huang et al., arXiv 1603.09382)."""
        if self.skip is None or seeds is None or not self.training:
            return x
        salts = torch.full((1,), salt, dtype=torch.int32, device=x.device)
        return x * self.skip.masks(seeds, salts, 1).to(x.dtype)


class Merge(nn.Module):
    """Halves the rows of patches: (N, rows * columns, C) to (N, rows / 2 * columns, outputs)."""

    def __init__(self, channels: int, outputs: int, size: Grid) -> None:
        super().__init__()
        self.channels, self.size = channels, size
        self.conv = nn.Conv2d(channels, outputs, 3, (2, 1), 1, bias=False)
        self.norm = nn.LayerNorm(outputs, SVTR_MERGE_EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        """Return the merged patches."""
        x = self.conv(x.transpose(1, 2).reshape(-1, self.channels, *self.size))
        merged: Tensor = self.norm(x.flatten(2).transpose(1, 2))
        return merged
