"""The precision that a recogniser computes in."""

import torch


def choose_precision(amp: str, device: str) -> tuple[torch.dtype, str]:
    """Return the type that convolutions and the LSTM compute in, and its description for the record."""
    if amp == "O0":
        return torch.float32, "float32"
    if device == "cpu":
        # Without a unit for it, bfloat16 is emulated and slower than float32.
        units = [unit for unit in ("amx_bf16", "avx512_bf16") if torch.cpu.get_capabilities().get(unit)]
        if units:
            return torch.bfloat16, f"bfloat16 autocast by {units[0]}, channels_last"
        return torch.float32, "float32: this processor has no bfloat16 unit"
    half = torch.bfloat16 if torch.get_device_module(device).is_bf16_supported() else torch.float16
    return half, f"{str(half).removeprefix('torch.')} autocast, channels_last"
