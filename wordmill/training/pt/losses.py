"""The losses of each sample in PyTorch; targets.py says what classes, lengths and weights are."""

import torch
from torch.nn.functional import cross_entropy, ctc_loss, pad

from wordmill.text.decoding import AttentionCodec, CtcCodec


def ctc_losses(logits: torch.Tensor, classes: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Return the CTC losses (N,) float32 of logits (N, T, C), classes (N, L) and lengths (N,) int32.

    The lengths lie in the processor's memory: a GPU's kernel is told them from there, and to copy them back would wait.
    """
    lengths = lengths.long()
    frames = torch.full_like(lengths, logits.shape[1])
    likely = logits.float().log_softmax(2).permute(1, 0, 2)
    return ctc_loss(likely, classes, frames, lengths, CtcCodec.BLANK, reduction="none")


def as_written(classes: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Return CTC's classes (N, T) of lengths (N,) as those of an attention decoder, (N, T + 1) with STOP behind."""
    spelt = pad(classes, (0, 1)) + (AttentionCodec.FIRST - CtcCodec.FIRST)
    places, ends = torch.arange(spelt.shape[1], device=classes.device), lengths.unsqueeze(1)
    return spelt.masked_fill(places == ends, AttentionCodec.STOP).masked_fill(places > ends, AttentionCodec.GO)


def frame_losses(logits: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
    """Return the cross entropies (N,) of logits (N, T, C), summed over the classes `frames` (N, T) int32."""
    return cross_entropy(logits.float().transpose(1, 2), frames.long(), reduction="none").sum(1)


def sequence_losses(logits: torch.Tensor, classes: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Return the cross entropies (N,) of logits (N, T, C), summed over its first `lengths` (N,) classes (N, T)."""
    losses = cross_entropy(logits.float().transpose(1, 2), classes.long(), reduction="none")
    counted = torch.arange(classes.shape[1], device=classes.device) < lengths.unsqueeze(1)
    return (losses * counted).sum(1)
