"""Where RARE's decoder looks when it writes: its attention, worked out in NumPy from what either framework encodes."""

import numpy as np
import numpy.typing as npt

from wordmill.models.checkpoint import Tensors
from wordmill.text.decoding import AttentionCodec, Logits

Floats = npt.NDArray[np.float32]


def attention_of(tensors: Tensors, features: Floats, logits: Logits) -> Floats:
    """Return how much of each column of features (N, T, C) each step of logits (N, S, classes) is made of, (N, S, T).

    The weights are GruAttention's, which says what they do; each step is told the likeliest class of the one before.
    """

    def weight(name: str) -> Floats:
        return tensors[f"decoder.{name}"]

    count, _, channels = features.shape
    projected = features @ weight("i2h.weight").T
    inputs, symbols = weight("gru.weight_ih")[:, :channels], weight("gru.weight_ih")[:, channels:]
    hidden = np.zeros((count, weight("h2h.weight").shape[0]), np.float32)
    tokens = np.full(count, AttentionCodec.GO)
    looks = []
    for step in range(logits.shape[1]):
        asked = hidden @ weight("h2h.weight").T + weight("h2h.bias")
        scores = (np.tanh(projected + asked[:, None]) @ weight("score.weight").T)[:, :, 0]
        raised = np.exp(scores - scores.max(axis=1, keepdims=True))
        looks.append(raised / raised.sum(axis=1, keepdims=True))
        context = (looks[-1][:, None] @ features)[:, 0]
        told = context @ inputs.T + weight("gru.bias_ih") + symbols[:, tokens].T
        hidden = _renewed(told, hidden @ weight("gru.weight_hh").T + weight("gru.bias_hh"), hidden)
        tokens = logits[:, step].argmax(axis=1)
    return np.stack(looks, axis=1)


def _renewed(told: Floats, kept: Floats, hidden: Floats) -> Floats:
    """Return a GRU cell's next state, of its inputs' share and its state's, each (N, 3 * hidden)."""
    (told_reset, told_update, told_new), (kept_reset, kept_update, kept_new) = (
        np.split(part, 3, axis=1) for part in (told, kept)
    )
    new = np.tanh(told_new + _sigmoid(told_reset + kept_reset) * kept_new)
    renewed: Floats = new + _sigmoid(told_update + kept_update) * (hidden - new)
    return renewed


def _sigmoid(values: Floats) -> Floats:
    return np.asarray(1.0 / (1.0 + np.exp(-values)), dtype=np.float32)
