"""MindOCR's SVTR-Tiny, written out layer by layer in float64: random weights by its names, and logits."""

import itertools

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.wordmill.inference.published import MINDSPORE, Maker, Weights

STAGES = [(64, 3, 2), (128, 6, 4), (256, 3, 8)]  # channels, blocks, heads
STN = [32, 64, 128, 256, 256, 256]


def svtr_weights(classes: int, seed: int = 1) -> dict[str, np.ndarray]:
    """Return weights by the names in MindOCR's .ckpt files; the control points lie about where they start."""
    maker = Maker(seed)
    for number, (inputs, outputs) in enumerate(itertools.pairwise([3, *STN])):
        maker.add(f"transform.stn_head.stn_convnet.{2 * number}.0.weight", outputs, inputs, 3, 3)
        maker.norm(f"transform.stn_head.stn_convnet.{2 * number}.1", outputs, MINDSPORE)
    _dense(maker, "transform.stn_head.stn_fc1.0", 512, 512)
    maker.norm("transform.stn_head.stn_fc1.1", 512, MINDSPORE)
    maker.weights["transform.stn_head.stn_fc2.weight"] = maker.rng.normal(0, 0.005, (40, 512)).astype(np.float32)
    maker.weights["transform.stn_head.stn_fc2.bias"] = edge_points(0.01).ravel().astype(np.float32)
    maker.add("backbone.pos_embed", 1, 200, 64, low=-0.2, high=0.2)
    for number, (inputs, outputs) in enumerate([(3, 32), (32, 64)]):
        maker.add(f"backbone.patch_embed.proj.{number}.conv.weight", outputs, inputs, 3, 3)
        maker.norm(f"backbone.patch_embed.proj.{number}.norm", outputs, MINDSPORE)
    for stage, (channels, depth, _) in enumerate(STAGES, 1):
        for block in range(depth):
            _block(maker, f"backbone.blocks{stage}.{block}", channels)
        if stage < len(STAGES):
            maker.add(f"backbone.sub_sample{stage}.conv.weight", 2 * channels, channels, 3, 3)
            _layer(maker, f"backbone.sub_sample{stage}.norm", 2 * channels)
    _layer(maker, "backbone.norm", 256)
    maker.add("backbone.last_conv.weight", 192, 256, 1, 1)
    _dense(maker, "head.dense1", classes, 192)
    return maker.weights


def _block(maker: Maker, name: str, channels: int) -> None:
    _layer(maker, f"{name}.norm1", channels)
    _layer(maker, f"{name}.norm2", channels)
    for leaf, outputs, inputs in (("mixer.qkv", 3, 1), ("mixer.proj", 1, 1), ("mlp.fc1", 4, 1), ("mlp.fc2", 1, 4)):
        _dense(maker, f"{name}.{leaf}", outputs * channels, inputs * channels)


def _dense(maker: Maker, name: str, outputs: int, inputs: int) -> None:
    maker.add(f"{name}.weight", outputs, inputs)
    maker.weights[f"{name}.weight"] /= 2
    maker.bias(f"{name}.bias", outputs)


def _layer(maker: Maker, name: str, channels: int) -> None:
    maker.add(f"{name}.gamma", channels, low=0.8, high=1.2)
    maker.bias(f"{name}.beta", channels)


def svtr_logits(weights: dict[str, np.ndarray], images: np.ndarray) -> np.ndarray:
    """Return logits (N, 25, classes), the blank last, of images (N, 64, 256, 3) uint8."""
    w = {name: torch.from_numpy(values).double() for name, values in weights.items()}
    x = (torch.from_numpy(images).permute(0, 3, 1, 2).double() - 127) / 127
    x = rectified(w, x)
    for number in range(2):
        name = f"backbone.patch_embed.proj.{number}"
        x = gelu(normed(w, f"{name}.norm", F.conv2d(x, w[f"{name}.conv.weight"], stride=2, padding=1)))
    x = x.flatten(2).transpose(1, 2) + w["backbone.pos_embed"]
    number, rows = 0, 8
    for stage, (channels, depth, heads) in enumerate(STAGES, 1):
        for block in range(depth):
            x = mixed(w, f"backbone.blocks{stage}.{block}", x, heads, near(rows) if number < 6 else None)
            number += 1
        if stage < len(STAGES):
            x = x.transpose(1, 2).reshape(-1, channels, rows, 25)
            x = F.conv2d(x, w[f"backbone.sub_sample{stage}.conv.weight"], stride=(2, 1), padding=1).flatten(2)
            x, rows = layer(w, f"backbone.sub_sample{stage}.norm", x.transpose(1, 2), 1e-7), rows // 2
    x = layer(w, "backbone.norm", x, 1e-6).transpose(1, 2).reshape(-1, 256, rows, 25).mean(2, keepdim=True)
    x = F.conv2d(x, w["backbone.last_conv.weight"])
    x = (x * (x + 3).clamp(0, 6) / 6).squeeze(2).transpose(1, 2)
    return dense(w, "head.dense1", x).numpy()


