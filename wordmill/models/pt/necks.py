"""Necks in PyTorch: recurrent layers over the columns, from features (N, C, 1, T) to (N, T, channels)."""

from torch import Tensor, nn


class BiLstm(nn.Module):
    """The neck: stacked bidirectional LSTMs over the columns, (N, C, 1, T) to (N, T, 2 * hidden)."""

    def __init__(self, channels: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.channels = 2 * hidden
        self.rnn = nn.LSTM(channels, hidden, layers, bidirectional=True)

    def forward(self, x: Tensor) -> Tensor:
        """Return features (N, T, 2 * hidden) float32; inside it computes in the precision of its input."""
        columns: Tensor = self.rnn(x.squeeze(2).permute(2, 0, 1).contiguous())[0]
        return columns.float().permute(1, 0, 2)


class BiLstmLinked(nn.Module):
    """Bidirectional LSTMs with a linear layer 2 * hidden to hidden from each to the next, to (N, T, 2 * hidden).

    As in the CRNN of Ascend's ModelZoo-PyTorch and in MindSpore's CRNN-Seq2Seq-OCR; what they call the last LSTM's
    linear layer is that of the head or decoder here.
    """

    def __init__(self, channels: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.channels = 2 * hidden
        inputs = [channels] + [hidden] * (layers - 1)
        self.rnns = nn.ModuleList(nn.LSTM(size, hidden, bidirectional=True) for size in inputs)
        self.linears = nn.ModuleList(nn.Linear(2 * hidden, hidden) for _ in inputs[1:])

    def forward(self, x: Tensor) -> Tensor:
        """Return features (N, T, 2 * hidden) float32; inside it computes in the precision of its input."""
        columns: Tensor = self.rnns[0](x.squeeze(2).permute(2, 0, 1).contiguous())[0]
        for linear, rnn in zip(self.linears, self.rnns[1:], strict=True):
            columns = rnn(linear(columns))[0]
        return columns.float().permute(1, 0, 2)


class Columns(nn.Module):
    """No neck: columns as the backbone makes them, (N, C, 1, T) to (N, T, C)."""

    def __init__(self, channels: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        """Return features (N, T, C) float32."""
        return x.squeeze(2).float().permute(0, 2, 1)


Neck = BiLstm | BiLstmLinked | Columns

NECKS: dict[str, type[Neck]] = {"bilstm": BiLstm, "bilstm_linked": BiLstmLinked, "none": Columns}
