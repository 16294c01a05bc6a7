"""Prediction with a trained recogniser."""

import numpy as np
import numpy.typing as npt
import torch

from components.recognition.charset import load_charset
from components.recognition.checkpoint import Checkpoint
from components.recognition.image import normalise
from components.recognition.pt.device import open_device
from components.recognition.pt.model import build
from components.recognition.pt.weights import load


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
