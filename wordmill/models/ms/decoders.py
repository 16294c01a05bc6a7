"""Attention decoders in MindSpore: from features (N, T, C) to one character's logits after the other."""

from abc import ABC, abstractmethod

import mindspore as ms
from mindspore import Tensor, nn, ops
from mindspore.common.initializer import Normal

from wordmill.models.architectures import DECODER_DROPOUT
from wordmill.models.ms.layers import Dropout
from wordmill.text.decoding import AttentionCodec

Memory = tuple[Tensor, ...]  # what stays from step to step


class Decoder(nn.Cell, ABC):
    """A recurrent network that writes `steps` characters, each given the one before."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps

    def construct(
        self, features: Tensor, classes: Tensor | None = None, forced: Tensor | None = None, seeds: Tensor | None = None
    ) -> Tensor:
        """Return logits (N, steps, classes) float32.

        With the labels' classes (N, steps), samples with forced (N,) 1 are told the truth before each step; all
        others go by the likeliest class of the step before. While training, dropout goes by seeds (N,) int32.
        """
        memory, hidden = self.start(features)
        masks = self.masks(seeds) if self.training and seeds is not None else None
        tokens = ops.full_like(hidden[:, 0], AttentionCodec.GO, dtype=ms.int32)
        rows = []
        for step in range(self.steps):
            logits, hidden = self.step(memory, hidden, tokens, None if masks is None else masks[:, step])
            rows.append(logits.expand_dims(1))
            tokens = ops.argmax(logits, dim=1).astype(ms.int32)
            if classes is not None and forced is not None:
                tokens = ops.where(forced > 0, classes[:, step], tokens)
        # `stack` would hold a MindIR file of any batch to the first one's size where a reshape makes the batch.
        return ops.concat(rows, axis=1)

    def masks(self, seeds: Tensor) -> Tensor | None:
        """Return dropout's factors (N, steps, width) float32 for what each step begins with; None: it has no dropout.

        All at once: worked out step by step they would make the graph several times as large.
        """
        return None

    @abstractmethod
    def start(self, features: Tensor) -> tuple[Memory, Tensor]:
        """Return the memory of features (N, T, C) and the hidden state (N, hidden) before the first step."""

    @abstractmethod
    def step(self, memory: Memory, hidden: Tensor, tokens: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return logits (N, classes) and the next hidden state, given the class (N,) written last and a mask."""


class GruAttention(Decoder):
    """Additive attention (Bahdanau et al. 2015) and a GRU, as RARE (Shi et al. 2016, arXiv 1603.03915) has them."""

    def __init__(self, channels: int, hidden: int, classes: int, steps: int) -> None:
        super().__init__(steps)
        self.channels = channels
        self.i2h = nn.Dense(channels, hidden, has_bias=False)
        self.h2h = nn.Dense(hidden, hidden)
        self.score = nn.Dense(hidden, 1, has_bias=False)
        self.gru = nn.GRUCell(channels + classes, hidden)
        self.generator = nn.Dense(hidden, classes)

    def start(self, features: Tensor) -> tuple[Memory, Tensor]:
        """Return the features, their share in the scores and that of each token in the GRU; a hidden state of zeros."""
        features = features.astype(ms.float32)
        projected = self.i2h(features)
        # What the cell makes of a one-hot token is a column of its weight: no thousands of zeros are multiplied.
        symbols = self.gru.weight_ih[:, self.channels :].T
        return (features, projected, symbols), ops.zeros_like(projected[:, 0])

    def step(self, memory: Memory, hidden: Tensor, tokens: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return logits (N, classes) and the next hidden state, given the class (N,) written last and a mask."""
        features, projected, symbols = memory
        scores = self.score(ops.tanh(projected + self.h2h(hidden).expand_dims(1)))
        context = ops.bmm(ops.softmax(scores, axis=1).transpose(0, 2, 1), features).squeeze(1)
        told = ops.matmul(context, self.gru.weight_ih[:, : self.channels].T) + self.gru.bias_ih
        hidden = _renew(self.gru, told + ops.gather(symbols, tokens, 0), hidden)
        return self.generator(hidden), hidden


class PositionAttention(Decoder):
    """The decoder of MindSpore's CRNN-Seq2Seq-OCR, whose attention reads what was written and not the features.

    Its weights belong to positions, so it takes features (N, steps, C).
    """

    def __init__(self, channels: int, hidden: int, classes: int, steps: int) -> None:
        super().__init__(steps)
        self.hidden = hidden
        self.bridge = nn.Dense(channels, hidden)
        self.embedding = nn.Embedding(classes, hidden, embedding_table=Normal(1.0))
        self.dropout = Dropout(DECODER_DROPOUT)
        self.attention = nn.Dense(2 * hidden, steps)
        self.combine = nn.Dense(2 * hidden, hidden)
        self.gru = nn.GRUCell(hidden, hidden)
        self.generator = nn.Dense(hidden, classes)

    def masks(self, seeds: Tensor) -> Tensor | None:
        """Return the factors (N, steps, hidden) of the embedded classes, those of step t, 0.., by salt 1 + t."""
        return self.dropout.masks(seeds, ops.arange(1, self.steps + 1, dtype=ms.int32), self.hidden)

    def start(self, features: Tensor) -> tuple[Memory, Tensor]:
        """Return the features in the decoder's width, and a hidden state of zeros."""
        bridged = self.bridge(features.astype(ms.float32))
        return (bridged,), ops.zeros_like(bridged[:, 0])

    def step(self, memory: Memory, hidden: Tensor, tokens: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return logits (N, classes) and the next hidden state, given the class (N,) written last and a mask."""
        embedded = self.embedding(tokens)
        if mask is not None:
            embedded = embedded * mask
        weights = ops.softmax(self.attention(ops.concat([embedded, hidden], axis=1)), axis=1)
        context = ops.bmm(weights.expand_dims(1), memory[0]).squeeze(1)
        inputs = ops.relu(self.combine(ops.concat([embedded, context], axis=1)))
        hidden = _renew(self.gru, ops.matmul(inputs, self.gru.weight_ih.T) + self.gru.bias_ih, hidden)
        return self.generator(hidden), hidden


def _renew(gru: nn.GRUCell, told: Tensor, hidden: Tensor) -> Tensor:
    """Return a cell's next hidden state, with its inputs' share (N, 3 * hidden) worked out already."""
    kept = ops.matmul(hidden, gru.weight_hh.T) + gru.bias_hh
    told_reset, told_update, told_new = ops.chunk(told, 3, axis=1)
    kept_reset, kept_update, kept_new = ops.chunk(kept, 3, axis=1)
    new = ops.tanh(told_new + ops.sigmoid(told_reset + kept_reset) * kept_new)
    return new + ops.sigmoid(told_update + kept_update) * (hidden - new)
