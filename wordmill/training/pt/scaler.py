"""The loss scale, and steps that are left out because their gradients are not finite."""

from typing import Any

import numpy as np
import torch

from wordmill.models.checkpoint import Tensors
from wordmill.recipe.sections import Train
from wordmill.training.constants import GROWTH_INTERVAL


class Scaler(torch.amp.GradScaler):
    """The recipe's loss scale where there are float16 gradients, else 1.

    With any type it is what leaves out a step whose gradients are not finite, on the device, without waiting for it.
    """

    def __init__(self, train: Train, dtype: torch.dtype, device: torch.device) -> None:
        self.start = train.loss_scale if dtype == torch.float16 else 1.0
        self.dynamic = dtype == torch.float16 and train.loss_scaling == "dynamic"
        self.least = torch.ones((), device=device)
        super().__init__(device.type, init_scale=self.start, growth_interval=GROWTH_INTERVAL)

    def decide(self, optimizer: torch.optim.Optimizer, finite: torch.Tensor) -> None:
        """Have the step left out where `finite`, a scalar bool, is false; after `unscale_`.

        The norm decides, as it does for all else: it overflows before a gradient does, which is what `unscale_` finds.
        """
        for found in self._found_inf_per_device(optimizer).values():
            found.copy_(~finite)

    def renew(self) -> None:
        """Set the next step's scale: a dynamic one is halved after an overflow, but is at least 1."""
        if not self.dynamic:
            self.update(self.start)
            return
        self.update()
        self.update(self.scale(self.least).clamp(min=1.0))

    def tensors(self) -> Tensors:
        """Return the scale and for how many steps in a row gradients have been finite, scalars."""
        state: dict[str, Any] = self.state_dict()
        return {"scale": np.array(state["scale"], np.float32),
                "finite_steps": np.array(state["_growth_tracker"], np.float32)}  # fmt: skip

    def take(self, tensors: Tensors) -> None:
        """Go on from what `tensors` has returned."""
        scale, steps = float(tensors["scale"]), int(tensors["finite_steps"])
        self.load_state_dict(self.state_dict() | {"scale": scale, "_growth_tracker": steps})
