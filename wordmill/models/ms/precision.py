"""The precision that a recogniser computes in.

|                                                  | O0      | O1      | O2      | O3      |
|--------------------------------------------------|---------|---------|---------|---------|
| convolutions of the backbone                     | float32 | float16 | float16 | float16 |
| what else the backbone computes, between them    | float32 | float32 | float16 | float16 |
| its batch normalisation                          | float32 | float32 | float32 | float16 |
| convolutions and dense layers before and after   | float32 | float16 | float32 | float32 |
| head, decoder, losses, optimiser, parameters     | float32 | float32 | float32 | float32 |

Before and after the backbone: of the rectification and the neck; what they compute beside them is float32. With O1
pooling and ReLU between a convolution and the next layer are float16 too: nothing returns to float32 before it.
Recurrent layers are what the device's kernels are, float16 on Ascend, float32 elsewhere. On processors all is float32.
"""

import mindspore as ms
from mindspore import nn

from wordmill.models.ms.model import Recogniser


def choose_precision(amp: str, device: str) -> tuple[bool, str]:
    """Return whether convolutions compute in float16, and the description of the precision for the record."""
    if amp == "O0":
        return False, "float32"
    if device == "cpu":
        return False, f"float32: MindSpore {ms.__version__} has no fast half precision on processors"
    if amp == "O1":
        return True, "float16 convolutions and dense layers, all else in float32"
    normalisation = "float32" if amp == "O2" else "float16"
    return True, f"float16 backbone, batch normalisation in {normalisation}"


def halve(net: Recogniser, amp: str) -> None:
    """Let a recogniser compute in float16 what O1, O2 or O3 has in it; parameters stay float32."""
    if amp == "O1":
        for part in (net.rectifier, net.backbone, net.neck):
            for _, cell in part.cells_and_names():
                if isinstance(cell, nn.Conv2d | nn.Dense):
                    cell.to_float(ms.float16)
    else:
        net.backbone.to_float(ms.float16)
    if amp != "O3":
        for _, cell in net.cells_and_names():
            if isinstance(cell, nn.BatchNorm2d | nn.SyncBatchNorm):
                cell.to_float(ms.float32)
