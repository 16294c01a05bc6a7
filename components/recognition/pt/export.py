"""Export of a trained recogniser to ONNX."""

import warnings
from pathlib import Path

import onnx
import torch

from components.recognition.checkpoint import Checkpoint
from components.recognition.decoding import codec_of
from components.recognition.pt.model import build
from components.recognition.pt.weights import load

OPSET = 17


def export_onnx(checkpoint: Checkpoint, path: Path) -> None:
    """Write a checked ONNX file: `images` (N, C, H, W) float32 normalised to `logits` (N, T, classes), any N."""
    data = checkpoint.data
    net = build(checkpoint.model, data, codec_of(checkpoint.model, data).classes).eval()
    load(net, checkpoint.tensors, str(path))
    temporary = path.with_name(f"{path.name}.part")
    with warnings.catch_warnings():
        # It warns that it is deprecated, but CANN's atc does not read what its successor writes (IR 10), and of an
        # LSTM's batch size, which the graph takes from its input's shape.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net,
            (torch.zeros(2, data.channels, data.height, data.width),),
            str(temporary),
            dynamo=False,
            opset_version=OPSET,
            input_names=["images"],
            output_names=["logits"],
            dynamic_axes={"images": {0: "N"}, "logits": {0: "N"}},
        )
    onnx.checker.check_model(str(temporary), full_check=True)
    temporary.replace(path)
