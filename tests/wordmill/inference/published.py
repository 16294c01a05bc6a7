"""Published recognisers, written out layer by layer in float64: random weights by their published names, and logits."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Weights = dict[str, Tensor]
VGG7 = [(64, 3), (128, 3), (256, 3), (256, 3), (512, 3), (512, 3), (512, 2)]  # channels and kernel of each layer
NORMALISED = (3, 5, 7)  # VGG7's layers, from 1, with batch normalisation
BLOCKS = [(64, 3), (128, 4), (256, 6), (512, 3)]  # ResNet34's stages: channels and blocks


class Maker:
    """Collects random weights that keep activations alive through many layers."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.weights: dict[str, np.ndarray] = {}

    def add(self, name: str, *shape: int, low: float = 0.0, high: float = 0.0) -> None:
        fan_in = int(np.prod(shape[1:]))
        values = self.rng.uniform(low, high, shape) if high else self.rng.normal(0, np.sqrt(2 / fan_in), shape)
        self.weights[name] = values.astype(np.float32)

    def bias(self, name: str, channels: int) -> None:
        self.add(name, channels, low=-0.1, high=0.1)

    def norm(self, name: str, channels: int, leaves: tuple[str, str, str, str]) -> None:
        for leaf, low, high in zip(leaves, (0.8, -0.1, -0.1, 0.5), (1.2, 0.1, 0.1, 1.5), strict=True):
            self.add(f"{name}.{leaf}", channels, low=low, high=high)

    def lstm(self, name: str, inputs: int, hidden: int, suffix: str) -> None:
        self.add(f"{name}.weight_ih_{suffix}", 4 * hidden, inputs)
        self.add(f"{name}.weight_hh_{suffix}", 4 * hidden, hidden)
        self.bias(f"{name}.bias_ih_{suffix}", 4 * hidden)
        self.bias(f"{name}.bias_hh_{suffix}", 4 * hidden)


MINDSPORE = ("gamma", "beta", "moving_mean", "moving_variance")
TORCH = ("weight", "bias", "running_mean", "running_var")


def mindocr_weights(backbone: str, hidden: int, classes: int, head: str, seed: int = 1) -> dict[str, np.ndarray]:
    """Return weights by the names in MindOCR's .ckpt files; backbone vgg7 or resnet34, head ctc or attention."""
    maker = Maker(seed)
    _mindocr_vgg7(maker) if backbone == "vgg7" else _mindocr_resnet34(maker)
    for layer, inputs in ((0, 512), (1, 2 * hidden)):
        for direction in ("", "_reverse"):
            maker.lstm("neck.seq_encoder", inputs, hidden, f"l{layer}{direction}")
    if head == "ctc":
        maker.add("head.dense1.weight", classes, 2 * hidden)
        maker.bias("head.dense1.bias", classes)
        return maker.weights
    cell = "head.attention_cell"
    maker.add(f"{cell}.i2h.weight", 256, 2 * hidden)
    maker.add(f"{cell}.h2h.weight", 256, 256)
    maker.bias(f"{cell}.h2h.bias", 256)
    maker.add(f"{cell}.score.weight", 1, 256)
    maker.add(f"{cell}.rnn.weight_ih", 768, 2 * hidden + classes)
    maker.add(f"{cell}.rnn.weight_hh", 768, 256)
    maker.bias(f"{cell}.rnn.bias_ih", 768)
    maker.bias(f"{cell}.rnn.bias_hh", 768)
    maker.add("head.generator.weight", classes, 256)
    maker.bias("head.generator.bias", classes)
    return maker.weights


def _mindocr_vgg7(maker: Maker) -> None:
    inputs = 3
    for number, (channels, kernel) in enumerate(VGG7, start=1):
        maker.add(f"backbone.conv{number}.conv.weight", channels, inputs, kernel, kernel)
        maker.bias(f"backbone.conv{number}.conv.bias", channels)
        if number in NORMALISED:
            maker.norm(f"backbone.conv{number}.bn", channels, MINDSPORE)
        inputs = channels


