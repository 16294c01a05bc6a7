"""The backbone of MindSpore's CRNN-Seq2Seq-OCR in MindSpore, for pictures of several views of one street sign."""

from mindspore import Tensor, nn, ops
from mindspore.common.initializer import HeNormal, initializer

from wordmill.models.architectures import VIEWS, VIEWS_CNN, check_views
from wordmill.models.ms.layers import conv, norm


class ViewsCnn(nn.Cell):
    """One network for four square views: (N, C, 128, 512) to (N, 128, 1, 64), 32 channels of each view in turn.

    The views go through it as one batch, so batch normalisation sees all of them together; the published code
    takes one after the other.
    """

    channels = VIEWS * VIEWS_CNN[-1]

    def __init__(self, channels: int) -> None:
        super().__init__()
        c = (channels, *VIEWS_CNN)
        self.conv1 = conv(c[0], c[1], 3, padding=1)
        self.conv2 = conv(c[1], c[2], 3, padding=1)
        self.conv3, self.bn3 = conv(c[2], c[3], 3, padding=1), norm(c[3])
        self.conv4 = conv(c[3], c[4], 3, padding=1)
        self.conv5, self.bn5 = conv(c[4], c[5], 3, padding=1), norm(c[5])
        self.conv6 = conv(c[5], c[6], 3, padding=1)
        self.conv7, self.bn7 = conv(c[6], c[7], 3, padding=1), norm(c[7])
        self.conv8 = conv(c[7], c[8], 3, padding=1)
        self.conv9, self.bn9 = conv(c[8], c[9], 3, padding=1), norm(c[9])
        self.conv10 = conv(c[9], c[10], 3, padding=1)
        self.conv11, self.bn11 = conv(c[10], c[11], 2, padding=(0, 0, 0, 1)), norm(c[11])
        self.pool = nn.MaxPool2d(2, 2)
        self.pool_height = nn.MaxPool2d((2, 1), (2, 1))
        for layer in self.cells():
            if isinstance(layer, nn.Conv2d):
                layer.weight.set_data(initializer(HeNormal(nonlinearity="relu"), layer.weight.shape))

    def columns(self, width: int) -> int:
        """Return T for pictures of a width, four views of which pooling halves."""
        return width // VIEWS // 2

    def construct(self, x: Tensor) -> Tensor:
        """Return features (N, 128, 1, 64); ValueError for a picture that is not four squares side by side."""
        _, channels, height, width = x.shape
        check_views(height, width)
        views = x.reshape(-1, channels, height, VIEWS, height).transpose(0, 3, 1, 2, 4)
        features = self.read(views.reshape(-1, channels, height, height))
        return features.reshape(-1, self.channels, 1, features.shape[3])

    def read(self, x: Tensor) -> Tensor:
        """Return features (N, 32, 1, 64) of single views (N, C, 128, 128)."""
        x = self.pool(ops.relu(self.conv1(x)))
        x = self.pool_height(ops.relu(self.conv2(x)))
        x = ops.relu(self.bn3(self.conv3(x)))
        x = self.pool_height(ops.relu(self.conv4(x)))
        x = ops.relu(self.bn5(self.conv5(x)))
        x = self.pool_height(ops.relu(self.conv6(x)))
        x = ops.relu(self.bn7(self.conv7(x)))
        x = self.pool_height(ops.relu(self.conv8(x)))
        x = ops.relu(self.bn9(self.conv9(x)))
        x = self.pool_height(ops.relu(self.conv10(x)))
        return ops.relu(self.bn11(self.conv11(x)))
