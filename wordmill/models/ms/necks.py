"""Necks in MindSpore: recurrent layers over the columns, from features (N, C, 1, T) to (N, T, channels)."""

import mindspore as ms
from mindspore import Tensor, nn


class BiLstm(nn.Cell):
    """The neck: stacked bidirectional LSTMs over the columns, (N, C, 1, T) to (N, T, 2 * hidden)."""

    def __init__(self, channels: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.channels = 2 * hidden
        self.rnn = nn.LSTM(channels, hidden, layers, bidirectional=True)

    def construct(self, x: Tensor) -> Tensor:
        """Return features (N, T, 2 * hidden)."""
        # In fp32 on processors, where it has no half-precision kernel (the twin trains in bfloat16); fp16 on Ascend.
        columns, _ = self.rnn(x.astype(ms.float32).squeeze(2).transpose(2, 0, 1))
        return columns.transpose(1, 0, 2)


class BiLstmLinked(nn.Cell):
    """Bidirectional LSTMs with a linear layer 2 * hidden to hidden from each to the next, to (N, T, 2 * hidden).

    As in the CRNN of Ascend's ModelZoo-PyTorch and in MindSpore's CRNN-Seq2Seq-OCR; what they call the last LSTM's
    linear layer is that of the head or decoder here.
    """

    def __init__(self, channels: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.channels = 2 * hidden
        inputs = [channels] + [hidden] * (layers - 1)
        self.rnns = nn.CellList([nn.LSTM(size, hidden, bidirectional=True) for size in inputs])
        self.linears = nn.CellList([nn.Dense(2 * hidden, hidden) for _ in inputs[1:]])

    def construct(self, x: Tensor) -> Tensor:
        """Return features (N, T, 2 * hidden)."""
        columns, _ = self.rnns[0](x.astype(ms.float32).squeeze(2).transpose(2, 0, 1))
        for i in range(len(self.linears)):
            columns, _ = self.rnns[i + 1](self.linears[i](columns).astype(ms.float32))
        return columns.transpose(1, 0, 2)


class Columns(nn.Cell):
    """No neck: columns as the backbone makes them, (N, C, 1, T) to (N, T, C)."""

    def __init__(self, channels: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.channels = channels

    def construct(self, x: Tensor) -> Tensor:
        """Return features (N, T, C) float32."""
        return x.astype(ms.float32).squeeze(2).transpose(0, 2, 1)


Neck = BiLstm | BiLstmLinked | Columns

NECKS: dict[str, type[Neck]] = {"bilstm": BiLstm, "bilstm_linked": BiLstmLinked, "none": Columns}