def rectified(w: Weights, x: Tensor) -> Tensor:
    """Return pictures (N, 3, 32, 100) of (N, 3, 64, 256): the control points, and the spline through them."""
    y = F.interpolate(x, (32, 64), mode="bilinear", align_corners=False)
    for number in range(6):
        name = f"transform.stn_head.stn_convnet.{2 * number}"
        y = normed(w, f"{name}.1", F.conv2d(y, w[f"{name}.0.weight"], padding=1)).relu()
        y = F.max_pool2d(y, 2) if number < 5 else y
    y = normed(w, "transform.stn_head.stn_fc1.1", dense(w, "transform.stn_head.stn_fc1.0", y.flatten(1))).relu()
    points = dense(w, "transform.stn_head.stn_fc2", 0.1 * y).reshape(-1, 20, 2)
    straight = edge_points(0.05)
    system = np.zeros((23, 23))
    system[:20] = terms(straight, straight)
    system[20:, :20] = terms(straight, straight)[:, 20:].T
    pixels = np.array([(column / 99, row / 31) for row in range(32) for column in range(100)])
    matrix = torch.from_numpy(terms(pixels, straight) @ np.linalg.inv(system)[:, :20])
    grid = 2 * (matrix @ points).clamp(0, 1).reshape(-1, 32, 100, 2) - 1
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def edge_points(margin: float) -> np.ndarray:
    """Return ten points along the upper and ten along the lower edge, (20, 2), x and y from 0 to 1."""
    x = np.linspace(margin, 1 - margin, 10)
    return np.concatenate([np.stack([x, np.full(10, y)], 1) for y in (margin, 1 - margin)])


def terms(places: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return the spline's terms (P, 23) at places (P, 2): r^2 log r to each of 20 points, 1, x and y."""
    squares = ((places[:, None] - points) ** 2).sum(2)
    bends = 0.5 * squares * np.log(np.where(squares > 0, squares, 1))
    return np.concatenate([bends, np.ones((len(places), 1)), places], 1)


def mixed(w: Weights, name: str, x: Tensor, heads: int, window: Tensor | None) -> Tensor:
    """Return what a block makes of patches: attention, then two dense layers, each added."""
    count, patches, channels = x.shape
    split = dense(w, f"{name}.mixer.qkv", layer(w, f"{name}.norm1", x, 1e-6)).reshape(count, patches, 3, heads, -1)
    q, k, v = (split[:, :, part].transpose(1, 2) for part in range(3))
    scores = q @ k.transpose(2, 3) / (channels // heads) ** 0.5
    if window is not None:
        scores = scores.masked_fill(~window, -torch.inf)
    x = x + dense(w, f"{name}.mixer.proj", (scores.softmax(3) @ v).transpose(1, 2).reshape(count, patches, channels))
    inner = gelu(dense(w, f"{name}.mlp.fc1", layer(w, f"{name}.norm2", x, 1e-6)))
    return x + dense(w, f"{name}.mlp.fc2", inner)


def near(rows: int) -> Tensor:
    """Return which patches (P, P) of so many rows of 25 lie within 3 rows and 5 columns of one another."""
    y, x = torch.arange(rows * 25) // 25, torch.arange(rows * 25) % 25
    return ((y[:, None] - y).abs() <= 3) & ((x[:, None] - x).abs() <= 5)


def gelu(x: Tensor) -> Tensor:
    """Return Gaussian error linear units by their approximation with tanh."""
    return 0.5 * x * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3)))


def dense(w: Weights, name: str, x: Tensor) -> Tensor:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def layer(w: Weights, name: str, x: Tensor, epsilon: float) -> Tensor:
    mean, variance = x.mean(2, keepdim=True), x.var(2, unbiased=False, keepdim=True)
    return (x - mean) / (variance + epsilon).sqrt() * w[f"{name}.gamma"] + w[f"{name}.beta"]


def normed(w: Weights, name: str, x: Tensor) -> Tensor:
    gamma, beta, mean, variance = (w[f"{name}.{leaf}"] for leaf in MINDSPORE)
    return F.batch_norm(x, mean, variance, gamma, beta, eps=1e-5)
