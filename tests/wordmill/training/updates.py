"""The optimisers' published updates in float64, one parameter at a time."""

import numpy as np
import numpy.typing as npt

from wordmill.recipe.sections import Train

Array = npt.NDArray[np.float64]


def updated(
    weight: npt.NDArray[np.float32], gradients: list[npt.NDArray[np.float32]], train: Train, decay: float
) -> Array:
    """Return a parameter after one update by each gradient, with the rate and betas of the recipe."""
    series = [gradient.astype(np.float64) for gradient in gradients]
    if train.optimizer == "lion":
        return lion(weight.astype(np.float64), series, train, decay)
    if train.optimizer == "adadelta":
        return adadelta(weight.astype(np.float64), series, train, decay)
    if train.optimizer == "muon" and weight.ndim > 1 and weight.shape[1] > 1:
        return muon(weight.astype(np.float64), series, train, decay)
    return adam(weight.astype(np.float64), series, train, decay)


def adam(w: Array, gradients: list[Array], train: Train, decay: float) -> Array:
    """Loshchilov and Hutter's algorithm 2; its decay is multiplied by the rate, as PyTorch has it."""
    m, v = np.zeros_like(w), np.zeros_like(w)
    for t, g in enumerate(gradients, start=1):
        if train.optimizer == "adam":
            g = g + decay * w
        else:
            w = w - train.lr * decay * w
        m, v = train.beta1 * m + (1 - train.beta1) * g, train.beta2 * v + (1 - train.beta2) * g**2
        w = w - train.lr * (m / (1 - train.beta1**t)) / (np.sqrt(v / (1 - train.beta2**t)) + 1e-8)
    return w


def adadelta(w: Array, gradients: list[Array], train: Train, decay: float) -> Array:
    """Zeiler's algorithm 1 with rho 0.9 and epsilon 1e-6."""
    squares, moves = np.zeros_like(w), np.zeros_like(w)
    for g in gradients:
        g = g + decay * w
        squares = 0.9 * squares + 0.1 * g**2
        move = np.sqrt(moves + 1e-6) / np.sqrt(squares + 1e-6) * g
        moves = 0.9 * moves + 0.1 * move**2
        w = w - train.lr * move
    return w


def muon(w: Array, gradients: list[Array], train: Train, decay: float) -> Array:
    """Jordan's Muon, its updates as large as Liu et al. have them."""
    m = np.zeros_like(w)
    for g in gradients:
        m = 0.95 * m + 0.05 * g
        x = (0.05 * g + 0.95 * m).reshape(len(w), -1)
        x = x / (np.linalg.norm(x) + 1e-7)
        for _ in range(3):
            a = x @ x.T
            x = 3.4445 * x - 4.7750 * a @ x + 2.0315 * a @ a @ x
        w = w - train.lr * (0.2 * np.sqrt(max(x.shape)) * x.reshape(w.shape) + decay * w)
    return w


def lion(w: Array, gradients: list[Array], train: Train, decay: float) -> Array:
    """Chen et al.'s program 1."""
    m = np.zeros_like(w)
    for g in gradients:
        w = w - train.lr * (np.sign(train.beta1 * m + (1 - train.beta1) * g) + decay * w)
        m = train.beta2 * m + (1 - train.beta2) * g
    return w
