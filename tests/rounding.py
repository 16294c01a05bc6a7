"""How far float32 moves what a recogniser computes, measured in float64: Parker's Monte Carlo arithmetic.

Every operation of both passes is computed in float64, and its result moved by an error such as float32 makes, drawn at
random. What comes of it knows the widths that are summed up, what cancels, and where a ReLU, a pool or a sampler
decides the other way.
"""

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

UNIT = 2.0**-24  # the greatest relative error of one rounding
# What lies so near a kink that it falls the other way in one framework is to fall so in one of the draws.
FACTOR = 3
DRAWS = 3
aten = torch.ops.aten
EXACT = {aten.relu, aten.threshold_backward, aten.clone, aten.cat, aten.stack, aten.index, aten.select_backward,
         aten.slice_backward, aten.max_pool2d_with_indices, aten.constant_pad_nd, aten.zeros, aten.ones, aten.full,
         aten.zeros_like, aten.ones_like, aten._to_copy, aten.where, aten.gather}  # fmt: skip
# The greatest errors of MindSpore's polynomials over normals of deviation 2, in units; PyTorch's err by 2.
# Those of CTC are not measured: its gradient is made of exp, and its sums are of logarithms that each err by some.
POLYNOMIALS = {aten.tanh: 1700, aten.exp: 100, aten.sigmoid: 100, aten._softmax: 100, aten._log_softmax: 100,
               aten._ctc_loss: 8, aten._ctc_loss_backward: 100}  # fmt: skip


@dataclass(frozen=True)
class Gradients:
    """Gradients in float64 by name, and how far from each float32 may be, as `deviation` has it."""

    exact: dict[str, np.ndarray]
    allowed: dict[str, np.ndarray]

    def assert_near(self, found: Mapping[str, np.ndarray]) -> None:
        """Refuse gradients that are further from the exact ones than float32 brings them."""
        assert set(found) == set(self.exact)
        deviations = {name: deviation(found[name], exact) for name, exact in self.exact.items()}
        wrong = {name: (far, self.allowed[name]) for name, far in deviations.items()
                 if not (far <= self.allowed[name]).all()}  # fmt: skip
        assert wrong == {}, "by name: how far it is, how far float32 brings it"


def deviation(found: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """Return the norm of what a gradient has too much, and of its part along the exact one, where kinks do little."""
    difference = np.subtract(found, exact, dtype=np.float64)
    along = abs((difference * exact).sum()) / max(np.linalg.norm(exact), np.finfo(np.float64).tiny)
    return np.array([np.linalg.norm(difference), along])


def gradients(net: torch.nn.Module) -> dict[str, np.ndarray]:
    """Return copies of the gradients that a network's weights have, by name."""
    return {name: np.array(weight.grad) for name, weight in net.named_parameters() if weight.grad is not None}


def measure(net: torch.nn.Module, loss: Callable[[Any], torch.Tensor]) -> Gradients:
    """Return the gradients of loss(net) and how far float32 may be from them; the network itself stays as it is."""
    with one_thread():
        exact, *draws = (gradients_in(Float64(seed), net, loss) for seed in range(1 + DRAWS))
    allowed = {name: np.max([deviation(draw[name], exact[name]) for draw in draws], axis=0) for name in exact}
    for norm_and_along in allowed.values():  # a single number may be near 0 in all draws
        norm_and_along[1] = max(norm_and_along[1], norm_and_along[0] / 3)
    return Gradients(exact, allowed)


def exact(net: torch.nn.Module, run: Callable[[Any], torch.Tensor]) -> np.ndarray:
    """Return run(net) computed in float64; the network itself stays as it is."""
    other = copy.deepcopy(net).double()
    with one_thread(), torch.no_grad(), Float64(0):
        return np.asarray(run(other))


def gradients_in(mode: TorchDispatchMode, net: torch.nn.Module, loss: Callable[[Any], torch.Tensor]) -> Any:
    other = copy.deepcopy(net).double()
    other.zero_grad()
    with mode:
        torch.autograd.backward(loss(other))
    return gradients(other)


@contextmanager
def one_thread() -> Iterator[None]:
    """Leave small operations to one thread: several that wait for each other take longer."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Float64(TorchDispatchMode):
    """Computes in float64 what is float32, and moves each result by an error, unless the seed is 0."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.errs, self.rng = seed > 0, torch.Generator().manual_seed(seed)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args, kwargs = double(args), double(kwargs or {})
        results, operation = func(*args, **kwargs), func.overloadpacket
        if not self.errs or operation in EXACT or any(value.alias_info for value in func._schema.returns):
            return results
        if isinstance(results, torch.Tensor):
            return self.moved(results, operation, *widths(operation, args, (results,)))
        if isinstance(results, tuple):
            counts = widths(operation, args, results)
            return tuple(self.moved(result, operation, width) for result, width in zip(results, counts, strict=True))
        return results

    def moved(self, result: Any, operation: Any, width: int) -> Any:
        """Return a result with an error by its own size or, as a sum of so many, by the size that such sums have."""
        if not isinstance(result, torch.Tensor) or result.dtype != torch.float64:
            return result
        finite = torch.nan_to_num(result, nan=0.0, posinf=0.0, neginf=0.0)  # CTC has logarithms of 0
        size = finite if width == 1 else width**0.5 * finite.square().mean().sqrt()
        noise = self.drawn(result.shape)
        if operation in POLYNOMIALS:  # errs to one side in whole ranges
            noise = noise + self.drawn(torch.Size())
        return result + max(FACTOR, POLYNOMIALS.get(operation, 0)) * UNIT * size * noise

    def drawn(self, shape: torch.Size) -> torch.Tensor:
        return torch.empty(shape, dtype=torch.float32).uniform_(-1, 1, generator=self.rng)


def double(value: Any) -> Any:
    """Return float64 for float32, tensors and types alike, within tuples, lists and dictionaries too."""
    if isinstance(value, torch.Tensor):
        return value.double() if value.dtype == torch.float32 else value
    if isinstance(value, tuple | list):
        return type(value)(map(double, value))
    if isinstance(value, dict):
        return {name: double(one) for name, one in value.items()}
    return torch.float64 if value is torch.float32 else value


def widths(operation: Any, args: Any, results: tuple[Any, ...]) -> list[int]:
    """Return how many numbers are summed up, one after the other, for a value of each result; 1: it is no sum."""
    if operation is aten.convolution:
        return [args[1][0].numel()]
    if operation in (aten.mm, aten.bmm, aten.addmm):
        return [args[-2].shape[-1]]
    if operation in (aten.sum, aten.mean):
        return [args[0].numel() // results[0].numel()]
    if operation in (aten.convolution_backward, aten.native_batch_norm_backward):
        positions, weight = args[0].numel() // args[0].shape[1], args[2]
        inputs = weight.numel() // weight.shape[1] // args[9] if operation is aten.convolution_backward else 1
        return [inputs, positions, positions]
    return [1] * len(results)
