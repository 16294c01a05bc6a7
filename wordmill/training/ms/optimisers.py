"""The optimisers of the recipes in MindSpore, equal to PyTorch's, and the moving average of the weights they make."""

from collections.abc import Sequence
from typing import Any

import mindspore as ms
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from wordmill.models.checkpoint import Tensors
from wordmill.models.ms.model import Recogniser
from wordmill.models.ms.parameters import trained_names
from wordmill.recipe.sections import Train
from wordmill.training.constants import (
    ADADELTA_EPSILON,
    AVERAGE_WARMUP,
    EPSILON,
    ITERATIONS,
    MUON_EPSILON,
    MUON_MOMENTUM,
    NEWTON_SCHULZ,
    RHO,
    is_matrix,
    muon_size,
)

# What stays from step to step: one for all, or weights of the net and what belongs to each.
Slots = dict[str, Parameter | tuple[ParameterTuple, ParameterTuple]]

# What is done to each parameter is mapped over all, the choice of some of them too: a loop of as many turns takes
# minutes to compile, a comprehension seconds.
each = ops.HyperMap()
penalised, decayed = ops.MultitypeFuncGraph("penalised"), ops.MultitypeFuncGraph("decayed")
adam, adadelta, lion, muon = (ops.MultitypeFuncGraph(name) for name in ("adam", "adadelta", "lion", "muon"))
averaged, assigned = ops.MultitypeFuncGraph("averaged"), ops.MultitypeFuncGraph("assigned")
chosen = ops.MultitypeFuncGraph("chosen")
update_adam, update_adadelta = ops.Adam(), ops.ApplyAdadelta()


@penalised.register("Tensor", "Tensor", "Number")
def _penalised(gradient: Tensor, weight: Parameter, decay: float) -> Tensor:
    """Return the gradient with the L2 penalty's added."""
    return gradient + decay * weight


@decayed.register("Tensor", "Tensor", "Number")
def _decayed(rate: Tensor, weight: Parameter, decay: float) -> Tensor:
    """Shrink a weight by decoupled decay."""
    return ops.assign(weight, weight * (1.0 - rate * decay))


@adam.register("Tensor", "Tensor", "Number", "Number", "Tensor", "Tensor", "Tensor", "Tensor", "Tensor", "Tensor")
def _adam(
    power1: Tensor,
    power2: Tensor,
    beta1: float,
    beta2: float,
    epsilon: Tensor,
    rate: Tensor,
    weight: Parameter,
    first: Parameter,
    second: Parameter,
    gradient: Tensor,
) -> Any:
    return update_adam(weight, first, second, power1, power2, rate, beta1, beta2, epsilon, gradient)


@adadelta.register("Tensor", "Tensor", "Tensor", "Tensor", "Tensor")
def _adadelta(rate: Tensor, weight: Parameter, squares: Parameter, moves: Parameter, gradient: Tensor) -> Any:
    return update_adadelta(weight, squares, moves, rate, RHO, ADADELTA_EPSILON, gradient)


@lion.register("Number", "Number", "Tensor", "Tensor", "Tensor", "Number", "Tensor")
def _lion(
    beta1: float, beta2: float, rate: Tensor, weight: Parameter, first: Parameter, decay: float, gradient: Tensor
) -> Tensor:
    signs = ops.sign(beta1 * first + (1.0 - beta1) * gradient)
    ops.assign(weight, weight * (1.0 - rate * decay) - rate * signs)
    return ops.assign(first, beta2 * first + (1.0 - beta2) * gradient)


@muon.register("Tensor", "Tensor", "Tensor", "Number", "Tensor")
def _muon(rate: Tensor, weight: Parameter, momentum: Parameter, decay: float, gradient: Tensor) -> Tensor:
    moved = MUON_MOMENTUM * momentum + (1.0 - MUON_MOMENTUM) * gradient
    update = orthogonal(((1.0 - MUON_MOMENTUM) * gradient + MUON_MOMENTUM * moved).reshape(weight.shape[0], -1))
    size = muon_size(*update.shape)
    ops.assign(weight, weight * (1.0 - rate * decay) - rate * size * update.reshape(weight.shape))
    return ops.assign(momentum, moved)


def orthogonal(matrix: Tensor) -> Tensor:
    """Return a matrix (rows, columns) with its singular values set to about 1."""
    first, third, fifth = NEWTON_SCHULZ
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.transpose(1, 0) if tall else matrix
    x = x / (ops.sqrt((x * x).sum()) + MUON_EPSILON)
    for _ in range(ITERATIONS):
        square = ops.matmul(x, x.transpose(1, 0))
        x = first * x + ops.matmul(third * square + fifth * ops.matmul(square, square), x)
    return x.transpose(1, 0) if tall else x


@averaged.register("Tensor", "Tensor", "Tensor")
def _averaged(decay: Tensor, average: Parameter, weight: Parameter) -> Tensor:
    return ops.assign(average, decay * average + (1.0 - decay) * weight)


@assigned.register("Tensor", "Tensor")
def _assigned(parameter: Parameter, value: Tensor) -> Tensor:
    return ops.assign(parameter, value)


