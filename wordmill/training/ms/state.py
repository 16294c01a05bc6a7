"""All that training goes on from, by name, out of a trainer's parameters and back into them."""

import numpy as np
from mindspore import Parameter, Tensor, ops

from wordmill.models.checkpoint import Tensors, check_fit
from wordmill.models.ms.model import Recogniser
from wordmill.models.ms.parameters import statistics, trained_names
from wordmill.training.ms.optimisers import Average
from wordmill.training.ms.processes import Processes
from wordmill.training.ms.step import Update
from wordmill.training.trainer import STATISTICS


class TrainingState:
    """The parameters of a training run, those of the network among them.

    Where they are is compiled into graphs, so they are written to in place.
    """

    def __init__(self, net: Recogniser, update: Update, average: Average | None, processes: Processes) -> None:
        self.processes = processes
        names = trained_names(net)
        self.common = _named("model", names, net.trainable_params())
        name_of = dict(zip(map(id, net.trainable_params()), names, strict=True))
        for slot, kept in update.optimiser.slots().items():
            if isinstance(kept, Parameter):
                self.common[f"optimizer/{slot}"] = kept
            else:
                self.common |= _named(f"optimizer/{slot}", [name_of[id(weight)] for weight in kept[0]], kept[1])
        if average:
            self.common |= _named("average", names, average.averages)
        self.common |= {"scaler/scale": update.scale.value, "scaler/finite_steps": update.scale.finite_steps}
        own = statistics(net)
        self.own = {STATISTICS + name: parameter for name, parameter in own.items()}
        self.kept = dict(zip(self.own, update.kept, strict=True))

    def read(self) -> Tensors:
        """Return copies of all; running statistics are those of every process: (processes, C)."""
        return _arrays(self.common) | self.processes.gather(_arrays(self.own))

    def write(self, tensors: Tensors, rank: int) -> None:
        """Take over what `read` has returned; ValueError unless names and shapes fit exactly."""
        shapes = {name: tuple(parameter.shape) for name, parameter in self.common.items()}
        rows = {name: (self.processes.count, *parameter.shape) for name, parameter in self.own.items()}
        check_fit(shapes | rows, tensors, "training state")
        for name, parameter in self.common.items():
            ops.assign(parameter, Tensor(tensors[name]))
        for parameters in (self.own, self.kept):
            for name, parameter in parameters.items():
                ops.assign(parameter, Tensor(tensors[name][rank]))


def _named(kind: str, names: list[str], parameters: list[Parameter]) -> dict[str, Parameter]:
    return {f"{kind}/{name}": parameter for name, parameter in zip(names, parameters, strict=True)}


def _arrays(parameters: dict[str, Parameter]) -> Tensors:
    return {name: parameter.asnumpy().astype(np.float32, copy=True) for name, parameter in parameters.items()}
