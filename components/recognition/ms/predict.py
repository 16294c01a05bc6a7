"""Prediction with a trained recogniser."""

import mindspore as ms
import numpy as np
import numpy.typing as npt

from components.recognition.charset import load_charset
from components.recognition.checkpoint import Checkpoint
from components.recognition.frameworks import check_device
from components.recognition.image import normalise
from components.recognition.ms.model import build
from components.recognition.ms.weights import load

TARGETS = {"cpu": "CPU", "npu": "Ascend"}


def open_device(device: str) -> None:
    """Choose the device of this process and graph mode; RuntimeError where the device is not there."""
    check_device(device)
    if device not in TARGETS:
        raise RuntimeError(f"device '{device}': MindSpore {ms.__version__} runs on {', '.join(TARGETS)}: "
                           "use one of these, or train.framework pytorch")  # fmt: skip
    try:
        ms.set_device(TARGETS[device])
    except (RuntimeError, ValueError, TypeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise RuntimeError(f"device '{device}': MindSpore {ms.__version__} cannot use it here: {reason}") from None
    ms.set_context(mode=ms.GRAPH_MODE)


class Predictor:
    """A recogniser in fp32 on one device."""

    def __init__(self, checkpoint: Checkpoint, device: str) -> None:
        open_device(device)
        data = checkpoint.data
        self.net = build(checkpoint.model, data, load_charset(data.charset).classes)
        load(self.net, checkpoint.tensors, "checkpoint")
        self.net.set_train(False)
        # A size left open: the graph is compiled once for all batches.
        self.net.set_inputs(ms.Tensor(shape=[None, data.channels, data.height, data.width], dtype=ms.float32))

    def __call__(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Return logits (N, T, classes) float32 of images (N, H, W, C) uint8."""
        logits = self.net(ms.Tensor(normalise(images)))
        return np.asarray(logits.asnumpy(), dtype=np.float32)
