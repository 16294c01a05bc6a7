"""Whether a file gives what the trained recogniser gave for the same pictures, and how near is near enough."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from wordmill.inference.batches import Array
from wordmill.inference.card import codec_of_card
from wordmill.models.ports import CONFIDENCE, LOGITS, TOKENS
from wordmill.text.decoding import Codec, Logits, Reading

UNKNOWN = "\N{REPLACEMENT CHARACTER}"  # in place of a token that is no character of the charset


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """How far a file of one precision may be off: the least share of equal texts, and the largest logit difference.

    That one is a share of the largest of the reference logits; what the recipe allows, as it stands, holds for all.
    """

    texts: float
    logits: float


TOLERANCES = {
    # The same arithmetic in another order: the recipe's tolerance alone.
    "fp32": Tolerance(texts=1.0, logits=0.0),
    # Half precision rounds to 11 bits. A crnn rounded after every layer moved by 0.1 % and wrote the same texts; chips
    # add up in half precision too, over every step of an LSTM.
    "fp16": Tolerance(texts=1.0, logits=0.01),
    # 8 bits round to 0.4 % of a layer's range. The same crnn, barely trained and in doubt of most words, moved by 7 %
    # and wrote 58 to 63 of 64 texts alike; what that costs in accuracy export measures.
    "int8": Tolerance(texts=0.9, logits=0.2),
}


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How a file's outputs for the reference pictures compare with the trained recogniser's."""

    samples: int
    texts_equal: int
    max_logit_difference: float
    max_confidence_difference: float  # of the texts that are equal

    def within(self, share: float, tolerance: float) -> bool:
        """Tell whether enough texts are equal and logits near.

        Confidences are held to the same number: a power of a probability moves by less than three quarters of what the
        logits move.
        """
        near = max(self.max_logit_difference, self.max_confidence_difference) <= tolerance
        return self.texts_equal >= share * self.samples and near


def logit_tolerance(precision: str, recipe: float, expected: Logits) -> float:
    """Return the largest difference of logits allowed to this precision; `recipe` is export.logit_tolerance."""
    return max(recipe, TOLERANCES[precision].logits * float(np.abs(expected).max()))


def agreement(outputs: dict[str, Array], card: dict[str, Any], expected: Logits, codec: Codec, where: str) -> Agreement:
    """Compare a file's outputs, read as its card says, with the trained recogniser's logits (N, T, C) and codec.

    A text counts as equal where all that the file gives reads so: its logits, and its own tokens if it has them.
    RuntimeError for what are no logits of this recogniser.
    """
    logits = outputs[LOGITS].astype(np.float32)
    _check(logits, expected, codec, where)
    reader = codec_of_card(card)
    if reader.classes != codec.classes:
        raise RuntimeError(f"{where}: the card's charset makes {reader.classes} classes, expected {codec.classes}")
    truth, sure = codec.decode(expected)
    equal = _equal(reader.decode(logits)[0], truth)
    unsure = 0.0
    if TOKENS in outputs:
        texts, confidences = written(outputs, card)
        equal &= _equal(texts, truth)
        unsure = float(np.abs(confidences - sure)[equal].max(initial=0.0))
    furthest = float(np.abs(logits - expected).max())
    return Agreement(samples=len(expected), texts_equal=int(equal.sum()), max_logit_difference=furthest,
                     max_confidence_difference=unsure)  # fmt: skip


def written(outputs: dict[str, Array], card: dict[str, Any]) -> Reading:
    """Return the texts and confidences of a file that decodes by itself: tokens (N, T), 0 where there is none."""
    symbols = dict(enumerate(card["charset"]["symbols"], start=card["decode"]["first"]))
    texts = ["".join(symbols.get(token, UNKNOWN) for token in row if token) for row in outputs[TOKENS].tolist()]
    return texts, outputs[CONFIDENCE].astype(np.float32)


def _equal(texts: list[str], truth: list[str]) -> npt.NDArray[np.bool_]:
    return np.array([one == other for one, other in zip(texts, truth, strict=True)])


def _check(logits: Logits, expected: Logits, codec: Codec, where: str) -> None:
    """Refuse what cannot be the logits of this recogniser for these pictures."""
    if logits.shape[-1] != codec.classes:
        raise RuntimeError(f"{where}: logits have {logits.shape[-1]} classes, "
                           f"charset {codec.charset.name} needs {codec.classes}")  # fmt: skip
    if logits.shape != expected.shape:
        raise RuntimeError(f"{where}: logits have shape {logits.shape}, the trained recogniser's {expected.shape}")
    if not np.isfinite(logits).all():
        raise RuntimeError(f"{where}: {np.count_nonzero(~np.isfinite(logits))} of {logits.size} logits are not finite")
