"""The optimisers of the recipes in PyTorch, and the moving average of the weights that they make."""

import math
from typing import Any

import numpy as np
import torch
from torch import nn

from components.recognition.checkpoint import Tensors
from components.recognition.recipe import Train

EPSILON = 1e-8  # of Adam
RHO, ADADELTA_EPSILON = 0.9, 1e-6
AVERAGE_WARMUP = 2000.0  # steps; MindOCR's moving average starts short and grows longer


class Lion(torch.optim.Optimizer):
    """Lion (Chen et al. 2023, arXiv 2302.06675, program 1) with decoupled weight decay."""

    def __init__(self, groups: list[dict[str, Any]], lr: float, betas: tuple[float, float]) -> None:
        super().__init__(groups, {"lr": lr, "betas": betas, "weight_decay": 0.0})
        for group in self.param_groups:
            group["first"] = [torch.zeros_like(weight) for weight in group["params"]]

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # no closure is ever given
        """Update the parameters once by their gradients; each must have one."""
        for group in self.param_groups:
            weights, first, (beta1, beta2) = group["params"], group["first"], group["betas"]
            gradients = [weight.grad for weight in weights]
            signs = torch._foreach_lerp(gradients, first, beta1)
            torch._foreach_sign_(signs)
            torch._foreach_mul_(weights, 1.0 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(weights, signs, alpha=-group["lr"])
            torch._foreach_lerp_(first, gradients, 1.0 - beta2)


def build(net: nn.Module, train: Train) -> torch.optim.Optimizer:
    """Build the recipe's optimiser; Adam's weight decay is the L2 penalty, AdamW's and Lion's are decoupled."""
    groups, betas = decay_groups(net, train), (train.beta1, train.beta2)
    if train.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=train.lr, betas=betas, eps=EPSILON, fused=True)
    if train.optimizer == "adam":
        return torch.optim.Adam(groups, lr=train.lr, betas=betas, eps=EPSILON, fused=True)
    if train.optimizer == "adadelta":
        return torch.optim.Adadelta(groups, lr=train.lr, rho=RHO, eps=ADADELTA_EPSILON, foreach=True)
    return Lion(groups, lr=train.lr, betas=betas)


def decay_groups(net: nn.Module, train: Train) -> list[dict[str, Any]]:
    """Return the parameters by their weight decay: without train.decay_all, biases and normalisation have none."""
    weights = list(net.parameters())
    if train.decay_all:
        return [{"params": weights, "weight_decay": train.weight_decay}]
    return [
        {"params": [weight for weight in weights if weight.ndim > 1], "weight_decay": train.weight_decay},
        {"params": [weight for weight in weights if weight.ndim <= 1], "weight_decay": 0.0},
    ]


class Average:
    """MindOCR's exponential moving average of the parameters, started from them as they are now.

    After step n, 1.., it is d * average + (1 - d) * parameters with d = decay * (1 - exp(-n / 2000)).
    """

    def __init__(self, net: nn.Module, decay: float) -> None:
        self.decay = decay
        self.names = [name for name, _ in net.named_parameters()]
        self.parameters: list[torch.Tensor] = list(net.parameters())
        self.averages = [parameter.detach().clone() for parameter in self.parameters]

    @torch.no_grad()
    def __call__(self, step: int) -> None:
        """Take the parameters in after step 1.., in order; one left out counts too."""
        decay = self.decay * (1.0 - math.exp(-step / AVERAGE_WARMUP))
        torch._foreach_lerp_(self.averages, self.parameters, 1.0 - decay)

    def tensors(self) -> Tensors:
        """Return copies of the averages by the parameters' names."""
        arrays = [np.array(average.cpu().numpy(), order="C") for average in self.averages]
        return dict(zip(self.names, arrays, strict=True))
