"""Training as deep-text-recognition-benchmark's train.py does it: its loader, its loop, written anew.

python -m benchmarks.peers.dtrb_training LMDB BATCH STEPS FOLDER

Each step draws a batch in the loop's own process, encodes its labels sample by sample, computes in float32 and learns
by Adadelta with gradients clipped at 5. The original's DataParallel does nothing on a processor.
"""

import itertools
import sys
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import ctc_loss

from benchmarks.peers import loaders
from benchmarks.peers.dtrb import CLIP, VggBiLstmCtc
from wordmill.training.records import Pulse

GRAY = 1


class Converter:
    """Labels as CTC takes them; 0 is the blank."""

    def __init__(self) -> None:
        self.numbers = {symbol: number for number, symbol in enumerate(loaders.CHARACTERS, start=1)}

    def encode(self, labels: tuple[str, ...]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the classes (N, 25) int64, padded with 0, and their numbers (N,) int32."""
        classes = torch.zeros(len(labels), loaders.DTRB_LONGEST, dtype=torch.int64)
        for row, label in enumerate(labels):
            classes[row, : len(label)] = torch.tensor([self.numbers[symbol] for symbol in label])
        return classes, torch.tensor([len(label) for label in labels], dtype=torch.int32)


def train(root: Path, batch: int, steps: int, pulse: Pulse) -> list[float]:
    """Train on an LMDB environment and return the losses; `pulse` beats after every step."""
    torch.manual_seed(1111)
    net, converter = VggBiLstmCtc(len(loaders.CHARACTERS) + 1).train(), Converter()
    optimizer = torch.optim.Adadelta(net.parameters(), lr=1.0, rho=0.95, eps=1e-8)
    losses = []
    with loaders.opened(root) as environment:
        loader = loaders.dtrb(environment, batch, channels=GRAY)
        batches = itertools.chain.from_iterable(itertools.repeat(loader))
        for step, (images, labels) in enumerate(itertools.islice(batches, steps), start=1):
            classes, lengths = converter.encode(labels)
            likely = net(images).log_softmax(2).permute(1, 0, 2)
            sizes = torch.full((len(labels),), likely.shape[0], dtype=torch.int32)
            loss = ctc_loss(likely, classes, sizes, lengths, zero_infinity=True)
            net.zero_grad()
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(net.parameters(), CLIP)
            optimizer.step()
            losses.append(loss.item())
            pulse.beat(step)
    return losses


if __name__ == "__main__":
    train(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), Pulse(Path(sys.argv[4]), 0))
