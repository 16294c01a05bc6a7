"""MindSpore for these tests, in a process that PyTorch's tests share.

Its oneDNN reads its limit once, at its first primitive. The variable is taken back then, or PyTorch's oneDNN
would be held to it too. What the package itself sets stays.
"""

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import numpy as np

from wordmill.recipe import frameworks
from wordmill.recipe.sections import Data, Model, Train

DATA = {
    channels: Data(train=("a",), val=("b",), charset="lower36", height=32, width=100, channels=channels)
    for channels in (1, 3)
}
COMPACT = Model(name="crnn", backbone="compact", neck="bilstm", hidden=32, layers=1)
VGG7 = Model(name="crnn", backbone="vgg7", neck="bilstm", hidden=256, layers=2)
TRAIN = Train(framework="mindspore", epochs=1, global_batch=16, loss="ctc_by_length", optimizer="adamw", lr=1e-3,
              warmup_epochs=0.0, weight_decay=0.01, amp="O0", seed=7, clip_norm=5.0)  # fmt: skip

importlib.import_module("wordmill.models.ms")
with mock.patch.dict(os.environ):
    frameworks.twin("mindspore", "models.predict").open_device("cpu")
    import mindspore as ms

    ms.runtime.launch_blocking()

    ms.nn.Conv2d(1, 1, 3)(ms.Tensor(np.zeros((1, 1, 4, 4), dtype=np.float32)))


@contextmanager
def cell_by_cell() -> Iterator[None]:
    """Compile nothing within: MindSpore takes each operation as it comes."""
    ms.set_context(mode=ms.PYNATIVE_MODE)
    try:
        yield
    finally:
        ms.set_context(mode=ms.GRAPH_MODE)
