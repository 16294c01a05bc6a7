"""All that training goes on from: taken, given back, and what of it is scored and stored."""

from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch

from wordmill.models.architectures import GUIDE
from wordmill.models.checkpoint import Tensors
from wordmill.models.pt.model import Recogniser
from wordmill.training.pt.optimisers import Average
from wordmill.training.pt.processes import gather
from wordmill.training.pt.scaler import Scaler
from wordmill.training.trainer import STATISTICS

MODEL, OPTIMIZER, AVERAGE, SCALER = "model/", "optimizer/", "average/", "scaler/"


class TrainingState:
    """The tensors of a training where training has them, under the names that they have in a checkpoint."""

    def __init__(
        self,
        net: Recogniser,
        optimizer: torch.optim.Optimizer,
        average: Average | None,
        scaler: Scaler,
        processes: int,
        rank: int,
    ) -> None:
        self.processes, self.rank, self.scaler, self.averaged = processes, rank, scaler, average is not None
        weights = dict(net.named_parameters())
        self.device = next(iter(weights.values())).device
        self.running = {name: buffer for name, buffer in net.named_buffers() if ".running_" in name}
        self.live: dict[str, torch.Tensor] = {MODEL + name: weight for name, weight in weights.items()}
        for name, weight in weights.items():
            for kind, tensor in optimizer.state[weight].items():
                self.live[f"{OPTIMIZER}{kind}/{name}"] = tensor
        if average:
            self.live |= {AVERAGE + name: tensor for name, tensor in average.tensors.items()}
        self.kept = self.joined()

    @torch.no_grad()
    def settle(self, finite: torch.Tensor, frozen: list[str]) -> None:
        """Keep a step's running statistics, or take them back where it is left out: `finite` is a scalar bool.

        They are moved by its forward pass, before anybody knows what comes of it. Those of frozen parts are taken back.
        """
        if frozen:
            finite = finite & self.moving(tuple(frozen))
        self.kept = torch.where(finite, self.joined(), self.kept)
        self.put(self.kept)

    @lru_cache(maxsize=2)  # noqa: B019 (it lives as long as the process)
    def moving(self, frozen: tuple[str, ...]) -> torch.Tensor:
        """Return for each of `joined` whether it is of no frozen part."""
        marks = [torch.full((buffer.numel(),), name.partition(".")[0] not in frozen)
                 for name, buffer in self.running.items()]  # fmt: skip
        return torch.cat(marks).to(self.device)

    def joined(self) -> torch.Tensor:
        """Return this process's running statistics one behind the other."""
        return torch.cat([buffer.flatten() for buffer in self.running.values()])

    def put(self, joined: torch.Tensor) -> None:
        """Set them to what `joined` has returned."""
        buffers = list(self.running.values())
        torch._foreach_copy_(buffers, torch.split_with_sizes(joined, [buffer.numel() for buffer in buffers]))

    def tensors(self) -> Tensors:
        """Return copies of everything, float32, the same in every process."""
        live = {name: _copy(tensor) for name, tensor in self.live.items()}
        statistics = {STATISTICS + name: rows for name, rows in self.statistics().items()}
        return live | statistics | {SCALER + name: value for name, value in self.scaler.tensors().items()}

    @torch.no_grad()
    def take(self, tensors: Tensors) -> None:
        """Go on from what `tensors` has returned, each process from its own statistics."""
        for name, tensor in self.live.items():
            tensor.copy_(torch.tensor(tensors[name]))
        own = [tensors[STATISTICS + name][self.rank] for name in self.running]
        self.kept = torch.from_numpy(np.concatenate(own)).to(self.device)
        self.put(self.kept)
        self.scaler.take({name: tensors[SCALER + name] for name in self.scaler.tensors()})

    def weights(self) -> Tensors:
        """Return the weights or their moving average, and running statistics averaged over the processes."""
        kind = AVERAGE if self.averaged else MODEL
        named = {name.removeprefix(kind): t for name, t in self.live.items() if name.startswith(kind)}
        weights = {name: _copy(tensor) for name, tensor in named.items() if not name.startswith(GUIDE)}
        means = {name: rows.mean(0, dtype=np.float64) for name, rows in self.statistics().items()}
        return weights | {name: mean.astype(np.float32) for name, mean in means.items()}

    def statistics(self) -> Tensors:
        """Return every process's running statistics by name, (processes, C)."""
        ends = np.cumsum([buffer.numel() for buffer in self.running.values()])[:-1]
        parts = np.split(gather(_copy(self.joined()), self.processes, self.device), ends, axis=1)
        return {name: np.ascontiguousarray(part) for name, part in zip(self.running, parts, strict=True)}


def _copy(tensor: torch.Tensor) -> npt.NDArray[np.float32]:
    return np.array(tensor.detach().cpu().numpy(), dtype=np.float32, order="C")
