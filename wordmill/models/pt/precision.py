"""The precision that a recogniser computes in.

amp O0 computes in float32 everywhere. O1, O2 and O3 are one in PyTorch: weights, their gradients and the optimiser are
float32, and autocast picks the type of each operation:

- half: convolutions, linear layers and LSTMs of backbone and neck; what lies between them keeps the type that it has
- float32: batch normalisation's statistics and sums, the grid of rectification, decoders, the head, the losses

half is bfloat16 on cpu (float32 where the processor has no unit for it or oneDNN may not use it), on cuda from
compute capability 8.0 on and on the npus that have it (910B); float16 on older ones, whose small gradients the loss
scale keeps.
"""

import torch
from torch import nn


def choose_precision(amp: str, device: str) -> tuple[torch.dtype, str]:
    """Return the type that convolutions and the LSTM compute in, and its description for the record."""
    if amp == "O0":
        return torch.float32, "float32"
    if device == "cpu":
        return _choose_on_cpu()
    half = torch.bfloat16 if torch.get_device_module(device).is_bf16_supported() else torch.float16
    return half, f"{str(half).removeprefix('torch.')} autocast, channels_last"
