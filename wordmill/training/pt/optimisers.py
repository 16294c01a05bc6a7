"""The optimisers of the recipes in PyTorch, and the moving average of the weights that they make."""

import inspect
import math
from typing import Any

import torch
from torch import nn

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
from wordmill.training.pt.processes import divide

Weights = dict[str, nn.Parameter]  # by canonical name


class Uncompiled:
    """What PyTorch's optimisers do, without the compiler, which nothing here uses and which takes 2 s to import."""

    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.Optimizer.zero_grad)


class Adam(Uncompiled, torch.optim.Adam):
    """PyTorch's own Adam and AdamW."""

    step = torch.no_grad()(inspect.unwrap(torch.optim.Adam.step))


class Lion(Uncompiled, torch.optim.Optimizer):
    """Lion (Chen et al. 2023, arXiv 2302.06675, program 1) with decoupled weight decay."""

    _step_supports_amp_scaling = True  # GradScaler sets `found_inf` for a step, 1 where the step is to change nothing
    found_inf = torch.zeros(())

    def __init__(self, groups: list[dict[str, Any]], lr: float, betas: tuple[float, float]) -> None:
        super().__init__(groups, {"lr": lr, "betas": betas, "weight_decay": 0.0})
        _start_states(self, "first")

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # no closure is ever given
        """Update the parameters once by their gradients; each must have one."""
        lost = self.found_inf > 0
        for group in self.param_groups:
            weights, rate, (beta1, beta2) = group["params"], group["lr"], group["betas"]
            first = [self.state[weight]["first"] for weight in weights]
            gradients = [torch.where(lost, mean, weight.grad) for weight, mean in zip(weights, first, strict=True)]
            signs = torch._foreach_lerp(gradients, first, beta1)
            torch._foreach_sign_(signs)
            torch._foreach_mul_(signs, torch.where(lost, 0.0, rate))
            torch._foreach_mul_(weights, torch.where(lost, 1.0, 1.0 - rate * group["weight_decay"]))
            torch._foreach_sub_(weights, signs)
            torch._foreach_lerp_(first, gradients, 1.0 - beta2)


class Adadelta(Uncompiled, torch.optim.Optimizer):
    """Adadelta (Zeiler 2012, arXiv 1212.5701) with a rate and the L2 penalty.

    PyTorch's own is left out by GradScaler only after the processor has waited for the device, in every step.
    """

    _step_supports_amp_scaling = True  # as Lion's
    found_inf = torch.zeros(())

    def __init__(self, groups: list[dict[str, Any]], lr: float) -> None:
        super().__init__(groups, {"lr": lr, "weight_decay": 0.0})
        _start_states(self, "squares", "moves")

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # no closure is ever given
        """Update the parameters once by their gradients; each must have one."""
        lost = self.found_inf > 0
        kept = torch.where(lost, 1.0, RHO)
        for group in self.param_groups:
            weights = group["params"]
            squares, moves = ([self.state[weight][name] for weight in weights] for name in ("squares", "moves"))
            gradients = torch._foreach_add([weight.grad for weight in weights], weights, alpha=group["weight_decay"])
            for gradient in gradients:
                gradient.masked_fill_(lost, 0.0)
            torch._foreach_mul_(squares, kept)
            torch._foreach_addcmul_(squares, gradients, gradients, 1.0 - RHO)
            steps = torch._foreach_div(_roots(moves), _roots(squares))
            torch._foreach_mul_(steps, gradients)
            torch._foreach_mul_(moves, kept)
            torch._foreach_addcmul_(moves, steps, steps, 1.0 - RHO)
            torch._foreach_add_(weights, steps, alpha=-group["lr"])


class Muon(Uncompiled, torch.optim.Optimizer):
    """Muon with Nesterov's momentum and decoupled weight decay for matrices, and an AdamW for all else."""

    _step_supports_amp_scaling = True  # as Lion's
    found_inf = torch.zeros(())

    def __init__(self, groups: list[dict[str, Any]], rest: torch.optim.Optimizer, lr: float) -> None:
        super().__init__([*groups, *rest.param_groups], {"lr": lr, "weight_decay": 0.0})
        self.matrices, self.rest = self.param_groups[: len(groups)], rest
        _start_states(self, "momentum", groups=self.matrices)
        self.state.update(rest.state)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # no closure is ever given
        """Update the parameters once by their gradients; each must have one."""
        lost = self.found_inf > 0
        weights = [weight for group in self.matrices for weight in group["params"]]
        ahead = [self._ahead(weight, lost) for weight in weights]
        updates = iter(divide(orthogonal, ahead, [products(*matrix.shape) for matrix in ahead]))
        for group in self.matrices:
            rate = torch.where(lost, 0.0, group["lr"])
            for weight in group["params"]:
                update = next(updates)
                weight.mul_(1.0 - rate * group["weight_decay"])
                weight.sub_(update.view_as(weight) * (rate * muon_size(*update.shape)))
        self.rest.found_inf = vars(self).get("found_inf")  # type: ignore[attr-defined]  # a scaler's, else none
        self.rest.step()

    def _ahead(self, weight: torch.Tensor, lost: torch.Tensor) -> torch.Tensor:
        """Take a gradient into a weight's momentum; return where both point, as a matrix (rows, columns)."""
        momentum, gradient = self.state[weight]["momentum"], weight.grad.masked_fill(lost, 0.0)  # type: ignore[union-attr]
        momentum.lerp_(gradient, torch.where(lost, 0.0, 1.0 - MUON_MOMENTUM).to(gradient))
        return gradient.lerp(momentum, MUON_MOMENTUM).flatten(1)


