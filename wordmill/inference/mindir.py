"""MindSpore's own runtime for exported files."""

from pathlib import Path

import mindspore as ms
import numpy as np
import numpy.typing as npt
from mindspore import nn


class MindirRuntime:
    """An exported MindIR file as a graph on the processor."""

    def __init__(self, path: Path) -> None:
        self.name = f"mindspore {ms.__version__} GraphCell, CPU"
        ms.set_device("CPU")
        ms.set_context(mode=ms.GRAPH_MODE)
        try:
            self.graph = nn.GraphCell(ms.load(str(path)))
        except (RuntimeError, ValueError, TypeError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise ValueError(f"{path}: not a readable MindIR file: {reason}") from None

    def __call__(self, images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return logits (N, T, classes) float32 of normalised images (N, C, H, W) float32."""
        return np.asarray(self.graph(ms.Tensor(images)).asnumpy(), dtype=np.float32)
