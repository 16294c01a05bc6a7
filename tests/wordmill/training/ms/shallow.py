"""A backbone of two layers for tests of what is done to weights, whose graphs grow with their number."""

from mindspore import Tensor, nn, ops

from wordmill.models.ms.layers import conv, norm


class Shallow(nn.Cell):
    """Stands for the compact backbone: (N, C, 32, W) to (N, 12, 1, W/4)."""

    channels = 12

    def __init__(self, channels: int, height: int = 32) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv(channels, 8, 4, padding=0, stride=4), norm(8)
        self.conv2, self.bn2 = conv(8, 12, (height // 4, 3), padding=(0, 0, 1, 1)), norm(12)

    def columns(self, width: int) -> int:
        """Return T for pictures of a width."""
        return width // 4

    def construct(self, x: Tensor) -> Tensor:
        """Return features (N, 12, 1, T)."""
        return ops.relu(self.bn2(self.conv2(ops.relu(self.bn1(self.conv1(x))))))
