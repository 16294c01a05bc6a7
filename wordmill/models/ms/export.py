"""Export of a trained recogniser to MindIR."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mindspore as ms
import numpy as np

from wordmill.models.checkpoint import Checkpoint
from wordmill.models.ms.model import build
from wordmill.models.ms.weights import load_weights
from wordmill.store.files import atomic_file
from wordmill.text.decoding import codec_of


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
    with atomic_file(path, ending=".mindir") as temporary, _named_plainly(temporary) as name:
        ms.export(net, images, file_name=name, file_format="MINDIR")  # it appends .mindir to any other name


@contextmanager
def _named_plainly(path: Path) -> Iterator[str]:
    """Give a path's second name, by a link: MindSpore refuses one with a space or a letter outside ASCII."""
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder) / "link"
        link.symlink_to(path.parent.resolve())
        yield str(link / path.name)
