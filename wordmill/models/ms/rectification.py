"""Rectification in MindSpore: crooked words made straight before they are read."""

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from wordmill.models.architectures import (
    NORM_EPSILON,
    RECTIFIER,
    RECTIFIER_HIDDEN,
    STN,
    STN_HIDDEN,
    STN_LOOKS,
    STN_MAKES,
    STN_MARGIN,
    STN_SLOW,
    STN_START,
)  # fmt: skip
from wordmill.models.ms.layers import norm
from wordmill.models.tps import CONTROL_POINTS, control_points, pixel_matrix, resize_matrix


class Tps(nn.Cell):
    """A spatial transformer (Jaderberg et al. 2015) by a thin-plate spline, as RARE has it: (N, C, H, W) to the same.

    Shi et al. 2016 (arXiv 1603.03915, 3.1); the localisation network has the layers of DTRB (Baek et al. 2019).
    """

    def __init__(self, channels: int, height: int, width: int) -> None:
        super().__init__()
        c = (channels, *RECTIFIER)
        self.conv1, self.bn1 = _conv(c[0], c[1]), norm(c[1])
        self.conv2, self.bn2 = _conv(c[1], c[2]), norm(c[2])
        self.conv3, self.bn3 = _conv(c[2], c[3]), norm(c[3])
        self.conv4, self.bn4 = _conv(c[3], c[4]), norm(c[4])
        self.pool = nn.MaxPool2d(2, 2)
        self.fc1 = nn.Dense(c[4], RECTIFIER_HIDDEN)
        # Training starts from pictures as they are; DTRB starts from control points on slanting lines.
        straight = Tensor(control_points().ravel().astype(np.float32))
        self.fc2 = nn.Dense(RECTIFIER_HIDDEN, 2 * CONTROL_POINTS, weight_init="zeros", bias_init=straight)
        self.height, self.width = height, width
        self.pixels = Tensor(pixel_matrix(height, width))

    def locate(self, images: Tensor) -> Tensor:
        """Return where the control points lie in images (N, C, H, W): (N, 20, 2), x and y from -1 to 1."""
        x = self.pool(ops.relu(self.bn1(self.conv1(images))))
        x = self.pool(ops.relu(self.bn2(self.conv2(x))))
        x = self.pool(ops.relu(self.bn3(self.conv3(x))))
        x = ops.relu(self.bn4(self.conv4(x))).mean((2, 3))
        points = self.fc2(ops.relu(self.fc1(x)))
        return points.astype(ms.float32).reshape(-1, CONTROL_POINTS, 2)

    def construct(self, images: Tensor) -> Tensor:
        """Return the straightened pictures (N, C, H, W) float32; places outside a picture show its nearest edge."""
        points = self.locate(images)
        grid = ops.matmul(self.pixels, points).reshape(-1, self.height, self.width, 2)
        return ops.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=True)


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, pad_mode="pad", padding=1, has_bias=False)


class Stn(nn.Cell):
    """MindOCR's STN_ON, after ASTER (Shi et al. 2019): (N, C, H, W) to (N, C, 32, 100), by what it sees at 32x64.

    Places run from 0 to 1 here, from edge to edge; half of a pixel at an edge is what lies outside, which is 0.
    """

    def __init__(self, channels: int, height: int, width: int) -> None:
        super().__init__()
        c = (channels, *STN)
        self.conv1, self.bn1 = _conv(c[0], c[1]), norm(c[1])
        self.conv2, self.bn2 = _conv(c[1], c[2]), norm(c[2])
        self.conv3, self.bn3 = _conv(c[2], c[3]), norm(c[3])
        self.conv4, self.bn4 = _conv(c[3], c[4]), norm(c[4])
        self.conv5, self.bn5 = _conv(c[4], c[5]), norm(c[5])
        self.conv6, self.bn6 = _conv(c[5], c[6]), norm(c[6])
        self.pool = nn.MaxPool2d(2, 2)
        # Five pools leave one row of two columns.
        self.fc1 = nn.Dense(2 * STN[-1], STN_HIDDEN)
        self.norm1 = nn.BatchNorm1d(STN_HIDDEN, eps=NORM_EPSILON, momentum=0.9)
        straight = Tensor(((control_points(STN_START).ravel() + 1) / 2).astype(np.float32))
        self.fc2 = nn.Dense(STN_HIDDEN, 2 * CONTROL_POINTS, weight_init="zeros", bias_init=straight)
        self.shape = channels, height, width
        self.rows = Tensor(resize_matrix(height, STN_LOOKS[0]).T.copy())
        self.columns = Tensor(resize_matrix(width, STN_LOOKS[1]).T.copy())
        self.pixels = Tensor(pixel_matrix(*STN_MAKES, STN_MARGIN).T.copy())

    def locate(self, images: Tensor) -> Tensor:
        """Return where the control points lie in images (N, C, H, W): (N, 20, 2), x and y from 0 to 1."""
        x = self.shrink(images)
        x = self.pool(ops.relu(self.bn1(self.conv1(x))))
        x = self.pool(ops.relu(self.bn2(self.conv2(x))))
        x = self.pool(ops.relu(self.bn3(self.conv3(x))))
        x = self.pool(ops.relu(self.bn4(self.conv4(x))))
        x = self.pool(ops.relu(self.bn5(self.conv5(x))))
        x = ops.relu(self.bn6(self.conv6(x)))
        x = ops.relu(self.norm1(self.fc1(x.reshape(-1, 2 * STN[-1]))))
        return self.fc2(STN_SLOW * x).astype(ms.float32).reshape(-1, CONTROL_POINTS, 2)

    def shrink(self, images: Tensor) -> Tensor:
        """Return images resized to what it looks at, (N, C, 32, 64).

        Everything here is multiplied as plain matrices: of other ones MindSpore does not know the sizes in a graph.
        """
        channels, height, width = self.shape
        narrow = ops.matmul(images.reshape(-1, width), self.columns).reshape(-1, height, STN_LOOKS[1])
        small = ops.matmul(narrow.transpose(0, 2, 1).reshape(-1, height), self.rows)
        return small.reshape(-1, channels, STN_LOOKS[1], STN_LOOKS[0]).transpose(0, 1, 3, 2)

    def construct(self, images: Tensor) -> Tensor:
        """Return the straightened pictures (N, C, 32, 100) float32."""
        points = self.locate(images).transpose(0, 2, 1).reshape(-1, CONTROL_POINTS)
        places = ops.clamp(ops.matmul(points, self.pixels), 0.0, 1.0)
        grid = places.reshape(-1, 2, STN_MAKES[0] * STN_MAKES[1]).transpose(0, 2, 1).reshape(-1, *STN_MAKES, 2)
        return ops.grid_sample(images, 2 * grid - 1, mode="bilinear", padding_mode="zeros", align_corners=False)


Rectifier = Tps | Stn

RECTIFIERS: dict[str, type[Rectifier]] = {"tps": Tps, "stn": Stn}
