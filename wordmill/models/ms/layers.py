"""Layers that several backbones in MindSpore are made of."""

import math

import mindspore as ms
from mindspore import Tensor, nn, ops
from mindspore.common.initializer import HeUniform, Uniform

from wordmill.models.architectures import MIX1, MIX2, NORM_EPSILON, PLACE, SALT


# MindSpore's own defaults differ from PyTorch's, so padding, bias, start, momentum and epsilon are all spelt out.
def conv(
    inputs: int, outputs: int, kernel: int | tuple[int, int], padding: int | tuple[int, int, int, int],
    stride: int | tuple[int, int] = 1, groups: int = 1, bias: bool = False,
) -> nn.Conv2d:  # fmt: skip
    """Return a convolution that starts as PyTorch's; four paddings are top, bottom, left and right."""
    sides = (kernel, kernel) if isinstance(kernel, int) else kernel
    bound = 1 / math.sqrt(inputs // groups * sides[0] * sides[1])
    return nn.Conv2d(
        inputs, outputs, kernel, stride, pad_mode="pad", padding=padding, group=groups, has_bias=bias,
        weight_init=HeUniform(math.sqrt(5)), bias_init=Uniform(bound),
    )  # fmt: skip


class BatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation of (N, C, H, W), without what MindSpore's does for others: each branch of it is compiled."""

    def construct(self, x: Tensor) -> Tensor:
        """Return x normalised, by the batch's statistics while training."""
        normalise = self.bn_train if self.training else self.bn_infer
        return normalise(x, self.gamma, self.beta, self.moving_mean, self.moving_variance)[0]


def norm(channels: int, eps: float = NORM_EPSILON) -> BatchNorm2d:
    """Return a batch normalisation; momentum is the old statistics' share here, PyTorch's 0.1."""
    return BatchNorm2d(channels, eps=eps, momentum=0.9)


class ConvNorm(nn.Cell):
    """A convolution without bias that keeps the size but for its stride, and batch normalisation.

    Fresh weights are the framework's own, U(-b, b) with b = 1 / sqrt(fan-in), which MindOCR relies on.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int | tuple[int, int], stride: int | tuple[int, int] = 1,
        groups: int = 1,
    ) -> None:  # fmt: skip
        super().__init__()
        height, width = kernel if isinstance(kernel, tuple) else (kernel, kernel)
        around = height // 2, height // 2, width // 2, width // 2
        self.conv = conv(inputs, outputs, (height, width), around, stride, groups)
        self.bn = norm(outputs)

    def construct(self, x: Tensor) -> Tensor:
        """Return features (N, outputs, H / stride, W / stride) of (N, inputs, H, W)."""
        return self.bn(self.conv(x))


class Dropout(nn.Cell):
    """Zeroes each value with probability p while training, and divides the others by 1 - p (Srivastava et al. 2014).

    What is zeroed depends on the sample's seed, the value's place in the sample and the salt alone, so it is the same
    in both frameworks, for any number of processes and after any restart.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.threshold, self.kept = round(p * 2**31), 1 - p

    def construct(self, x: Tensor, seeds: Tensor, salt: int) -> Tensor:
        """Return x (N, ...) with values zeroed by seeds (N,) int32; in evaluation mode x as it is."""
        if not self.training:
            return x
        salts = ops.full((1,), salt, dtype=ms.int32)
        return x * self.masks(seeds, salts, x.size // x.shape[0]).reshape(x.shape).astype(x.dtype)

    def masks(self, seeds: Tensor, salts: Tensor, size: int) -> Tensor:
        """Return the factors (N, S, size) float32 of so many values for seeds (N,) and salts (S,) int32."""
        places = ops.arange(1, size + 1, dtype=ms.int32) * PLACE
        words = seeds.reshape(-1, 1, 1) + (salts * SALT).reshape(1, -1, 1) + places
        words = _shifted(words, 16, words) * MIX1
        words = _shifted(words, 15, words) * MIX2
        words = _shifted(words, 16, words)
        return (_shifted(words, 1, ops.zeros_like(words)) >= self.threshold).astype(ms.float32) / self.kept


def _shifted(words: Tensor, bits: int, other: Tensor) -> Tensor:
    """Return `other` xor the words shifted to the right, zeros coming in from the left."""
    shifted = ops.bitwise_and(ops.bitwise_right_shift(words, bits), 2 ** (32 - bits) - 1)
    return ops.bitwise_xor(other, shifted)
