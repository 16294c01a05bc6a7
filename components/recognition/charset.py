"""Characters that a recogniser can write, and the way from labels to class numbers and back."""

import itertools
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from components.recognition.recipe import nearest

BLANK = 0  # CTC's blank comes first, the characters follow from class 1

BUILT_IN = {"lower36": "0123456789abcdefghijklmnopqrstuvwxyz"}


@dataclass(frozen=True, kw_only=True)
class Charset:
    """An ordered set of characters; the class of `symbols[i]` is i + 1, class 0 is CTC's blank."""

    name: str
    symbols: str

    @property
    def classes(self) -> int:
        """Number of classes of a CTC head: the characters and the blank."""
        return len(self.symbols) + 1

    @property
    def folds_case(self) -> bool:
        """Whether labels are lowered: true where the set has no upper-case letter."""
        return not any(symbol.isupper() for symbol in self.symbols)

    @cached_property
    def _classes(self) -> dict[str, int]:
        return {symbol: number for number, symbol in enumerate(self.symbols, start=1)}

    def fold(self, text: str) -> str:
        """Return the text in the case that this charset writes, every other character kept."""
        return text.lower() if self.folds_case else text

    def clean(self, text: str) -> str:
        """Return the folded text without the characters that are not in the charset."""
        return "".join(symbol for symbol in self.fold(text) if symbol in self._classes)

    def encode(self, text: str) -> list[int]:
        """Return the class numbers, 1..classes-1, of the text's characters; others are left out."""
        return [self._classes[symbol] for symbol in self.fold(text) if symbol in self._classes]

    def decode_ctc(self, logits: npt.NDArray[np.float32]) -> tuple[list[str], npt.NDArray[np.float32]]:
        """Best-path decoding (Graves 2006, 3.2.1) of logits (N, T, C).

        Returns N texts and N confidences in 0..1, the mean probability of the kept characters (0 for none).
        """
        shifted = np.exp(logits - logits.max(axis=2, keepdims=True))
        best = logits.argmax(axis=2)
        peak = 1.0 / shifted.sum(axis=2)
        kept = best != BLANK
        kept[:, 1:] &= best[:, 1:] != best[:, :-1]
        texts = ["".join(self.symbols[c - 1] for c in row[keep]) for row, keep in zip(best, kept, strict=True)]
        confidence = (peak * kept).sum(axis=1) / np.maximum(kept.sum(axis=1), 1)
        return texts, confidence.astype(np.float32)


def load_charset(name: str) -> Charset:
    """Return a built-in charset, or the one in a UTF-8 file with one character per line (`name` ends in .txt)."""
    if name in BUILT_IN:
        return Charset(name=name, symbols=BUILT_IN[name])
    if not name.endswith(".txt"):
        raise ValueError(f"charset '{name}': {nearest(name, list(BUILT_IN))}, or the path of a .txt file")
    path = Path(name)
    if not path.is_file():
        raise ValueError(f"charset {path}: no such file")
    symbols: dict[str, int] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if len(line) != 1:
            raise ValueError(f"charset {path}, line {number}: expected one character, found {line!r}")
        if line in symbols:
            raise ValueError(f"charset {path}, line {number}: {line!r} stands on line {symbols[line]} already")
        symbols[line] = number
    return Charset(name=path.stem, symbols="".join(symbols))


def ctc_frames_needed(classes: list[int]) -> int:
    """Return how many time steps CTC needs for a label: its length and a blank between equal neighbours."""
    return len(classes) + sum(a == b for a, b in itertools.pairwise(classes))
