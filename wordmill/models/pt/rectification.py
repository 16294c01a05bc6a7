"""Rectification in PyTorch: crooked words made straight before they are read."""

import torch
from torch import Tensor, nn
from torch.nn.functional import grid_sample

from wordmill.models.architectures import (
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
from wordmill.models.tps import CONTROL_POINTS, control_points, pixel_matrix, resize_matrix


class Tps(nn.Module):
    """A spatial transformer (Jaderberg et al. 2015) by a thin-plate spline, as RARE has it: (N, C, H, W) to the same.

    Shi et al. 2016 (arXiv 1603.03915, 3.1); the localisation network has the layers of DTRB (Baek et al. 2019).
    """

    pixels: Tensor

    def __init__(self, channels: int, height: int, width: int) -> None:
        super().__init__()
        c = (channels, *RECTIFIER)
        self.conv1, self.bn1 = nn.Conv2d(c[0], c[1], 3, padding=1, bias=False), nn.BatchNorm2d(c[1])
        self.conv2, self.bn2 = nn.Conv2d(c[1], c[2], 3, padding=1, bias=False), nn.BatchNorm2d(c[2])
        self.conv3, self.bn3 = nn.Conv2d(c[2], c[3], 3, padding=1, bias=False), nn.BatchNorm2d(c[3])
        self.conv4, self.bn4 = nn.Conv2d(c[3], c[4], 3, padding=1, bias=False), nn.BatchNorm2d(c[4])
        self.pool = nn.MaxPool2d(2)
        self.fc1 = nn.Linear(c[4], RECTIFIER_HIDDEN)
        self.fc2 = nn.Linear(RECTIFIER_HIDDEN, 2 * CONTROL_POINTS)
        # Training starts from pictures as they are; DTRB starts from control points on slanting lines.
        nn.init.zeros_(self.fc2.weight)
        with torch.no_grad():
            self.fc2.bias.copy_(torch.from_numpy(control_points().ravel()))
        self.register_buffer("pixels", torch.from_numpy(pixel_matrix(height, width)), persistent=False)

    def locate(self, images: Tensor) -> Tensor:
        """Return where the control points lie in images (N, C, H, W): (N, 20, 2), x and y from -1 to 1."""
        x = self.pool(torch.relu(self.bn1(self.conv1(images))))
        x = self.pool(torch.relu(self.bn2(self.conv2(x))))
        x = self.pool(torch.relu(self.bn3(self.conv3(x))))
        x = torch.relu(self.bn4(self.conv4(x))).mean((2, 3))
        points: Tensor = self.fc2(torch.relu(self.fc1(x)))
        return points.float().reshape(-1, CONTROL_POINTS, 2)

    def forward(self, images: Tensor) -> Tensor:
        """Return the straightened pictures (N, C, H, W) float32; places outside a picture show its nearest edge."""
        points = self.locate(images)
        _, _, height, width = images.shape
        with torch.autocast(images.device.type, enabled=False):
            grid = torch.matmul(self.pixels, points).reshape(-1, height, width, 2)
            return grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=True)


class Stn(nn.Module):
    """MindOCR's STN_ON, after ASTER (Shi et al. 2019): (N, C, H, W) to (N, C, 32, 100), by what it sees at 32x64.

    Places run from 0 to 1 here, from edge to edge; half of a pixel at an edge is what lies outside, which is 0.
    """

    rows: Tensor
    columns: Tensor
    pixels: Tensor

    def __init__(self, channels: int, height: int, width: int) -> None:
        super().__init__()
        c = (channels, *STN)
        self.conv1, self.bn1 = nn.Conv2d(c[0], c[1], 3, padding=1, bias=False), nn.BatchNorm2d(c[1])
        self.conv2, self.bn2 = nn.Conv2d(c[1], c[2], 3, padding=1, bias=False), nn.BatchNorm2d(c[2])
        self.conv3, self.bn3 = nn.Conv2d(c[2], c[3], 3, padding=1, bias=False), nn.BatchNorm2d(c[3])
        self.conv4, self.bn4 = nn.Conv2d(c[3], c[4], 3, padding=1, bias=False), nn.BatchNorm2d(c[4])
        self.conv5, self.bn5 = nn.Conv2d(c[4], c[5], 3, padding=1, bias=False), nn.BatchNorm2d(c[5])
        self.conv6, self.bn6 = nn.Conv2d(c[5], c[6], 3, padding=1, bias=False), nn.BatchNorm2d(c[6])
        self.pool = nn.MaxPool2d(2)
        # Five pools leave one row of two columns.
        self.fc1, self.norm1 = nn.Linear(2 * STN[-1], STN_HIDDEN), nn.BatchNorm1d(STN_HIDDEN)
        self.fc2 = nn.Linear(STN_HIDDEN, 2 * CONTROL_POINTS)
        nn.init.zeros_(self.fc2.weight)
        with torch.no_grad():
            self.fc2.bias.copy_(torch.from_numpy((control_points(STN_START).ravel() + 1) / 2))
        for name, matrix in (("rows", resize_matrix(height, STN_LOOKS[0])),
                             ("columns", resize_matrix(width, STN_LOOKS[1]).T.copy()),
                             ("pixels", pixel_matrix(*STN_MAKES, STN_MARGIN))):  # fmt: skip
            self.register_buffer(name, torch.from_numpy(matrix), persistent=False)

    def locate(self, images: Tensor) -> Tensor:
        """Return where the control points lie in images (N, C, H, W): (N, 20, 2), x and y from 0 to 1."""
        x = torch.matmul(torch.matmul(self.rows, images), self.columns)
        x = self.pool(torch.relu(self.bn1(self.conv1(x))))
        x = self.pool(torch.relu(self.bn2(self.conv2(x))))
        x = self.pool(torch.relu(self.bn3(self.conv3(x))))
        x = self.pool(torch.relu(self.bn4(self.conv4(x))))
        x = self.pool(torch.relu(self.bn5(self.conv5(x))))
        x = torch.relu(self.bn6(self.conv6(x)))
        x = torch.relu(self.norm1(self.fc1(x.flatten(1))))
        points: Tensor = self.fc2(STN_SLOW * x)
        return points.float().reshape(-1, CONTROL_POINTS, 2)

    def forward(self, images: Tensor) -> Tensor:
        """Return the straightened pictures (N, C, 32, 100) float32."""
        points = self.locate(images)
        with torch.autocast(images.device.type, enabled=False):
            grid = torch.matmul(self.pixels, points).clamp(0, 1).reshape(-1, *STN_MAKES, 2)
            return grid_sample(images, 2 * grid - 1, mode="bilinear", padding_mode="zeros", align_corners=False)


Rectifier = Tps | Stn

RECTIFIERS: dict[str, type[Rectifier]] = {"tps": Tps, "stn": Stn}