def _mindocr_resnet34(maker: Maker) -> None:
    def unit(name: str, inputs: int, outputs: int, kernel: int) -> None:
        maker.add(f"backbone.{name}.conv.weight", outputs, inputs, kernel, kernel)
        maker.norm(f"backbone.{name}.norm", outputs, MINDSPORE)

    for name, inputs, outputs in (("conv1_1", 3, 32), ("conv1_2", 32, 32), ("conv1_3", 32, 64)):
        unit(name, inputs, outputs, 3)
    inputs, block = 64, 0
    for channels, blocks in BLOCKS:
        for first in (True, *[False] * (blocks - 1)):
            unit(f"block_list.{block}.conv0", inputs, channels, 3)
            unit(f"block_list.{block}.conv1", channels, channels, 3)
            if first:
                unit(f"block_list.{block}.short", inputs, channels, 1)
            inputs, block = channels, block + 1


def mindocr_logits(weights: dict[str, np.ndarray], images: np.ndarray, steps: int) -> np.ndarray:
    """Return what MindOCR computes of images (N, H, W, 3) uint8: logits (N, T, classes), an attention's in `steps`."""
    w = {name: torch.from_numpy(values).double() for name, values in weights.items()}
    x = (torch.from_numpy(images).double().permute(0, 3, 1, 2) - 127) / 127
    x = _resnet34(w, x) if "backbone.conv1_1.conv.weight" in w else _vgg7(w, x)
    x = x.squeeze(2).permute(2, 0, 1)
    for layer in ("l0", "l1"):
        x = _both_ways(w, "neck.seq_encoder", x, layer, f"{layer}_reverse")
    x = x.permute(1, 0, 2)
    if "head.dense1.weight" in w:
        return F.linear(x, w["head.dense1.weight"], w["head.dense1.bias"]).numpy()
    return _attention(w, x, steps).numpy()


def _normed(w: Weights, x: Tensor, name: str, leaves: tuple[str, str, str, str], eps: float) -> Tensor:
    weight, bias, mean, variance = (w[f"{name}.{leaf}"] for leaf in leaves)
    return F.batch_norm(x, mean, variance, weight, bias, eps=eps)


def _vgg7(w: Weights, x: Tensor) -> Tensor:
    for number in range(1, 8):
        name = f"backbone.conv{number}"
        x = F.conv2d(x, w[f"{name}.conv.weight"], w[f"{name}.conv.bias"], padding=0 if number == 7 else 1)
        x = F.relu(_normed(w, x, f"{name}.bn", MINDSPORE, 1e-4) if number in NORMALISED else x)
        if number in (1, 2):
            x = F.max_pool2d(x, 2)
        if number in (4, 6):
            x = F.max_pool2d(x, (2, 1))
    return x


