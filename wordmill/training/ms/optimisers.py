"""The optimisers of the recipes in MindSpore, equal to PyTorch's, and the moving average of the weights they make."""

from collections.abc import Sequence

import mindspore as ms
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from wordmill.models.checkpoint import Tensors
from wordmill.models.ms.model import Recogniser
from wordmill.models.ms.parameters import trained_names
from wordmill.recipe.sections import Train
from wordmill.training.constants import ADADELTA_EPSILON, AVERAGE_WARMUP, EPSILON, RHO

Slots = dict[str, ParameterTuple | Parameter]  # for each of the net's parameters, or for all of them


def penalised(gradients: Sequence[Tensor], parameters: ParameterTuple, decays: tuple[float, ...]) -> Sequence[Tensor]:
    """Return the gradients with the L2 penalty's added."""
    return [gradients[i] + decays[i] * parameters[i] for i in range(len(decays))]


class Adam(nn.Cell):
    """Adam (Kingma and Ba, 2015) with the L2 penalty, or AdamW (Loshchilov and Hutter, 2019) with decoupled decay."""

    def __init__(
        self, parameters: ParameterTuple, decays: tuple[float, ...], betas: tuple[float, float], decoupled: bool
    ) -> None:
        super().__init__()
        self.parameters, self.decays, self.decoupled = parameters, decays, decoupled
        self.beta1, self.beta2 = betas
        self.first = parameters.clone(prefix="first", init="zeros")
        self.second = parameters.clone(prefix="second", init="zeros")
        self.power1 = Parameter(Tensor(1.0, ms.float32), name="power1")
        self.power2 = Parameter(Tensor(1.0, ms.float32), name="power2")
        self.update = ops.Adam()

    def slots(self) -> Slots:
        """Return what stays from step to step."""
        return {"first": self.first, "second": self.second, "power1": self.power1, "power2": self.power2}

    def construct(self, gradients: Sequence[Tensor], rate: Tensor) -> Tensor:
        """Update the parameters once; `rate` is a scalar float32. Returns the rate, for what must come after."""
        ops.assign(self.power1, self.power1 * self.beta1)
        ops.assign(self.power2, self.power2 * self.beta2)
        # ops.Adam adds epsilon to sqrt(v) where PyTorch adds it to sqrt(v / (1 - power2)).
        epsilon = EPSILON * ops.sqrt(1.0 - self.power2)
        # No branch stands inside a loop: each would be a call within the call of the one before, and depth is limited.
        if self.decoupled:
            for i in range(len(self.parameters)):
                ops.assign(self.parameters[i], self.parameters[i] * (1.0 - rate * self.decays[i]))
        else:
            gradients = penalised(gradients, self.parameters, self.decays)
        for i in range(len(self.parameters)):
            self.update(self.parameters[i], self.first[i], self.second[i], self.power1, self.power2,
                        rate, self.beta1, self.beta2, epsilon, gradients[i])  # fmt: skip
        return rate


class Adadelta(nn.Cell):
    """Adadelta (Zeiler 2012, arXiv 1212.5701) with a rate and the L2 penalty."""

    def __init__(self, parameters: ParameterTuple, decays: tuple[float, ...]) -> None:
        super().__init__()
        self.parameters, self.decays = parameters, decays
        self.squares = parameters.clone(prefix="squares", init="zeros")
        self.moves = parameters.clone(prefix="moves", init="zeros")
        self.update = ops.ApplyAdadelta()

    def slots(self) -> Slots:
        """Return what stays from step to step."""
        return {"squares": self.squares, "moves": self.moves}

    def construct(self, gradients: Sequence[Tensor], rate: Tensor) -> Tensor:
        """Update the parameters once; `rate` is a scalar float32. Returns the rate, for what must come after."""
        gradients = penalised(gradients, self.parameters, self.decays)
        for i in range(len(self.parameters)):
            self.update(self.parameters[i], self.squares[i], self.moves[i], rate, RHO, ADADELTA_EPSILON, gradients[i])
        return rate


class Lion(nn.Cell):
    """Lion (Chen et al. 2023, arXiv 2302.06675, program 1) with decoupled weight decay."""

    def __init__(self, parameters: ParameterTuple, decays: tuple[float, ...], betas: tuple[float, float]) -> None:
        super().__init__()
        self.parameters, self.decays = parameters, decays
        self.beta1, self.beta2 = betas
        self.first = parameters.clone(prefix="first", init="zeros")

    def slots(self) -> Slots:
        """Return what stays from step to step."""
        return {"first": self.first}

    def construct(self, gradients: Sequence[Tensor], rate: Tensor) -> Tensor:
        """Update the parameters once; `rate` is a scalar float32. Returns the rate, for what must come after."""
        for i in range(len(self.parameters)):
            signs = ops.sign(self.beta1 * self.first[i] + (1.0 - self.beta1) * gradients[i])
            kept = self.parameters[i] * (1.0 - rate * self.decays[i])
            ops.assign(self.parameters[i], kept - rate * signs)
            ops.assign(self.first[i], self.beta2 * self.first[i] + (1.0 - self.beta2) * gradients[i])
        return rate


Optimiser = Adam | Adadelta | Lion


def build_optimiser(net: nn.Cell, train: Train) -> Optimiser:
    """Build the recipe's optimiser; Adam's weight decay is the L2 penalty, AdamW's and Lion's are decoupled."""
    parameters, betas = ParameterTuple(net.trainable_params()), (train.beta1, train.beta2)
    decays = decays_of(parameters, train)
    if train.optimizer == "lion":
        return Lion(parameters, decays, betas)
    if train.optimizer == "adadelta":
        return Adadelta(parameters, decays)
    return Adam(parameters, decays, betas, decoupled=train.optimizer == "adamw")


def decays_of(parameters: ParameterTuple, train: Train) -> tuple[float, ...]:
    """Return each parameter's weight decay: without train.decay_all, biases and normalisation have none."""
    return tuple(train.weight_decay if train.decay_all or weight.ndim > 1 else 0.0 for weight in parameters)


class Average(nn.Cell):
    """MindOCR's exponential moving average of the parameters, started from them as they are now.

    After step n, 1.., it is d * average + (1 - d) * parameters with d = decay * (1 - exp(-n / 2000)).
    """

    def __init__(self, net: Recogniser, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self.names = trained_names(net)
        self.parameters = ParameterTuple(net.trainable_params())
        self.averages = self.parameters.clone(prefix="average", init="same")

    def construct(self, step: Tensor, norm: Tensor) -> Tensor:
        """Take the parameters in after step 1.., unless the norm of its gradients is not finite; both are scalars."""
        decay = ops.where(ops.isfinite(norm), self.decay * (1.0 - ops.exp(-step / AVERAGE_WARMUP)), 1.0)
        for i in range(len(self.parameters)):
            ops.assign(self.averages[i], decay * self.averages[i] + (1.0 - decay) * self.parameters[i])
        return decay

    def tensors(self) -> Tensors:
        """Return copies of the averages by the parameters' canonical names."""
        arrays = [average.asnumpy().copy() for average in self.averages]
        return dict(zip(self.names, arrays, strict=True))
