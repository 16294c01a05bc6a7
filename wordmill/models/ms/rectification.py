"""Rectification in MindSpore: crooked words made straight before they are read."""

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from wordmill.models.architectures import RECTIFIER, RECTIFIER_HIDDEN
from wordmill.models.ms.layers import norm
from wordmill.models.tps import CONTROL_POINTS, control_points, pixel_matrix


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
