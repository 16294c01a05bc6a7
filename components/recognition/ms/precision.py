"""The precision that a recogniser computes in."""

import mindspore as ms
from mindspore import nn

from components.recognition.ms.model import Recogniser


def choose_precision(amp: str, device: str) -> tuple[bool, str]:
    """Return whether convolutions compute in float16, and the description of the precision for the record."""
    if amp == "O0":
        return False, "float32"
    if device == "cpu":
        return False, f"float32: MindSpore {ms.__version__} has no fast half precision on processors"
    normalisation = "float32" if amp == "O2" else "float16"
    return True, f"float16 backbone, batch normalisation in {normalisation}"


def halve(net: Recogniser, amp: str) -> None:
    """Let the backbone compute in float16, with O2 all but its batch normalisation; parameters stay float32."""
    net.backbone.to_float(ms.float16)
    for _, cell in net.backbone.cells_and_names():
        if amp == "O2" and isinstance(cell, nn.BatchNorm2d):
            cell.to_float(ms.float32)