def products(rows: int, columns: int) -> int:
    """Return how many multiplications one iteration of `orthogonal` takes."""
    short, long = sorted((rows, columns))
    return short * short * (2 * long + short)


def orthogonal(matrix: torch.Tensor) -> torch.Tensor:
    """Return a matrix (rows, columns) with its singular values set to about 1."""
    first, third, fifth = NEWTON_SCHULZ
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    x: torch.Tensor = wide / (wide.norm() + MUON_EPSILON)
    for _ in range(ITERATIONS):
        square = x @ x.T
        x = torch.addmm(x, torch.addmm(square, square, square, beta=third, alpha=fifth), x, beta=first)
    return x if wide is matrix else x.T


def _roots(squares: list[torch.Tensor]) -> list[torch.Tensor]:
    roots = list(torch._foreach_add(squares, ADADELTA_EPSILON))
    torch._foreach_sqrt_(roots)
    return roots


def _start_states(optimizer: torch.optim.Optimizer, *names: str, groups: list[dict[str, Any]] | None = None) -> None:
    """Give each parameter, of all groups or of some, tensors of zeros under these names."""
    for group in optimizer.param_groups if groups is None else groups:
        for weight in group["params"]:
            optimizer.state[weight] = {name: torch.zeros_like(weight) for name in names}


def build_optimiser(net: nn.Module, train: Train) -> torch.optim.Optimizer:
    """Build the recipe's optimiser; Adam's weight decay is the L2 penalty, AdamW's, Lion's and Muon's are decoupled."""
    weights = dict(net.named_parameters())
    if train.optimizer == "lion":
        return Lion(decay_groups(weights, train), train.lr, (train.beta1, train.beta2))
    if train.optimizer == "adadelta":
        return Adadelta(decay_groups(weights, train), train.lr)
    if train.optimizer == "muon":
        matrices = {name: weight for name, weight in weights.items() if is_matrix(name, tuple(weight.shape))}
        rest = {name: weight for name, weight in weights.items() if name not in matrices}
        return Muon(decay_groups(matrices, train), _adam(rest, train), train.lr)
    return _adam(weights, train)


def _adam(weights: Weights, train: Train) -> torch.optim.Optimizer:
    groups, betas = decay_groups(weights, train), (train.beta1, train.beta2)
    decoupled = train.optimizer != "adam"
    optimizer = Adam(groups, lr=train.lr, betas=betas, eps=EPSILON, decoupled_weight_decay=decoupled, fused=True)
    # As it would itself in its first step; a checkpoint of before has them too.
    _start_states(optimizer, "exp_avg", "exp_avg_sq")
    for weight, state in optimizer.state.items():
        state["step"] = torch.zeros((), device=weight.device)
    return optimizer


def decay_groups(weights: Weights, train: Train) -> list[dict[str, Any]]:
    """Return the parameters by their weight decay: without train.decay_all, biases and normalisation have none.

    Where parts have rates or frozen steps of their own, a group is of one `part`, else of all, "".
    """
    groups: dict[tuple[str, float], list[nn.Parameter]] = {}
    for name, weight in weights.items():
        part = name.partition(".")[0] if train.lr_factors or train.freeze else ""
        decay = train.weight_decay if train.decay_all or weight.ndim > 1 else 0.0
        groups.setdefault((part, decay), []).append(weight)
    return [{"params": members, "weight_decay": decay, "part": part} for (part, decay), members in groups.items()]


class Average:
    """MindOCR's exponential moving average of the parameters, started from them as they are now.

    After step n, 1.., it is d * average + (1 - d) * parameters with d = decay * (1 - exp(-n / 2000)).
    """

    def __init__(self, net: nn.Module, decay: float) -> None:
        self.decay = decay
        self.parameters: list[torch.Tensor] = list(net.parameters())
        self.tensors = {name: parameter.detach().clone() for name, parameter in net.named_parameters()}

    @torch.no_grad()
    def __call__(self, step: int, finite: torch.Tensor) -> None:
        """Take the parameters in after step 1.., in order, unless it was left out: `finite` is a scalar bool."""
        averages, decay = list(self.tensors.values()), self.decay * (1.0 - math.exp(-step / AVERAGE_WARMUP))
        moves = torch._foreach_sub(self.parameters, averages)
        torch._foreach_mul_(moves, finite * (1.0 - decay))
        torch._foreach_add_(averages, moves)