@chosen.register("Tuple", "Number")
def _chosen(tensors: tuple[Tensor, ...], place: int) -> Tensor:
    return tensors[place]


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

    def slots(self) -> Slots:
        """Return what stays from step to step."""
        moments = {"first": (self.parameters, self.first), "second": (self.parameters, self.second)}
        return {**moments, "power1": self.power1, "power2": self.power2}

    def construct(self, gradients: Sequence[Tensor], rates: tuple[Tensor, ...]) -> Tensor:
        """Update the parameters once, each by its rate, a scalar float32. Returns one, for what must come after."""
        ops.assign(self.power1, self.power1 * self.beta1)
        ops.assign(self.power2, self.power2 * self.beta2)
        # ops.Adam adds epsilon to sqrt(v) where PyTorch adds it to sqrt(v / (1 - power2)).
        epsilon = EPSILON * ops.sqrt(1.0 - self.power2)
        if self.decoupled:
            each(decayed, rates, self.parameters, self.decays)
        else:
            gradients = each(penalised, gradients, self.parameters, self.decays)
        one = ops.partial(adam, self.power1, self.power2, self.beta1, self.beta2, epsilon)
        each(one, rates, self.parameters, self.first, self.second, gradients)
        return rates[0]


class Adadelta(nn.Cell):
    """Adadelta (Zeiler 2012, arXiv 1212.5701) with a rate and the L2 penalty."""

    def __init__(self, parameters: ParameterTuple, decays: tuple[float, ...]) -> None:
        super().__init__()
        self.parameters, self.decays = parameters, decays
        self.squares = parameters.clone(prefix="squares", init="zeros")
        self.moves = parameters.clone(prefix="moves", init="zeros")

    def slots(self) -> Slots:
        """Return what stays from step to step."""
        return {"squares": (self.parameters, self.squares), "moves": (self.parameters, self.moves)}

    def construct(self, gradients: Sequence[Tensor], rates: tuple[Tensor, ...]) -> Tensor:
        """Update the parameters once, each by its rate, a scalar float32. Returns one, for what must come after."""
        gradients = each(penalised, gradients, self.parameters, self.decays)
        each(adadelta, rates, self.parameters, self.squares, self.moves, gradients)
        return rates[0]


class Lion(nn.Cell):
    """Lion (Chen et al. 2023, arXiv 2302.06675, program 1) with decoupled weight decay."""

    def __init__(self, parameters: ParameterTuple, decays: tuple[float, ...], betas: tuple[float, float]) -> None:
        super().__init__()
        self.parameters, self.decays = parameters, decays
        self.beta1, self.beta2 = betas
        self.first = parameters.clone(prefix="first", init="zeros")

    def slots(self) -> Slots:
        """Return what stays from step to step."""
        return {"first": (self.parameters, self.first)}

    def construct(self, gradients: Sequence[Tensor], rates: tuple[Tensor, ...]) -> Tensor:
        """Update the parameters once, each by its rate, a scalar float32. Returns one, for what must come after."""
        one = ops.partial(lion, self.beta1, self.beta2)
        each(one, rates, self.parameters, self.first, self.decays, gradients)
        return rates[0]


class Muon(nn.Cell):
    """Muon with Nesterov's momentum and decoupled weight decay for matrices, and AdamW for all else."""

    def __init__(self, parameters: ParameterTuple, names: list[str], train: Train) -> None:
        super().__init__()
        self.parameters = parameters
        matrix = [is_matrix(name, weight.shape) for name, weight in zip(names, parameters, strict=True)]
        self.places = tuple(i for i, found in enumerate(matrix) if found)
        self.others = tuple(i for i, found in enumerate(matrix) if not found)
        self.matrices = ParameterTuple([parameters[i] for i in self.places])
        self.decays = decays_of(self.matrices, train)
        self.momentum = self.matrices.clone(prefix="momentum", init="zeros")
        rest = ParameterTuple([parameters[i] for i in self.others])
        self.rest = Adam(rest, decays_of(rest, train), (train.beta1, train.beta2), decoupled=True)

    def slots(self) -> Slots:
        """Return what stays from step to step."""
        return {"momentum": (self.matrices, self.momentum), **self.rest.slots()}

    def construct(self, gradients: Sequence[Tensor], rates: tuple[Tensor, ...]) -> Tensor:
        """Update the parameters once, each by its rate, a scalar float32. Returns one, for what must come after."""
        gradient_at, rate_at = ops.partial(chosen, gradients), ops.partial(chosen, rates)
        own, own_rates = each(gradient_at, self.places), each(rate_at, self.places)
        each(muon, own_rates, self.matrices, self.momentum, self.decays, own)
        return self.rest(each(gradient_at, self.others), each(rate_at, self.others))


Optimiser = Adam | Adadelta | Lion | Muon


def build_optimiser(net: Recogniser, train: Train) -> Optimiser:
    """Build the recipe's optimiser; Adam's weight decay is the L2 penalty, AdamW's, Lion's and Muon's are decoupled."""
    parameters, betas = ParameterTuple(net.trainable_params()), (train.beta1, train.beta2)
    decays = decays_of(parameters, train)
    if train.optimizer == "lion":
        return Lion(parameters, decays, betas)
    if train.optimizer == "adadelta":
        return Adadelta(parameters, decays)
    if train.optimizer == "muon":
        return Muon(parameters, trained_names(net), train)
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
        each(ops.partial(averaged, decay), self.averages, self.parameters)
        return decay

    def tensors(self) -> Tensors:
        """Return copies of the averages by the parameters' canonical names."""
        arrays = [average.asnumpy().copy() for average in self.averages]
        return dict(zip(self.names, arrays, strict=True))
