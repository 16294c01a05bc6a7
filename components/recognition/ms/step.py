"""One training step as one compiled graph: loss, gradients, their mean over processes, clipping and AdamW."""

import mindspore as ms
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from components.recognition.ms.model import CRNN

LOSS_SCALE = 1024.0  # MindOCR's static one for half precision
BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8


class Objective(nn.Cell):
    """The loss of a batch as it comes from the shards; pictures are normalised on the device."""

    def __init__(self, net: CRNN, frames: int) -> None:
        super().__init__()
        self.net = net
        self.frames = frames
        self.ctc = nn.CTCLoss(blank=0, reduction="none", zero_infinity=True)

    def construct(self, images: Tensor, classes: Tensor, lengths: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Return sum(weights * CTC losses) and the logits (N, T, C) of images (N, H, W, C) uint8 and their targets."""
        x = (images.astype(ms.float32) - 127.5) / 127.5
        logits = self.net(x.transpose(0, 3, 1, 2))
        likely = ops.log_softmax(logits, axis=2).transpose(1, 0, 2)
        losses = self.ctc(likely, classes, ops.full_like(lengths, self.frames), lengths)
        return (losses * weights).sum(), logits


class AdamW(nn.Cell):
    """AdamW (Loshchilov and Hutter, 2019) with decay on every parameter, equal to PyTorch's update."""

    def __init__(self, net: CRNN, weight_decay: float) -> None:
        super().__init__()
        self.weight_decay = weight_decay
        self.parameters = ParameterTuple(net.trainable_params())
        self.first = self.parameters.clone(prefix="first", init="zeros")
        self.second = self.parameters.clone(prefix="second", init="zeros")
        self.power1 = Parameter(Tensor(1.0, ms.float32), name="power1")
        self.power2 = Parameter(Tensor(1.0, ms.float32), name="power2")
        self.update = ops.Adam()

    def construct(self, gradients: tuple[Tensor, ...], rate: Tensor) -> Tensor:
        """Update the parameters once; `rate` is a scalar float32. Returns the rate, for what must come after."""
        ops.assign(self.power1, self.power1 * BETA1)
        ops.assign(self.power2, self.power2 * BETA2)
        # ops.Adam adds epsilon to sqrt(v) where PyTorch adds it to sqrt(v / (1 - power2)).
        epsilon = EPSILON * ops.sqrt(1.0 - self.power2)
        for i in range(len(self.parameters)):
            ops.assign(self.parameters[i], self.parameters[i] * (1.0 - rate * self.weight_decay))
            self.update(self.parameters[i], self.first[i], self.second[i], self.power1, self.power2,
                        rate, BETA1, BETA2, epsilon, gradients[i])  # fmt: skip
        return rate


class TrainStep(nn.Cell):
    """One step on all processes; a step whose gradients are not finite leaves the parameters as they are."""

    def __init__(self, objective: Objective, adamw: AdamW, clip_norm: float, scale: float, processes: int) -> None:
        super().__init__()
        self.objective = objective
        self.adamw = adamw
        self.clip_norm = clip_norm
        self.scale = scale
        self.processes = processes
        self.total = ops.AllReduce() if processes > 1 else nn.Identity()
        self.gradient = ops.value_and_grad(self.scaled, None, adamw.parameters)
        sizes = [parameter.size for parameter in adamw.parameters]
        self.shapes = [tuple(parameter.shape) for parameter in adamw.parameters]
        self.ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]

    def scaled(self, images: Tensor, classes: Tensor, lengths: Tensor, weights: Tensor) -> Tensor:
        """Return the loss times the loss scale."""
        return self.objective(images, classes, lengths, weights)[0] * self.scale

    def construct(self, images: Tensor, classes: Tensor, lengths: Tensor, weights: Tensor, rate: Tensor) -> Tensor:
        """Return the mean loss over all processes and the norm of the gradients, (2,) float32."""
        loss, gradients = self.gradient(images, classes, lengths, weights)
        # One vector, so that the network is asked once and the norm is taken once; the loss travels at its end.
        parts = [gradient.reshape(-1) for gradient in gradients]
        vector = self.total(ops.concat([*parts, loss.reshape(1)])) / (self.scale * self.processes)
        mean_loss = vector[-1]
        norm = ops.sqrt((vector[:-1] * vector[:-1]).sum())
        if ops.isfinite(norm):
            if self.clip_norm > 0:
                vector = vector * ops.minimum(self.clip_norm / (norm + 1e-6), Tensor(1.0, ms.float32))
            means = []
            start = 0
            for i in range(len(self.ends)):
                means.append(vector[start : self.ends[i]].reshape(self.shapes[i]))
                start = self.ends[i]
            rate = self.adamw(means, rate)
        return ops.stack([mean_loss, norm])
