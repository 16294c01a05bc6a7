"""Export of a trained recogniser to MindIR."""

from pathlib import Path

import mindspore as ms

from components.recognition.checkpoint import Checkpoint
from components.recognition.decoding import codec_of
from components.recognition.ms.model import build
from components.recognition.ms.weights import load


def export_mindir(checkpoint: Checkpoint, path: Path) -> None:
    """Write a MindIR file: `images` (N, C, H, W) float32 normalised to logits (N, T, classes), any N."""
    data = checkpoint.data
    net = build(checkpoint.model, data, codec_of(checkpoint.model, data).classes)
    net.set_train(False)
    load(net, checkpoint.tensors, str(path))
    temporary = path.with_name(f"{path.stem}.part.mindir")  # MindSpore appends .mindir to any other name
    images = ms.Tensor(shape=[None, data.channels, data.height, data.width], dtype=ms.float32)
    ms.export(net, images, file_name=str(temporary), file_format="MINDIR")
    temporary.replace(path)
