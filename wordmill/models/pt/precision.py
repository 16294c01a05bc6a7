"""The precision that a recogniser computes in.

amp O0 computes in float32 everywhere, on cuda too (`_keep_float32` in predict.py). O1, O2 and O3 are one in PyTorch:
weights, their gradients and the optimiser are float32, and autocast picks the type of each operation:

- half: convolutions, linear layers and LSTMs of backbone and neck; what lies between them keeps the type that it has
- float32: batch normalisation's statistics and sums, the grid of rectification, decoders, the head, the losses

half is bfloat16 on cpu (float32 where the processor has no unit for it or oneDNN may not use it), on cuda from
compute capability 8.0 on and on the npus that have it (910B); float16 on older ones, whose small gradients the loss
scale keeps.
"""

import functools
import os

import torch
from torch import nn

LIMITS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")  # the variables that hold oneDNN to fewer instructions


def choose_precision(amp: str, device: str) -> tuple[torch.dtype, str]:
    """Return the type that convolutions and the LSTM compute in, and its description for the record."""
    if amp == "O0":
        return torch.float32, "float32"
    if device == "cpu":
        return _choose_on_cpu()
    half = torch.bfloat16 if torch.get_device_module(device).is_bf16_supported() else torch.float16
    return half, f"{str(half).removeprefix('torch.')} autocast, channels_last"


def _choose_on_cpu() -> tuple[torch.dtype, str]:
    # Without a unit for it, bfloat16 is emulated and slower than float32.
    units = [unit for unit in ("amx_bf16", "avx512_bf16") if torch.cpu.get_capabilities().get(unit)]
    if not units:
        return torch.float32, "float32: this processor has no bfloat16 unit"
    if not has_bfloat16():
        held = [f"({name}={os.environ[name]})" for name in LIMITS if name in os.environ]
        return torch.float32, " ".join(["float32: oneDNN has no bfloat16 LSTM here", *held])
    return torch.bfloat16, f"bfloat16 autocast by {units[0]}, channels_last"


@functools.cache
def has_bfloat16() -> bool:
    """Tell whether oneDNN, which may be held to less than the processor can, makes the smallest step in bfloat16.

    The LSTM is given float32, which autocast casts: one of bfloat16 is not oneDNN's where PyTorch doubts the processor.
    """
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.enable_grad():
        convolution, lstm = nn.Conv2d(16, 16, 3), nn.LSTM(16, 16, bidirectional=True)
        try:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                outputs = convolution(torch.ones(1, 16, 3, 3)), lstm(torch.ones(2, 1, 16))[0]
            torch.autograd.backward([output.float().sum() for output in outputs])
        except RuntimeError:
            return False
    return True
