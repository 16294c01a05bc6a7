"""None-VGG-BiLSTM-CTC as deep-text-recognition-benchmark (Baek et al. 2019, arXiv 1904.01906) trains it.

No registry has it, so it is written here from its published layers: 8,451,621 parameters and 24 steps for 32x100
pictures in grey. It computes in float32, contiguous, and learns by Adadelta with gradients clipped at 5.
"""

import numpy as np
import torch
from torch import nn
from torch.nn.functional import ctc_loss, relu

from benchmarks.contender import Contender, made_pictures, made_words
from wordmill.pictures.image import normalise, to_channels
from wordmill.recipe.sections import Recipe
from wordmill.text.charset import charset_of

HIDDEN, CLIP = 256, 5.0


class VggBiLstmCtc(nn.Module):
    """Grey pictures (N, 1, 32, W) float32 to logits (N, W/4 - 1, classes)."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 64, 3, padding=1), nn.ReLU(True), nn.MaxPool2d(2),
            nn.Conv2d(64, 128, 3, padding=1), nn.ReLU(True), nn.MaxPool2d(2),
            nn.Conv2d(128, 256, 3, padding=1), nn.ReLU(True),
            nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(True), nn.MaxPool2d((2, 1)),
            nn.Conv2d(256, 512, 3, padding=1, bias=False), nn.BatchNorm2d(512), nn.ReLU(True),
            nn.Conv2d(512, 512, 3, padding=1, bias=False), nn.BatchNorm2d(512), nn.ReLU(True), nn.MaxPool2d((2, 1)),
            nn.Conv2d(512, 512, 2),
        )  # fmt: skip
        self.first, self.between = nn.LSTM(512, HIDDEN, bidirectional=True, batch_first=True), nn.Linear(512, HIDDEN)
        self.second, self.after = nn.LSTM(HIDDEN, HIDDEN, bidirectional=True, batch_first=True), nn.Linear(512, HIDDEN)
        self.head = nn.Linear(HIDDEN, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        columns = relu(self.features(images)).mean(2).transpose(1, 2)
        columns = self.between(self.first(columns)[0])
        logits: torch.Tensor = self.head(self.after(self.second(columns)[0]))
        return logits


def contender(recipe: Recipe, mode: str, batch: int, device: str) -> Contender:
    """Return one training step, or one batch's prediction."""
    symbols = charset_of(recipe.data).symbols
    net = VggBiLstmCtc(len(symbols) + 1).to(device)
    grey = [to_channels(picture, 1) for picture in made_pictures(recipe, batch)]
    images = torch.from_numpy(normalise(np.stack(grey), 127.5)).to(device)
    if mode == "inference":
        net.eval()
        return Contender(torch.inference_mode()(lambda: net(images).cpu()))
    words = made_words(recipe, batch)
    classes = torch.tensor([1 + symbols.index(symbol) for word in words for symbol in word]).to(device)
    lengths = torch.tensor([len(word) for word in words])
    optimizer = torch.optim.Adadelta(net.parameters(), lr=1.0, rho=0.95, eps=1e-8)

    def step() -> float:
        likely = net(images).log_softmax(2).permute(1, 0, 2)
        steps = torch.full((batch,), likely.shape[0])
        loss = ctc_loss(likely, classes, steps, lengths, zero_infinity=True)
        net.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(net.parameters(), CLIP)
        optimizer.step()
        return loss.item()

    return Contender(step)
