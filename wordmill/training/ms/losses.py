"""The losses of each sample in MindSpore; targets.py says what classes, lengths and weights are."""

import mindspore as ms
from mindspore import Tensor, nn, ops

from wordmill.text.decoding import AttentionCodec, CtcCodec


def as_written(classes: Tensor, lengths: Tensor) -> Tensor:
    """Return CTC's classes (N, T) of lengths (N,) as those of an attention decoder, (N, T + 1) with STOP behind."""
    spelt = ops.concat((classes, classes[:, :1]), axis=1) + (AttentionCodec.FIRST - CtcCodec.FIRST)
    places, ends = ops.arange(classes.shape[1] + 1), lengths.expand_dims(1)
    written = ops.where(places == ends, ops.full_like(spelt, AttentionCodec.STOP), spelt)
    return ops.where(places > ends, ops.full_like(spelt, AttentionCodec.GO), written)


class CtcLosses(nn.Cell):
    """Connectionist temporal classification (Graves et al. 2006)."""

    def __init__(self) -> None:
        super().__init__()
        self.ctc = nn.CTCLoss(blank=CtcCodec.BLANK, reduction="none", zero_infinity=True)

    def construct(self, logits: Tensor, classes: Tensor, lengths: Tensor) -> Tensor:
        """Return the losses (N,) float32 of logits (N, T, C), classes (N, L) and lengths (N,) int32."""
        likely = ops.log_softmax(logits.astype(ms.float32), axis=2).transpose(1, 0, 2)
        return self.ctc(likely, classes, ops.full_like(lengths, logits.shape[1]), lengths)


class FrameLosses(nn.Cell):
    """Cross entropy of each frame of CTC's logits."""

    def construct(self, logits: Tensor, frames: Tensor) -> Tensor:
        """Return the losses (N,) of logits (N, T, C), summed over the classes `frames` (N, T) int32."""
        likely = ops.log_softmax(logits.astype(ms.float32), axis=2)
        return -ops.gather_elements(likely, 2, frames.expand_dims(2)).sum(axis=(1, 2))


class SequenceLosses(nn.Cell):
    """Cross entropy of what an attention decoder writes."""

    def construct(self, logits: Tensor, classes: Tensor, lengths: Tensor) -> Tensor:
        """Return the losses (N,) of logits (N, T, C), summed over its first `lengths` (N,) classes (N, T)."""
        likely = ops.log_softmax(logits.astype(ms.float32), axis=2)
        losses = -ops.gather_elements(likely, 2, classes.expand_dims(2)).squeeze(2)
        counted = ops.arange(classes.shape[1]) < lengths.expand_dims(1)
        return (losses * counted).sum(axis=1)
