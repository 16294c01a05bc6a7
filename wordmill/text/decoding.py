"""Between words and class numbers: what each kind of recogniser learns a label as, and what its logits read.

A reading's confidence is the geometric mean of its characters' probabilities (the length-normalised likelihood of
Malinin and Gales 2021) to the power 1 / temperature: the logarithm of a word's score divided by a temperature as Guo et
al. 2017 divide logits, so that texts do not depend on it. `wordmill.text.temperature` fits it.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from wordmill.recipe.sections import Data, Model
from wordmill.text.charset import Charset, charset_of

Logits = npt.NDArray[np.float32]
Reading = tuple[list[str], npt.NDArray[np.float32]]  # N texts and N confidences in 0..1
Values = npt.NDArray[np.float64] | npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class CtcCodec:
    """Connectionist temporal classification (Graves et al. 2006): class 0 is the blank, the characters follow."""

    charset: Charset
    temperature: float = 1.0

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
        """Best-path decoding (Graves et al. 2006, 3.2) of logits (N, T, C); the kept steps make the confidence."""
        best = logits.argmax(axis=2)
        kept = best != self.BLANK
        kept[:, 1:] &= best[:, 1:] != best[:, :-1]
        texts = ["".join(self.charset.symbols[c - 1] for c in row[keep]) for row, keep in zip(best, kept, strict=True)]
        return texts, _confidences(logits, kept, self.temperature)


@dataclass(frozen=True, kw_only=True)
class AttentionCodec:
    """An attention decoder's classes, as MindOCR has them: 0 is GO and padding, 1 is STOP, the characters follow."""

    charset: Charset
    temperature: float = 1.0

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
        """Read logits (N, T, C) up to the first STOP, which has no part in the confidence.

        As MindOCR scores it, a reading without STOP is an empty text of confidence 0. A deliberate correction: GO
        within a word is left out, where MindOCR would write "<GO>".
        """
        best = logits.argmax(axis=2)
        stops = best == self.STOP
        kept = (np.cumsum(stops, axis=1) == 0) & stops.any(axis=1, keepdims=True) & (best != self.GO)
        symbols = self.charset.symbols
        texts = ["".join(symbols[c - self.FIRST] for c in row[keep]) for row, keep in zip(best, kept, strict=True)]
        return texts, _confidences(logits, kept, self.temperature)


Codec = CtcCodec | AttentionCodec


def codec_of(model: Model, data: Data, temperature: float = 1.0) -> Codec:
    """Return the codec of a recipe's recogniser; only confidences depend on the temperature."""
    kind = CtcCodec if model.name == "crnn" else AttentionCodec
    return kind(charset=charset_of(data), temperature=temperature)


def probabilities(logits: Logits) -> npt.NDArray[np.float64]:
    """Return the probabilities of logits (N, T, C)."""
    raised = np.exp(logits.astype(np.float64) - logits.max(axis=2, keepdims=True))
    return np.asarray(raised / raised.sum(axis=2, keepdims=True))


def confidences_of(sums: Values, lengths: Values, temperature: float) -> npt.NDArray[np.float32]:
    """Return the confidences (N,), 0..1, of texts by the sum of their characters' log-probabilities and their lengths.

    An empty text has 0, and one of logits that are no numbers.
    """
    means = sums / (np.maximum(lengths, 1) * temperature)
    return np.where(lengths > 0, np.nan_to_num(np.exp(means)), 0.0).astype(np.float32)


def _confidences(logits: Logits, kept: npt.NDArray[np.bool_], temperature: float) -> npt.NDArray[np.float32]:
    """Return the confidences (N,) of texts whose characters are the likeliest classes of the kept steps (N, T).

    Over kept steps alone, which are few: over thousands of classes a softmax of every step takes longer than the rest.
    """
    rows = logits[kept]
    rows -= rows.max(axis=1, keepdims=True)
    peaks = -np.log(np.exp(rows, out=rows).sum(axis=1))
    sums = np.bincount(np.nonzero(kept)[0], weights=peaks, minlength=len(kept))
    return confidences_of(sums, kept.sum(axis=1), temperature)
