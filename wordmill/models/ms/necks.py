"""Necks in MindSpore: recurrent layers over the columns, from features (N, C, 1, T) to (N, T, channels)."""

import mindspore as ms
from mindspore import Tensor, nn, ops


class LSTM(nn.LSTM):
    """Bidirectional LSTMs from a state of zeros, without what MindSpore's do for others: each branch is compiled."""

    def __init__(self, inputs: int, hidden: int, layers: int = 1) -> None:
        super().__init__(inputs, hidden, layers, bidirectional=True)

    def construct(self, x: Tensor) -> Tensor:
        """Return what all layers make of x (T, N, inputs), one after the other: (T, N, 2 * hidden)."""
        zeros = ops.zeros((x.shape[1], self.hidden_size), x.dtype)
        for layer in range(self.num_layers):
            ahead, back = self.read(x, zeros, 2 * layer), self.read(self.reverse(x), zeros, 2 * layer + 1)
            x = ops.concat((ahead, self.reverse(back)), axis=2)
        return x

    def read(self, x: Tensor, zeros: Tensor, place: int) -> Tensor:
        """Return what one LSTM makes of x: (T, N, hidden)."""
        weights = self.w_ih_list[place], self.w_hh_list[place], self.b_ih_list[place], self.b_hh_list[place]
        return self.rnn(x, (zeros, zeros), None, *weights)[0]


class BiLstm(nn.Cell):
    """The neck: stacked bidirectional LSTMs over the columns, (N, C, 1, T) to (N, T, 2 * hidden)."""

    def __init__(self, channels: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.channels = 2 * hidden
        self.rnn = LSTM(channels, hidden, layers)

    def construct(self, x: Tensor) -> Tensor:
        """Return features (N, T, 2 * hidden)."""
        # In fp32 on processors, where it has no half-precision kernel (the twin trains in bfloat16); fp16 on Ascend.
        columns = self.rnn(x.astype(ms.float32).squeeze(2).transpose(2, 0, 1))
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
        self.rnns = nn.CellList([LSTM(size, hidden) for size in inputs])
        self.linears = nn.CellList([nn.Dense(2 * hidden, hidden) for _ in inputs[1:]])

    def construct(self, x: Tensor) -> Tensor:
        """Return features (N, T, 2 * hidden)."""
        columns = self.rnns[0](x.astype(ms.float32).squeeze(2).transpose(2, 0, 1))
        for i in range(len(self.linears)):
            columns = self.rnns[i + 1](self.linears[i](columns).astype(ms.float32))
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
