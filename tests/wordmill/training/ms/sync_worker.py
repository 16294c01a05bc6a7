"""One of two processes that compare synchronised batch normalisation with one process's: msrun ... sync_worker.py FILE.

The file gets the largest relative difference of any gradient and the largest difference of any running statistic.
"""

import json
import sys
from pathlib import Path

if not __package__:  # msrun starts a file, not a module
    sys.path.insert(0, str(Path(__file__).resolve().parents[4]))

import mindspore as ms
import numpy as np
from mindspore import nn, ops
from mindspore.communication import get_rank, init

from wordmill.models.ms.predict import open_device
from wordmill.models.ms.resnet import BasicBlock
from wordmill.store.children import die_with_parent
from wordmill.training.ms.sync import synchronise

SAMPLES = 8


def gradients(net: nn.Cell, images: np.ndarray, slopes: np.ndarray) -> list[ms.Tensor]:
    """Return the gradients of sum(slopes * features)."""

    def total(x: ms.Tensor) -> ms.Tensor:
        return (net(x) * ms.Tensor(slopes)).sum()

    found: list[ms.Tensor] = ops.grad(total, None, ms.ParameterTuple(net.trainable_params()))(ms.Tensor(images))
    return found


def main(path: Path) -> None:
    """Compare and, in the first process, write the differences."""
    die_with_parent()
    open_device("cpu")
    init()
    ms.set_seed(1)  # both begin with the same weights
    # Each block has two layers of as many channels beside each other, whose sums must not be taken for each other's.
    alone, together = (
        nn.SequentialCell(*(BasicBlock(inputs, 8, (2, 1), projects=True) for inputs in (6, 8))).set_train()
        for _ in range(2)
    )
    rng, rank = np.random.default_rng(0), get_rank()
    for one, other in zip(alone.get_parameters(), together.get_parameters(), strict=True):
        ops.assign(other, one * 1.0)
    images = rng.normal(size=(SAMPLES, 6, 16, 10)).astype(np.float32)
    slopes = rng.normal(size=(SAMPLES, 8, 4, 10)).astype(np.float32)
    expected = gradients(alone, images, slopes)
    synchronise(together, "cpu", 2)
    together.set_train()
    rows, total = slice(rank * SAMPLES // 2, (rank + 1) * SAMPLES // 2), ops.AllReduce()
    found = [total(gradient).asnumpy() for gradient in gradients(together, images[rows], slopes[rows])]
    pairs = [(right, left.asnumpy()) for right, left in zip(found, expected, strict=True)]
    kept = zip(alone.get_parameters(), together.get_parameters(), strict=True)
    differences = {
        "gradients": max(float(np.abs(right - left).max() / np.abs(left).max()) for right, left in pairs),
        "statistics": max(float(np.abs(left.asnumpy() - right.asnumpy()).max()) for left, right in kept),
    }
    if rank == 0:
        path.write_text(json.dumps(differences))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
