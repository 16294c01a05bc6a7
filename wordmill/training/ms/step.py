"""A training step as two compiled graphs: a part's gradients, and the update by their mean over parts and processes."""

from itertools import groupby

import mindspore as ms
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops
from mindspore.ops.auto_generate import SplitWithSize

from wordmill.models.ms.model import EncoderDecoder, Recogniser
from wordmill.models.ms.parameters import statistics, trained_names
from wordmill.training.constants import GROWTH_INTERVAL
from wordmill.training.ms.losses import CtcLosses, FrameLosses, SequenceLosses, as_written
from wordmill.training.ms.optimisers import Optimiser, assigned, each

ROW = 1024  # numbers that are summed up at a time
flattened, shaped = ops.MultitypeFuncGraph("flattened"), ops.MultitypeFuncGraph("shaped")


@flattened.register("Tensor")
def _flattened(gradient: Tensor) -> Tensor:
    return gradient.reshape(-1)


@shaped.register("Tensor", "Tensor")
def _shaped(piece: Tensor, weight: Parameter) -> Tensor:
    return piece.reshape(weight.shape)


class Objective(nn.Cell):
    """The loss of a batch as it comes from the shards; pictures are normalised on the device."""

    def __init__(self, net: Recogniser, middle: float, flat_start: bool = False, guide: float = 0.0) -> None:
        super().__init__()
        self.net = net
        self.middle = middle
        self.writes = isinstance(net, EncoderDecoder)
        self.losses = SequenceLosses() if self.writes else CtcLosses()
        self.flat_start, self.frame_losses = flat_start, FrameLosses()
        self.guide, self.guided, self.written_losses = guide, guide > 0, SequenceLosses()
        self.drops = net.drops and not self.writes

    def construct(
        self, images: Tensor, classes: Tensor, lengths: Tensor, weights: Tensor, forced: Tensor, seeds: Tensor,
        frames: Tensor, flat: Tensor,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Return sum(weights * losses) and the logits (N, T, C) of images (N, H, W, C) uint8 and their targets."""
        x = ((images.astype(ms.float32) - self.middle) / self.middle).transpose(0, 3, 1, 2)
        if self.guided:
            told = as_written(classes, lengths)
            logits, written = self.net(x, seeds, told)
        elif self.drops:
            logits = self.net(x, seeds)
        else:
            logits = self.net(x, classes, forced, seeds) if self.writes and self.training else self.net(x)
        losses = self.losses(logits, classes, lengths)
        if self.flat_start:
            losses = losses + flat * (self.frame_losses(logits, frames) - losses)
        if self.guided:
            losses = losses + self.guide * self.written_losses(written, told, lengths + 1)
        return (losses * weights).sum(), logits


class LossScale(nn.Cell):
    """What losses are multiplied by so that float16 gradients do not vanish.

    A dynamic one is halved, to 1 at least, where gradients are not finite and doubled after GROWTH_INTERVAL steps
    in a row that were, as MindOCR's.
    """

    def __init__(self, start: float, dynamic: bool) -> None:
        super().__init__()
        self.dynamic = dynamic
        self.value = Parameter(Tensor(start, ms.float32), name="scale", requires_grad=False)
        self.finite_steps = Parameter(Tensor(0.0, ms.float32), name="finite_steps", requires_grad=False)

    def construct(self, finite: Tensor) -> Tensor:
        """Take the step in, of which `finite` tells whether its gradients are; return the next scale."""
        if self.dynamic:
            steps = self.finite_steps + 1.0
            grows = ops.logical_and(finite, steps >= GROWTH_INTERVAL)
            counts = ops.logical_and(finite, steps < GROWTH_INTERVAL)
            fallen = ops.where(finite, self.value, ops.maximum(self.value / 2.0, Tensor(1.0, ms.float32)))
            ops.assign(self.value, ops.where(grows, 2.0 * self.value, fallen))
            ops.assign(self.finite_steps, ops.where(counts, steps, ops.zeros_like(steps)))
        return self.value


class Gradients(nn.Cell):
    """The gradients of one part of a batch, times the loss scale."""

    def __init__(self, objective: Objective, scale: LossScale) -> None:
        super().__init__()
        self.objective = objective
        self.scale = scale.value
        self.gradient = ops.value_and_grad(self.scaled, None, ParameterTuple(objective.net.trainable_params()))

    def scaled(self, share: Tensor, *batch: Tensor) -> Tensor:
        """Return the loss of what Objective takes times the part's share and the loss scale."""
        return self.objective(*batch)[0] * share * self.scale

    def construct(self, counted: Tensor, mean: Tensor, asked: Tensor, *batch: Tensor) -> Tensor:
        """Return all gradients one behind the other, the loss, both scaled, and `asked` (2,): one float32 vector.

        One vector, so that parts are added, the network is asked and the norm is taken once each. `counted` (1,) is of
        how many things the part's loss is the mean, `mean` (1,) the mean of that over all parts of all processes,
        `batch` what Objective takes. The loss is weighted before its gradients are taken: synchronised batch
        normalisation mixes those of processes.
        """
        share = (counted / mean).reshape(())
        loss, gradients = self.gradient(share, *batch)
        return ops.concat((*each(flattened, gradients), loss.reshape(1), asked))


class Update(nn.Cell):
    """The optimiser's update on all processes; gradients that are not finite change nothing but the loss scale."""

    def __init__(
        self, net: Recogniser, optimiser: Optimiser, scale: LossScale, clip_norm: float, parts: int, processes: int,
        by_part: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        names = [name.partition(".")[0] for name in trained_names(net)]
        runs = [(part, len(list(run))) for part, run in groupby(names)] if by_part else []
        # Of the parts that have rates of their own, in the order of their parameters; how many these are.
        self.parts, self.counts = [part for part, _ in runs], tuple(count for _, count in runs)
        self.parameters = len(names)
        self.optimiser, self.scale = optimiser, scale
        self.clip_norm = clip_norm
        self.divisor = float(parts * processes)
        self.total = ops.AllReduce() if processes > 1 else nn.Identity()
        # Running statistics are moved by a step's forward pass, before anybody knows what comes of it.
        self.statistics = ParameterTuple(statistics(net).values())
        self.kept = self.statistics.clone(prefix="kept", init="same")
        self.sizes = tuple(parameter.size for parameter in optimiser.parameters)
        self.split = SplitWithSize()
        self.filling = ROW - sum(self.sizes) % ROW

    def construct(self, vector: Tensor, rate: Tensor) -> Tensor:
        """Return the loss's mean, the norm of the gradients and how much any process asks for, (4,) float32.

        `vector` is the sum over the process's parts of what Gradients returns, `rate` a scalar float32, or that of
        each of `parts`.
        """
        vector = self.total(vector) / (self.scale.value * self.divisor)
        rest = vector[-3:]
        # By rows: on processors MindSpore tries how many threads are best for a sum of all, and each count rounds
        # otherwise, so that a run that goes on would not be the undisturbed one.
        squares = ops.concat([vector[:-3] * vector[:-3], ops.zeros(self.filling, ms.float32)])
        norm = ops.sqrt(squares.reshape(-1, ROW).sum(axis=1).sum())
        finite = ops.isfinite(norm)
        if finite:
            if self.clip_norm > 0:
                vector = vector * ops.minimum(self.clip_norm / (norm + 1e-6), Tensor(1.0, ms.float32))
            means = each(shaped, self.split(vector[:-3], self.sizes, 0), self.optimiser.parameters)
            rates = () if self.counts else (rate,) * self.parameters
            for place, count in enumerate(self.counts):
                rates = rates + (rate[place],) * count
            self.optimiser(means, rates)
            each(assigned, self.kept, self.statistics)
        else:
            each(assigned, self.statistics, self.kept)
        self.scale(finite)
        return ops.concat([rest[:1], norm.reshape(1), rest[1:]])


class Frozen(nn.Cell):
    """The running statistics of a part that is frozen, which are put back after each step."""

    def __init__(self, net: Recogniser, update: Update, part: str) -> None:
        super().__init__()
        self.part = part
        own = [place for place, name in enumerate(statistics(net)) if name.partition(".")[0] == part]
        self.statistics = ParameterTuple([update.statistics[place] for place in own])
        self.kept = ParameterTuple([update.kept[place] for place in own])
        self.held = self.statistics.clone(prefix=f"held_{part}", init="same")

    def begin(self) -> None:
        """Hold the statistics as they are now."""
        for held, parameter in zip(self.held, self.statistics, strict=True):
            ops.assign(held, parameter)

    def construct(self, result: Tensor) -> Tensor:
        """Put the statistics back, and return the step's result."""
        each(assigned, self.statistics, self.held)
        each(assigned, self.kept, self.held)
        return result
