"""Export of a trained recogniser to MindIR."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import mindspore as ms
import numpy as np

from wordmill.models.checkpoint import Checkpoint
from wordmill.models.ms.model import build
from wordmill.models.ms.weights import load_weights
from wordmill.store.files import usual_mode
from wordmill.text.decoding import codec_of

PLAIN = "model.mindir"  # MindSpore appends .mindir to any other name


def export_mindir(checkpoint: Checkpoint, path: Path, batch: int | None = None, any_width: bool = False) -> None:
    """Write a MindIR file: `images` (N, C, H, W) float32 normalised to logits (N, T, classes).

    batch: N, any if not given. any_width: any N and W of a CTC recogniser without rectification, T grows with W.
    """
    data = checkpoint.data
    net = build(checkpoint.model, data, codec_of(checkpoint.model, data).classes)
    net.set_train(False)
    load_weights(net, checkpoint.tensors, str(path))
    open_shape = [None, data.channels, data.height, None if any_width else data.width]
    fixed = np.zeros((batch or 1, data.channels, data.height, data.width), dtype=np.float32)
    images = ms.Tensor(fixed) if batch else ms.Tensor(shape=open_shape, dtype=ms.float32)
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=path.parent) as folder:
        with _named_plainly(folder) as name:
            ms.export(net, images, file_name=f"{name}/{PLAIN}", file_format="MINDIR")
        Path(folder, PLAIN).chmod(usual_mode(Path(folder, "usual")))
        Path(folder, PLAIN).replace(path)


@contextmanager
def _named_plainly(folder: str) -> Iterator[str]:
    """Give a folder's second name: MindSpore takes none but of ASCII letters, digits and few signs."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
