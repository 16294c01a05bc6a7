"""Between words and class numbers: what each kind of recogniser learns a label as, and what its logits read."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from wordmill.recipe.sections import Data, Model
from wordmill.text.charset import Charset, charset_of

Logits = npt.NDArray[np.float32]
Reading = tuple[list[str], npt.NDArray[np.float32]]  # N texts and N confidences in 0..1


@dataclass(frozen=True, kw_only=True)
class CtcCodec:
    """Connectionist temporal classification (Graves et al. 2006): class 0 is the blank, the characters follow."""

    charset: Charset

    BLANK: ClassVar[int] = 0
    FIRST: ClassVar[int] = 1  # the class of the charset's first character

    @property
    def classes(self) -> int:
        """Number of classes: the characters and the blank."""
        return len(self.charset.symbols) + 1

    def encode(self, text: str) -> list[int]:
        """Return the class numbers, from 1, of the text's characters; characters outside the charset are left out."""
        return [number + self.FIRST for number in self.charset.numbers(text)]

    def decode(self, logits: Logits) -> Reading:
        """Best-path decoding (Graves et al. 2006, 3.2) of logits (N, T, C).

        The confidence is the mean probability of the kept characters, 0 for none.
        """
        best = logits.argmax(axis=2)
        kept = best != self.BLANK
        kept[:, 1:] &= best[:, 1:] != best[:, :-1]
        texts = ["".join(self.charset.symbols[c - 1] for c in row[keep]) for row, keep in zip(best, kept, strict=True)]
        return texts, _confidences(logits, kept)


@dataclass(frozen=True, kw_only=True)
class AttentionCodec:
    """An attention decoder's classes, as MindOCR has them: 0 is GO and padding, 1 is STOP, the characters follow."""

    charset: Charset

    GO: ClassVar[int] = 0
    STOP: ClassVar[int] = 1
    FIRST: ClassVar[int] = 2  # the class of the charset's first character

    @property
    def classes(self) -> int:
        """Number of classes: the characters, GO and STOP."""
        return len(self.charset.symbols) + self.FIRST

    def encode(self, text: str) -> list[int]:
        """Return the class numbers of the text's characters, without STOP; characters outside the charset left out."""
        return [number + self.FIRST for number in self.charset.numbers(text)]

    def decode(self, logits: Logits) -> Reading:
        """Read logits (N, T, C) up to the first STOP; the confidence is the mean probability of the characters.

        As MindOCR scores it, a reading without STOP is an empty text of confidence 0. A deliberate correction: GO
        within a word is left out, where MindOCR would write "<GO>".
        """
        best = logits.argmax(axis=2)
        stops = best == self.STOP
        kept = (np.cumsum(stops, axis=1) == 0) & stops.any(axis=1, keepdims=True) & (best != self.GO)
        symbols = self.charset.symbols
        texts = ["".join(symbols[c - self.FIRST] for c in row[keep]) for row, keep in zip(best, kept, strict=True)]
        return texts, _confidences(logits, kept)


Codec = CtcCodec | AttentionCodec


def codec_of(model: Model, data: Data) -> Codec:
    """Return the codec of a recipe's recogniser."""
    kind = CtcCodec if model.name == "crnn" else AttentionCodec
    return kind(charset=charset_of(data))


def _confidences(logits: Logits, kept: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """Return the mean probability of the likeliest class over the kept steps (N, T) of each sample, 0 for none, (N,).

    Over kept steps alone, which are few: over thousands of classes a softmax of every step takes longer than the rest.
    """
    rows = logits[kept]
    rows -= rows.max(axis=1, keepdims=True)
    peaks = 1.0 / np.exp(rows, out=rows).sum(axis=1)
    sums = np.bincount(np.nonzero(kept)[0], weights=peaks, minlength=len(kept))
    return np.asarray(sums / np.maximum(kept.sum(axis=1), 1), dtype=np.float32)