def _resnet34(w: Weights, x: Tensor) -> Tensor:
    def unit(x: Tensor, name: str, stride: tuple[int, int] = (1, 1)) -> Tensor:
        kernel = w[f"backbone.{name}.conv.weight"]
        x = F.conv2d(x, kernel, stride=stride, padding=kernel.shape[2] // 2)
        return _normed(w, x, f"backbone.{name}.norm", MINDSPORE, 1e-5)

    for name in ("conv1_1", "conv1_2", "conv1_3"):
        x = F.relu(unit(x, name))
    # MindSpore's padding "same" of an even side puts the one row and column that are missing at the end.
    x = F.max_pool2d(F.pad(x, (0, 1, 0, 1)), 3, 2)  # after ReLU no value lies below the zeros
    starts = np.cumsum([0, *(blocks for _, blocks in BLOCKS)])
    for block in range(starts[-1]):
        name, halved = f"block_list.{block}", block in starts[1:]
        y = unit(F.relu(unit(x, f"{name}.conv0", (2, 1) if halved else (1, 1))), f"{name}.conv1")
        if halved:
            x = F.avg_pool2d(x, (2, 1))
        x = F.relu(y + (unit(x, f"{name}.short") if block in starts else x))
    return F.max_pool2d(x, 2)


def _lstm(w: Weights, name: str, x: Tensor, suffix: str) -> Tensor:
    """Return the hidden states (T, N, H) of x (T, N, C)."""
    hidden = cell = x.new_zeros(x.shape[1], w[f"{name}.weight_hh_{suffix}"].shape[1])
    states = []
    for column in x:
        gates = F.linear(column, w[f"{name}.weight_ih_{suffix}"], w[f"{name}.bias_ih_{suffix}"])
        gates = gates + F.linear(hidden, w[f"{name}.weight_hh_{suffix}"], w[f"{name}.bias_hh_{suffix}"])
        into, forget, new, out = gates.chunk(4, 1)
        cell = torch.sigmoid(forget) * cell + torch.sigmoid(into) * torch.tanh(new)
        hidden = torch.sigmoid(out) * torch.tanh(cell)
        states.append(hidden)
    return torch.stack(states)


def _both_ways(w: Weights, name: str, x: Tensor, forwards: str, backwards: str) -> Tensor:
    return torch.cat([_lstm(w, name, x, forwards), _lstm(w, name, x.flip(0), backwards).flip(0)], 2)


def _attention(w: Weights, x: Tensor, steps: int) -> Tensor:
    def linear(x: Tensor, name: str) -> Tensor:
        return F.linear(x, w[f"head.{name}.weight"], w.get(f"head.{name}.bias"))

    classes = w["head.generator.weight"].shape[0]
    hidden, token, rows = x.new_zeros(len(x), 256), torch.zeros(len(x), dtype=torch.int64), []
    for _ in range(steps):
        scores = linear(torch.tanh(linear(x, "attention_cell.i2h") + linear(hidden, "attention_cell.h2h")[:, None]),
                        "attention_cell.score")  # fmt: skip
        context = (scores.softmax(1) * x).sum(1)
        told = torch.cat([context, F.one_hot(token, classes).double()], 1)
        cell = "head.attention_cell.rnn"
        from_told = F.linear(told, w[f"{cell}.weight_ih"], w[f"{cell}.bias_ih"]).chunk(3, 1)
        from_hidden = F.linear(hidden, w[f"{cell}.weight_hh"], w[f"{cell}.bias_hh"]).chunk(3, 1)
        reset, update = (torch.sigmoid(a + b) for a, b in zip(from_told[:2], from_hidden[:2], strict=True))
        new = torch.tanh(from_told[2] + reset * from_hidden[2])
        hidden = (1 - update) * new + update * hidden
        rows.append(linear(hidden, "generator"))
        token = rows[-1].argmax(1)
    return torch.stack(rows, 1)


def crnn_weights(classes: int, split: bool, seed: int = 2) -> dict[str, np.ndarray]:
    """Return weights by the names in CRNN's .pth files; `split`: as Ascend's port, with an LSTM for each direction."""
    maker, inputs = Maker(seed), 1
    for number, (channels, kernel) in enumerate(VGG7):
        maker.add(f"cnn.conv{number}.weight", channels, inputs, kernel, kernel)
        maker.bias(f"cnn.conv{number}.bias", channels)
        if number + 1 in NORMALISED:
            maker.norm(f"cnn.batchnorm{number}", channels, TORCH)
        inputs = channels
    for number, outputs in ((0, 256), (1, classes)):
        for direction in ("fw", "bw"):
            name = f"rnn.{number}.{direction}_rnn" if split else f"rnn.{number}.rnn"
            maker.lstm(name, inputs, 256, "l0_reverse" if direction == "bw" and not split else "l0")
        maker.add(f"rnn.{number}.embedding.weight", outputs, 512)
        maker.bias(f"rnn.{number}.embedding.bias", outputs)
        inputs = outputs
    return maker.weights


def crnn_logits(weights: dict[str, np.ndarray], images: np.ndarray) -> np.ndarray:
    """Return what CRNN computes of images (N, 32, W, 1) uint8: logits (N, T, classes), before its log_softmax."""
    w = {name: torch.from_numpy(values).double() for name, values in weights.items()}
    x = (torch.from_numpy(images).double().permute(0, 3, 1, 2) / 255 - 0.5) / 0.5
    for number in range(7):
        x = F.conv2d(x, w[f"cnn.conv{number}.weight"], w[f"cnn.conv{number}.bias"], padding=0 if number == 6 else 1)
        x = F.relu(_normed(w, x, f"cnn.batchnorm{number}", TORCH, 1e-5) if number + 1 in NORMALISED else x)
        if number in (0, 1):
            x = F.max_pool2d(x, 2)
        if number in (3, 5):
            x = F.max_pool2d(x, 2, (2, 1), (0, 1))
    x = x.squeeze(2).permute(2, 0, 1)
    for block in (f"rnn.{number}" for number in (0, 1)):
        if f"{block}.fw_rnn.weight_ih_l0" in w:
            ways = [_lstm(w, f"{block}.fw_rnn", x, "l0"), _lstm(w, f"{block}.bw_rnn", x.flip(0), "l0").flip(0)]
            x = torch.cat(ways, 2)
        else:
            x = _both_ways(w, f"{block}.rnn", x, "l0", "l0_reverse")
        x = F.linear(x, w[f"{block}.embedding.weight"], w[f"{block}.embedding.bias"])
    return x.permute(1, 0, 2).numpy()
