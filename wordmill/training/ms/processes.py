"""What the processes of a run tell each other, outside the step: arrays by name, each the same size in all."""

import numpy as np
import numpy.typing as npt
from mindspore import Tensor, nn, ops

from wordmill.models.checkpoint import Tensors

Vector = npt.NDArray[np.float32]


class Collective(nn.Cell):
    """A collective operation as a graph; MindSpore's on processors know no type but float32."""

    def __init__(self, operation: nn.Cell) -> None:
        super().__init__()
        self.operation = operation

    def construct(self, vector: Tensor) -> Tensor:
        """Return what the operation makes of a vector."""
        return self.operation(vector)


class Processes:
    """The processes of a run, this one among them; alone it tells nobody anything."""

    def __init__(self, count: int) -> None:
        self.count = count
        if count > 1:
            self.reduce, self.collect = Collective(ops.AllReduce()), Collective(ops.AllGather())
            self.broadcast = Collective(_Broadcast())

    def mean(self, vector: Tensor) -> Tensor:
        """Return the mean of a float32 vector over the processes, on the device."""
        return vector if self.count == 1 else self.reduce(vector) / self.count

    def gather(self, tensors: Tensors) -> Tensors:
        """Return every process's tensors, one behind the other: (processes, ...)."""
        if self.count == 1:
            return {name: tensor[np.newaxis] for name, tensor in tensors.items()}
        rows = self.collect(Tensor(_flat(tensors))).asnumpy().reshape(self.count, -1)
        parts = [_split(row, tensors) for row in rows]
        return {name: np.stack([part[name] for part in parts]) for name in tensors}

    def first(self, tensors: Tensors) -> Tensors:
        """Return the tensors of process 0, bit for bit."""
        if self.count == 1:
            return tensors
        inorder = {name: tensors[name] for name in sorted(tensors)}
        return _split(self.broadcast(Tensor(_flat(inorder))).asnumpy(), inorder)


class _Broadcast(nn.Cell):
    def __init__(self) -> None:
        super().__init__()
        self.broadcast = ops.Broadcast(0)

    def construct(self, vector: Tensor) -> Tensor:
        """Return the vector of process 0."""
        return self.broadcast((vector,))[0]


def _flat(tensors: Tensors) -> Vector:
    return np.concatenate([tensor.ravel() for tensor in tensors.values()])


def _split(vector: Vector, like: Tensors) -> Tensors:
    ends = np.cumsum([tensor.size for tensor in like.values()])
    parts = np.split(vector, ends[:-1])
    return {name: part.reshape(tensor.shape).copy() for (name, tensor), part in zip(like.items(), parts, strict=True)}
