"""Where decoders look when they write: their attention, worked out in NumPy from what either framework encodes."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from wordmill.models.architectures import VIEWS
from wordmill.models.checkpoint import Tensors
from wordmill.text.decoding import AttentionCodec, Logits

VIEWS_STEPS = 64  # columns of a view

Floats = npt.NDArray[np.float32]
Tokens = npt.NDArray[np.int64]
Scores = Callable[[Floats, Tokens], Floats]  # of a hidden state (N, H) and the classes before (N,): (N, T)
Told = Callable[[Floats, Tokens], Floats]  # of a context (N, C) and the classes before: the GRU's share (N, 3 * H)


def attention_of(tensors: Tensors, memory: Floats, logits: Logits) -> Floats:
    """Return how much of each column of a memory (N, T, C) each step of logits (N, S, classes) is made of, (N, S, T).

    The weights are GruAttention's or PositionAttention's, which say what they do, as the memory is the first that their
    `start` returns; each step is told the likeliest class of the one before.
    """
    scores, told = (_by_features if "decoder.i2h.weight" in tensors else _by_position)(tensors, memory)
    kept, bias = tensors["decoder.gru.weight_hh"].T, tensors["decoder.gru.bias_hh"]
    hidden = np.zeros((len(memory), len(kept)), np.float32)
    tokens = np.full(len(memory), AttentionCodec.GO, np.int64)
    looks = []
    for step in range(logits.shape[1]):
        found = scores(hidden, tokens)
        raised = np.exp(found - found.max(axis=1, keepdims=True))
        looks.append(raised / raised.sum(axis=1, keepdims=True))
        context = (looks[-1][:, None] @ memory)[:, 0]
        hidden = _renewed(told(context, tokens), hidden @ kept + bias, hidden)
        tokens = logits[:, step].argmax(axis=1)
    return np.stack(looks, axis=1)


def columns_of_views(count: int) -> Floats:
    """Return where the columns of pictures of views lie, (count, 64) in shares of the width: in the first view.

    The views show one sign and have their columns in common.
    """
    places = (np.arange(VIEWS_STEPS, dtype=np.float32) + 0.5) / (VIEWS_STEPS * VIEWS)
    return np.tile(places, (count, 1))


def _by_features(tensors: Tensors, memory: Floats) -> tuple[Scores, Told]:
    """Return GruAttention's scores of the columns, and what it tells its GRU."""
    projected = memory @ tensors["decoder.i2h.weight"].T
    inputs, symbols = np.split(tensors["decoder.gru.weight_ih"], [memory.shape[2]], axis=1)

    def scores(hidden: Floats, tokens: Tokens) -> Floats:
        asked = hidden @ tensors["decoder.h2h.weight"].T + tensors["decoder.h2h.bias"]
        found: Floats = (np.tanh(projected + asked[:, None]) @ tensors["decoder.score.weight"].T)[:, :, 0]
        return found

    def told(context: Floats, tokens: Tokens) -> Floats:
        found: Floats = context @ inputs.T + tensors["decoder.gru.bias_ih"] + symbols[:, tokens].T
        return found

    return scores, told


def _by_position(tensors: Tensors, memory: Floats) -> tuple[Scores, Told]:
    """Return PositionAttention's scores of the positions, and what it tells its GRU."""

    def linear(name: str, inputs: Floats) -> Floats:
        found: Floats = inputs @ tensors[f"decoder.{name}.weight"].T + tensors[f"decoder.{name}.bias"]
        return found

    def beside(tokens: Tokens, values: Floats) -> Floats:
        return np.concatenate([tensors["decoder.embedding.weight"][tokens], values], axis=1)

    def told(context: Floats, tokens: Tokens) -> Floats:
        inputs = np.maximum(linear("combine", beside(tokens, context)), 0)
        found: Floats = inputs @ tensors["decoder.gru.weight_ih"].T + tensors["decoder.gru.bias_ih"]
        return found

    return lambda hidden, tokens: linear("attention", beside(tokens, hidden)), told


def _renewed(told: Floats, kept: Floats, hidden: Floats) -> Floats:
    """Return a GRU cell's next state, of its inputs' share and its state's, each (N, 3 * hidden)."""
    (told_reset, told_update, told_new), (kept_reset, kept_update, kept_new) = (
        np.split(part, 3, axis=1) for part in (told, kept)
    )
    new = np.tanh(told_new + _sigmoid(told_reset + kept_reset) * kept_new)
    renewed: Floats = new + _sigmoid(told_update + kept_update) * (hidden - new)
    return renewed


def _sigmoid(values: Floats) -> Floats:
    return np.asarray(0.5 + 0.5 * np.tanh(0.5 * values), dtype=np.float32)
