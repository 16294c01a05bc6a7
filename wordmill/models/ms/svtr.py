"""SVTR-Tiny in MindSpore, a backbone that mixes patches by attention (Du et al. 2022, arXiv 2205.00159)."""

import mindspore as ms
from mindspore import Parameter, Tensor, nn, ops

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
from wordmill.models.ms.layers import ConvNorm, Dropout, conv

Grid = tuple[int, int]  # rows and columns of patches


class SvtrTiny(nn.Cell):
    """MindOCR's SVTRNet of SVTR-Tiny: (N, C, 32, W) to (N, 192, 1, W/4), 32x100 gives 25 columns.

    Where a patch lies is among its weights, so that they are for one size.
    """

    channels = SVTR_COLUMNS

    def __init__(self, channels: int, height: int, width: int) -> None:
        super().__init__()
        rows, columns = height // SVTR_PATCH, width // SVTR_PATCH
        first = SVTR_STAGES[0][0]
        self.embed1, self.embed2 = ConvNorm(channels, first // 2, 3, 2), ConvNorm(first // 2, first, 3, 2)
        self.gelu = nn.GELU()  # by tanh
        self.patches = rows * columns
        self.positions = Parameter(ops.zeros((1, rows * columns, first), ms.float32), name="positions")
        self.blocks, self.merges = nn.CellList(), nn.CellList()
        for stage, (width_of, depth, heads) in enumerate(SVTR_STAGES):
            if stage:
                self.merges.append(Merge(SVTR_STAGES[stage - 1][0], width_of, (rows, columns)))
                rows //= 2
            for _ in range(depth):
                self.blocks.append(MixingBlock(len(self.blocks), width_of, heads, (rows, columns)))
        self.size = rows, columns
        self.norm = nn.LayerNorm((SVTR_STAGES[-1][0],), epsilon=SVTR_EPSILON)
        self.conv = conv(SVTR_STAGES[-1][0], SVTR_COLUMNS, 1, padding=0)
        self.dropout = Dropout(SVTR_DROPOUT)

    def columns(self, width: int) -> int:
        """Return T for pictures of a width, which the weights are for."""
        return width // SVTR_PATCH

    def construct(self, x: Tensor, seeds: Tensor | None = None) -> Tensor:
        """Return features (N, 192, 1, T); while training, what is left out goes by seeds (N,) int32."""
        x = self.gelu(self.embed2(self.gelu(self.embed1(x))))
        x = x.reshape(-1, SVTR_STAGES[0][0], self.patches).transpose(0, 2, 1) + self.positions
        number = 0
        for stage, (_, depth, _) in enumerate(SVTR_STAGES):
            if stage:
                x = self.merges[stage - 1](x)
            for _ in range(depth):
                x = self.blocks[number](x, seeds)
                number += 1
        x = self.norm(x).transpose(0, 2, 1).reshape(-1, SVTR_STAGES[-1][0], *self.size).mean(2, keep_dims=True)
        x = ops.hardswish(self.conv(x))
        if seeds is not None:
            x = self.dropout(x, seeds, 2 * len(self.blocks))
        return x


class MixingBlock(nn.Cell):
    """A mixing block: attention among patches and two dense layers, each added to what it was given."""

    def __init__(self, number: int, channels: int, heads: int, size: Grid) -> None:
        super().__init__()
        self.number, self.heads, self.patches, self.width = number, heads, size[0] * size[1], channels // heads
        self.norm1 = nn.LayerNorm((channels,), epsilon=SVTR_EPSILON)
        self.norm2 = nn.LayerNorm((channels,), epsilon=SVTR_EPSILON)
        self.qkv, self.proj = nn.Dense(channels, 3 * channels), nn.Dense(channels, channels)
        self.fc1, self.fc2 = nn.Dense(channels, SVTR_WIDER * channels), nn.Dense(SVTR_WIDER * channels, channels)
        self.gelu = nn.GELU()
        self.skip = Dropout(skipped_share(number)) if number else None
        self.multiply = ops.BatchMatMul()
        self.mask = Tensor(window_mask(*size)) if number < SVTR_LOCAL else None

    def construct(self, x: Tensor, seeds: Tensor | None = None) -> Tensor:
        """Return patches (N, patches, channels) mixed."""
        x = x + self.kept(self.mix(self.norm1(x)), seeds, 2 * self.number)
        return x + self.kept(self.fc2(self.gelu(self.fc1(self.norm2(x)))), seeds, 2 * self.number + 1)

    def mix(self, x: Tensor) -> Tensor:
        """Return what attention makes of patches (N, patches, channels), of those in a window alone or of all."""
        qkv = self.qkv(x).reshape(-1, self.patches, 3, self.heads, self.width).transpose(2, 0, 3, 1, 4)
        scores = self.multiply(qkv[0] * self.width**-0.5, qkv[1].transpose(0, 1, 3, 2))
        if self.mask is not None:
            scores = scores + self.mask.astype(scores.dtype)
        mixed = self.multiply(ops.softmax(scores, axis=3), qkv[2]).transpose(0, 2, 1, 3)
        return self.proj(mixed.reshape(-1, self.patches, self.heads * self.width))

    def kept(self, x: Tensor, seeds: Tensor | None, salt: int) -> Tensor:
        """Return x, while training with whole samples zeroed: stochastic depth (Huang et al., arXiv 1603.09382)."""
        if self.skip is None or seeds is None or not self.training:
            return x
        return x * self.skip.masks(seeds, ops.full((1,), salt, dtype=ms.int32), 1).astype(x.dtype)


class Merge(nn.Cell):
    """Halves the rows of patches: (N, rows * columns, C) to (N, rows / 2 * columns, outputs)."""

    def __init__(self, channels: int, outputs: int, size: Grid) -> None:
        super().__init__()
        self.channels, self.size = channels, size
        self.outputs, self.patches = outputs, size[0] // 2 * size[1]
        self.conv = conv(channels, outputs, 3, 1, (2, 1))
        self.norm = nn.LayerNorm((outputs,), epsilon=SVTR_MERGE_EPSILON)

    def construct(self, x: Tensor) -> Tensor:
        """Return the merged patches."""
        x = self.conv(x.transpose(0, 2, 1).reshape(-1, self.channels, *self.size))
        return self.norm(x.reshape(-1, self.outputs, self.patches).transpose(0, 2, 1))
