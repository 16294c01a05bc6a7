"""The losses of each sample in PyTorch; targets.py says what classes, lengths and weights are."""

from typing import Any

import torch
from torch.nn.functional import cross_entropy, ctc_loss, pad

from wordmill.text.decoding import AttentionCodec, CtcCodec


def ctc_losses(logits: torch.Tensor, classes: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Return the CTC losses (N,) float32 of logits (N, T, C), classes (N, L) and lengths (N,) int32.

    The lengths lie in the processor's memory, from where PyTorch's kernels are told them.
    """
    lengths = lengths.long()
    frames = torch.full_like(lengths, logits.shape[1])
    likely = logits.float().log_softmax(2).permute(1, 0, 2)
    return ctc_loss(likely, classes, frames, lengths, CtcCodec.BLANK, reduction="none")


def ctc_losses_on_cuda(logits: torch.Tensor, classes: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Return what `ctc_losses` does, all of it on the device; the lengths (N,) lie there too.

    PyTorch's kernel for CUDA copies lengths to the device in every step, and waits until the network is through.
    """
    likely = logits.float().log_softmax(2)
    losses: torch.Tensor = _Ctc.apply(likely, classes, lengths)  # type: ignore[no-untyped-call]
    return losses


class _Ctc(torch.autograd.Function):
    """CTC's loss (Graves et al. 2006, 4.1) of log-probabilities (N, T, C).

    Of a word of L classes there are 2 L + 1 states, blanks around each. How likely all paths are that lead to a state,
    and all that lead on from it, is one recursion: for the latter times and states are taken from behind.
    """

    @staticmethod
    def forward(ctx: Any, likely: torch.Tensor, classes: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Return the losses (N,)."""
        states = pad(classes.long().unsqueeze(2), (1, 0), value=CtcCodec.BLANK).flatten(1)
        states = pad(states, (0, 1), value=CtcCodec.BLANK)
        emitted = likely.gather(2, states.unsqueeze(1).expand(-1, likely.shape[1], -1))
        leaps = (states[:, 2:] != CtcCodec.BLANK) & (states[:, 2:] != states[:, :-2])  # from two states before
        places, ends = torch.arange(states.shape[1], device=likely.device), 2 * lengths.unsqueeze(1)
        first, last = (places < 2).expand_as(states), (places == ends) | (places == ends - 1)
        there, back = _paths(
            torch.cat([emitted, emitted.flip(1, 2)]),
            torch.cat([first, last.flip(1)]),
            pad(torch.cat([leaps, leaps.flip(1)]), (2, 0)),
        ).chunk(2)
        through = there + back.flip(1, 2) - emitted  # each state is in both
        total = there[:, -1].masked_fill(~last, -torch.inf).logsumexp(1)
        ctx.classes = likely.shape[2]
        ctx.save_for_backward(states, (through - total.reshape(-1, 1, 1)).exp())
        return -total

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        """Return the gradient (N, T, C), which is how likely each class is at each time, given the word."""
        states, shares = ctx.saved_tensors
        given = -gradients[0].reshape(-1, 1, 1) * shares
        zeros = given.new_zeros(*given.shape[:2], ctx.classes)
        return zeros.scatter_add_(2, states.unsqueeze(1).expand_as(given), given), None, None


def _paths(emitted: torch.Tensor, starts: torch.Tensor, leaps: torch.Tensor) -> torch.Tensor:
    """Return the log-probabilities (N, T, S) of all paths to each state S at each time, what it emits included.

    A path starts in any state of `starts` (N, S), and comes from the state itself, the one before it, and where `leaps`
    (N, S) says so from the one before that.
    """
    barred = torch.zeros_like(emitted[:, 0]).masked_fill(~leaps, -torch.inf)
    reached = [emitted[:, 0].masked_fill(~starts, -torch.inf)]
    for time in range(1, emitted.shape[1]):
        before = pad(reached[-1], (2, 0), value=-torch.inf)
        stayed = torch.logaddexp(reached[-1], before[:, 1:-1])
        reached.append(torch.logaddexp(stayed, before[:, :-2] + barred) + emitted[:, time])
    return torch.stack(reached, 1)


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
