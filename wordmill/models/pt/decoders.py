"""Attention decoders in PyTorch: from features (N, T, C) to one character's logits after the other."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, linear

from wordmill.models.architectures import DECODER_DROPOUT
from wordmill.models.pt.layers import Dropout
from wordmill.text.decoding import AttentionCodec

Memory = tuple[Tensor, ...]  # what stays from step to step


class Decoder(nn.Module, ABC):
    """A recurrent network that writes `steps` characters, each given the one before."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps

    def forward(
        self, features: Tensor, classes: Tensor | None = None, forced: Tensor | None = None, seeds: Tensor | None = None
    ) -> Tensor:
        """Return logits (N, steps, classes) float32.

        With the labels' classes (N, steps), samples with forced (N,) 1 are told the truth before each step; all
        others go by the likeliest class of the step before. While training, dropout goes by seeds (N,) int32.
        """
        with torch.autocast(features.device.type, enabled=False):
            memory, hidden = self.start(features)
            masks = self.masks(seeds) if self.training and seeds is not None else None
            tokens = torch.full_like(hidden[:, 0], AttentionCodec.GO, dtype=torch.int64)
            rows = []
            for step in range(self.steps):
                logits, hidden = self.step(memory, hidden, tokens, None if masks is None else masks[:, step])
                rows.append(logits)
                tokens = logits.argmax(1)
                if classes is not None and forced is not None:
                    tokens = torch.where(forced > 0, classes[:, step], tokens)
            return torch.stack(rows, 1)

    def masks(self, seeds: Tensor) -> Tensor | None:
        """Return dropout's factors (N, steps, width) float32 for what each step begins with; None: it has no dropout.

        All at once: worked out step by step they would be many small kernels.
        """
        return None

    @abstractmethod
    def start(self, features: Tensor) -> tuple[Memory, Tensor]:
        """Return the memory of features (N, T, C) and the hidden state (N, hidden) before the first step."""

    @abstractmethod
    def step(self, memory: Memory, hidden: Tensor, tokens: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return logits (N, classes) and the next hidden state, given the class (N,) written last and its mask."""


class GruAttention(Decoder):
    """Additive attention (Bahdanau et al. 2015) and a GRU, as RARE (Shi et al. 2016, arXiv 1603.03915) has them."""

    def __init__(self, channels: int, hidden: int, classes: int, steps: int) -> None:
        super().__init__(steps)
        self.channels = channels
        self.i2h = nn.Linear(channels, hidden, bias=False)
        self.h2h = nn.Linear(hidden, hidden)
        self.score = nn.Linear(hidden, 1, bias=False)
        self.gru = nn.GRUCell(channels + classes, hidden)
        self.generator = nn.Linear(hidden, classes)

    def start(self, features: Tensor) -> tuple[Memory, Tensor]:
        """Return the features, their share in the scores and that of each token in the GRU; a hidden state of zeros."""
        features = features.float()
        projected = self.i2h(features)
        # What the cell makes of a one-hot token is a column of its weight: no thousands of zeros are multiplied.
        symbols = self.gru.weight_ih[:, self.channels :].T.contiguous()
        return (features, projected, symbols), torch.zeros_like(projected[:, 0])

    def step(self, memory: Memory, hidden: Tensor, tokens: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return logits (N, classes) and the next hidden state, given the class (N,) written last and its mask."""
        features, projected, symbols = memory
        scores = self.score(torch.tanh(projected + self.h2h(hidden).unsqueeze(1)))
        context = torch.bmm(scores.softmax(1).transpose(1, 2), features).squeeze(1)
        told = linear(context, self.gru.weight_ih[:, : self.channels], self.gru.bias_ih) + embedding(tokens, symbols)
        hidden = _renew(self.gru, told, hidden)
        return self.generator(hidden), hidden


class PositionAttention(Decoder):
    """The decoder of MindSpore's CRNN-Seq2Seq-OCR, whose attention reads what was written and not the features.

    Its weights belong to positions, so it takes features (N, steps, C).
    """

    def __init__(self, channels: int, hidden: int, classes: int, steps: int) -> None:
        super().__init__(steps)
        self.hidden = hidden
        self.bridge = nn.Linear(channels, hidden)
        self.embedding = nn.Embedding(classes, hidden)
        self.dropout = Dropout(DECODER_DROPOUT)
        self.attention = nn.Linear(2 * hidden, steps)
        self.combine = nn.Linear(2 * hidden, hidden)
        self.gru = nn.GRUCell(hidden, hidden)
        self.generator = nn.Linear(hidden, classes)

    def masks(self, seeds: Tensor) -> Tensor | None:
        """Return the factors (N, steps, hidden) of the embedded classes, those of step t, 0.., by salt 1 + t."""
        salts = torch.arange(1, self.steps + 1, dtype=torch.int32, device=seeds.device)
        return self.dropout.masks(seeds, salts, self.hidden)

    def start(self, features: Tensor) -> tuple[Memory, Tensor]:
        """Return the features in the decoder's width, and a hidden state of zeros."""
        bridged = self.bridge(features.float())
        return (bridged,), torch.zeros_like(bridged[:, 0])

    def step(self, memory: Memory, hidden: Tensor, tokens: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return logits (N, classes) and the next hidden state, given the class (N,) written last and its mask."""
        embedded = self.embedding(tokens)
        if mask is not None:
            embedded = embedded * mask
        weights = self.attention(torch.cat([embedded, hidden], 1)).softmax(1)
        context = torch.bmm(weights.unsqueeze(1), memory[0]).squeeze(1)
        inputs = torch.relu(self.combine(torch.cat([embedded, context], 1)))
        hidden = _renew(self.gru, linear(inputs, self.gru.weight_ih, self.gru.bias_ih), hidden)
        return self.generator(hidden), hidden


def _renew(gru: nn.GRUCell, told: Tensor, hidden: Tensor) -> Tensor:
    """Return a cell's next hidden state, with its inputs' share (N, 3 * hidden) worked out already.

    Written out because the ONNX exporter does not take the cell itself with any N.
    """
    kept = linear(hidden, gru.weight_hh, gru.bias_hh)
    told_reset, told_update, told_new = told.chunk(3, 1)
    kept_reset, kept_update, kept_new = kept.chunk(3, 1)
    new = torch.tanh(told_new + torch.sigmoid(told_reset + kept_reset) * kept_new)
    return new + torch.sigmoid(told_update + kept_update) * (hidden - new)
