"""Batch normalisation by the statistics of all processes (Peng et al. 2018, arXiv 1711.07240, 3.2)."""

from mindspore import Tensor, nn, ops

from wordmill.models.ms.model import Recogniser


class Synced(nn.BatchNorm2d):
    """Batch normalisation over equal batches of so many processes on processors, where MindSpore has none.

    Means are taken first and then the squares' of what is left, which rounding does not spoil; gradients pass through
    both sums to all processes.
    """

    def __init__(self, channels: int, eps: float, momentum: float, processes: int) -> None:
        super().__init__(channels, eps=eps, momentum=momentum)
        self.total, self.processes = ops.AllReduce(), processes

    def construct(self, x: Tensor) -> Tensor:
        """Return features (N, C, H, W) of the same."""
        if not self.training:
            return self.bn_infer(x, self.gamma, self.beta, self.moving_mean, self.moving_variance)[0]
        count = self.processes * x.size // x.shape[1]
        mean = self.total(x.mean((0, 2, 3))) / self.processes
        centred = x - mean.reshape(1, -1, 1, 1)
        variance = self.total((centred * centred).mean((0, 2, 3))) / self.processes
        # `momentum` is the new statistics' share in here.
        unbiased = variance * (count / (count - 1))
        ops.assign(self.moving_mean, self.moving_mean + self.momentum * (mean - self.moving_mean))
        ops.assign(self.moving_variance, self.moving_variance + self.momentum * (unbiased - self.moving_variance))
        factor = self.gamma * ops.rsqrt(variance + self.eps)
        return centred * factor.reshape(1, -1, 1, 1) + self.beta.reshape(1, -1, 1, 1)


def synchronise(net: Recogniser, device: str, processes: int) -> None:
    """Put synchronised batch normalisation in the place of each layer's own; parameters stay the same."""
    for _, cell in list(net.cells_and_names()):
        for name, layer in list(cell.name_cells().items()):
            if isinstance(layer, nn.BatchNorm2d):
                setattr(cell, name, _synced(layer, device, processes))
    for name, parameter in net.parameters_and_names():
        parameter.name = name  # which MindSpore shortens in a layer that is put in later


def _synced(layer: nn.BatchNorm2d, device: str, processes: int) -> nn.Cell:
    momentum = 1.0 - layer.momentum
    if device == "cpu":
        synced: nn.Cell = Synced(layer.num_features, layer.eps, momentum, processes)
    else:
        synced = nn.SyncBatchNorm(layer.num_features, layer.eps, momentum)
    for name, parameter in layer.parameters_and_names():
        setattr(synced, name, parameter)
    return synced
