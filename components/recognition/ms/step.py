"""A training step as two compiled graphs: a part's gradients, and the update by their mean over parts and processes."""

import mindspore as ms
from mindspore import ParameterTuple, Tensor, nn, ops

from components.recognition.ms.losses import CtcLosses, SequenceLosses
from components.recognition.ms.model import EncoderDecoder, Recogniser
from components.recognition.ms.optimisers import Optimiser

LOSS_SCALE = 1024.0  # MindOCR's static one for half precision


class Objective(nn.Cell):
    """The loss of a batch as it comes from the shards; pictures are normalised on the device."""

    def __init__(self, net: Recogniser, middle: float) -> None:
        super().__init__()
        self.net = net
        self.middle = middle
        self.writes = isinstance(net, EncoderDecoder)
        self.losses = SequenceLosses() if self.writes else CtcLosses()

    def construct(
        self, images: Tensor, classes: Tensor, lengths: Tensor, weights: Tensor, forced: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return sum(weights * losses) and the logits (N, T, C) of images (N, H, W, C) uint8 and their targets."""
        x = ((images.astype(ms.float32) - self.middle) / self.middle).transpose(0, 3, 1, 2)
        logits = self.net(x, classes, forced) if self.writes and self.training else self.net(x)
        return (self.losses(logits, classes, lengths) * weights).sum(), logits


class Gradients(nn.Cell):
    """The gradients of one part of a batch, times the loss scale."""

    def __init__(self, objective: Objective, scale: float) -> None:
        super().__init__()
        self.objective = objective
        self.scale = scale
        self.gradient = ops.value_and_grad(self.scaled, None, ParameterTuple(objective.net.trainable_params()))

    def scaled(self, images: Tensor, classes: Tensor, lengths: Tensor, weights: Tensor, forced: Tensor) -> Tensor:
        """Return the loss times the loss scale."""
        return self.objective(images, classes, lengths, weights, forced)[0] * self.scale

    def construct(self, images: Tensor, classes: Tensor, lengths: Tensor, weights: Tensor, forced: Tensor) -> Tensor:
        """Return all gradients one behind the other and, last, the loss: one float32 vector, all of it scaled.

        One vector, so that parts are added, the network is asked and the norm is taken once each.
        """
        loss, gradients = self.gradient(images, classes, lengths, weights, forced)
        return ops.concat([*[gradient.reshape(-1) for gradient in gradients], loss.reshape(1)])


class Update(nn.Cell):
    """The optimiser's update on all processes; gradients that are not finite leave the parameters as they are."""

    def __init__(self, optimiser: Optimiser, clip_norm: float, scale: float, processes: int) -> None:
        super().__init__()
        self.optimiser = optimiser
        self.clip_norm = clip_norm
        self.divisor = scale * processes
        self.total = ops.AllReduce() if processes > 1 else nn.Identity()
        sizes = [parameter.size for parameter in optimiser.parameters]
        self.shapes = [tuple(parameter.shape) for parameter in optimiser.parameters]
        self.ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]

    def construct(self, vector: Tensor, rate: Tensor) -> Tensor:
        """Return the loss's mean over all processes and the norm of the gradients, (2,) float32.

        `vector` is the mean over the parts of what Gradients returns, `rate` a scalar float32.
        """
        vector = self.total(vector) / self.divisor
        loss = vector[-1]
        norm = ops.sqrt((vector[:-1] * vector[:-1]).sum())
        if ops.isfinite(norm):
            if self.clip_norm > 0:
                vector = vector * ops.minimum(self.clip_norm / (norm + 1e-6), Tensor(1.0, ms.float32))
            means = []
            start = 0
            for i in range(len(self.ends)):
                means.append(vector[start : self.ends[i]].reshape(self.shapes[i]))
                start = self.ends[i]
            rate = self.optimiser(means, rate)
        return ops.stack([loss, norm])
