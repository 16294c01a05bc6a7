"""The backbone of MindSpore's CRNN-Seq2Seq-OCR in PyTorch, for pictures of several views of one street sign."""

from torch import Tensor, nn
from torch.nn import functional

from wordmill.models.architectures import VIEWS, VIEWS_CNN, check_views


class ViewsCnn(nn.Module):
    """One network for four square views: (N, C, 128, 512) to (N, 128, 1, 64), 32 channels of each view in turn.

    The views go through it as one batch, so batch normalisation sees all of them together; the published code
    takes one after the other.
    """

    channels = VIEWS * VIEWS_CNN[-1]

    def __init__(self, channels: int) -> None:
        super().__init__()
        c = (channels, *VIEWS_CNN)
        self.conv1 = nn.Conv2d(c[0], c[1], 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(c[1], c[2], 3, padding=1, bias=False)
        self.conv3, self.bn3 = nn.Conv2d(c[2], c[3], 3, padding=1, bias=False), nn.BatchNorm2d(c[3])
        self.conv4 = nn.Conv2d(c[3], c[4], 3, padding=1, bias=False)
        self.conv5, self.bn5 = nn.Conv2d(c[4], c[5], 3, padding=1, bias=False), nn.BatchNorm2d(c[5])
        self.conv6 = nn.Conv2d(c[5], c[6], 3, padding=1, bias=False)
        self.conv7, self.bn7 = nn.Conv2d(c[6], c[7], 3, padding=1, bias=False), nn.BatchNorm2d(c[7])
        self.conv8 = nn.Conv2d(c[7], c[8], 3, padding=1, bias=False)
        self.conv9, self.bn9 = nn.Conv2d(c[8], c[9], 3, padding=1, bias=False), nn.BatchNorm2d(c[9])
        self.conv10 = nn.Conv2d(c[9], c[10], 3, padding=1, bias=False)
        self.conv11, self.bn11 = nn.Conv2d(c[10], c[11], 2, bias=False), nn.BatchNorm2d(c[11])
        self.pool = nn.MaxPool2d(2)
        self.pool_height = nn.MaxPool2d((2, 1))
        self.relu = nn.ReLU(inplace=True)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Return features (N, 128, 1, 64); ValueError for a picture that is not four squares side by side."""
        _, channels, height, width = x.shape
        check_views(height, width)
        views = x.reshape(-1, channels, height, VIEWS, height).permute(0, 3, 1, 2, 4)
        features = self.read(views.reshape(-1, channels, height, height))
        return features.reshape(-1, self.channels, 1, features.shape[3])

    def read(self, x: Tensor) -> Tensor:
        """Return features (N, 32, 1, 64) of single views (N, C, 128, 128)."""
        x = self.relu(self.pool(self.conv1(x)))
        x = self.relu(self.pool_height(self.conv2(x)))
        x = self.relu(self.bn3(self.conv3(x)))
        x = self.relu(self.pool_height(self.conv4(x)))
        x = self.relu(self.bn5(self.conv5(x)))
        x = self.relu(self.pool_height(self.conv6(x)))
        x = self.relu(self.bn7(self.conv7(x)))
        x = self.relu(self.pool_height(self.conv8(x)))
        x = self.relu(self.bn9(self.conv9(x)))
        x = self.relu(self.pool_height(self.conv10(x)))
        features: Tensor = self.relu(self.bn11(self.conv11(functional.pad(x, (0, 1)))))
        return features
