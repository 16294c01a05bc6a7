"""Prediction with a trained recogniser."""

import importlib

import numpy as np
import numpy.typing as npt
import torch

from components.recognition.charset import load_charset
from components.recognition.checkpoint import Checkpoint
from components.recognition.frameworks import check_device
from components.recognition.image import normalise
from components.recognition.pt.model import build
from components.recognition.pt.weights import load


def open_device(device: str, index: int = 0) -> torch.device:
    """Return one device of the kind that was asked for; RuntimeError where it is not there."""
    check_device(device)
    if device == "npu":
        try:
            importlib.import_module("torch_npu")
        except ImportError as error:
            raise RuntimeError(f"device 'npu': torch_npu cannot be imported ({error}): install it with CANN") from None
    if device == "cpu":
        return torch.device("cpu")
    found = torch.get_device_module(device).device_count()
    if index >= found:
        raise RuntimeError(f"device '{device}' number {index}: PyTorch {torch.__version__} sees {found} of them")
    torch.get_device_module(device).set_device(index)
    return torch.device(device, index)


class Predictor:
    """A recogniser in fp32 on one device."""

    def __init__(self, checkpoint: Checkpoint, device: str) -> None:
        self.device = open_device(device)
        self.net = build(checkpoint.model, checkpoint.data, load_charset(checkpoint.data.charset).classes)
        load(self.net, checkpoint.tensors, "checkpoint")
        self.net.to(self.device).eval()

    def __call__(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Return logits (N, T, classes) float32 of images (N, H, W, C) uint8."""
        with torch.inference_mode():
            logits = self.net(torch.from_numpy(normalise(images)).to(self.device))
        return np.asarray(logits.cpu().numpy(), dtype=np.float32)
