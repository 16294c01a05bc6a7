"""Learning rates, one for each training step."""

import numpy as np
import numpy.typing as npt


def warmup_cosine(lr: float, steps: int, warmup_steps: int) -> npt.NDArray[np.float32]:
    """Return the learning rate of every step, (steps,) float32: linear from 0 to `lr`, then half a cosine to 0.

    MindOCR's warmup_cosine_decay, stepwise: the first step has rate 0 where there is a warm-up, step
    `warmup_steps` is the first with the full rate, the last one lies just above 0.
    """
    if not 0 <= warmup_steps < steps:
        raise ValueError(f"train.warmup_epochs gives {warmup_steps} warm-up steps, expected 0 to {steps - 1}: "
                         f"training has {steps} steps in all")  # fmt: skip
    step = np.arange(steps, dtype=np.float64)
    rising = step / max(warmup_steps, 1)
    falling = 0.5 * (1.0 + np.cos(np.pi * (step - warmup_steps) / (steps - warmup_steps)))
    return np.asarray(lr * np.where(step < warmup_steps, rising, falling), dtype=np.float32)
