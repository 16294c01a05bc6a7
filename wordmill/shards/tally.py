"""What a data set looks like in counts: the lengths of its labels, their characters, the brightness of its pictures.

One set's counts are compared with another's, so every sample counts once in each: of a label's characters one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
import numpy.typing as npt

from wordmill.pictures.image import Picture
from wordmill.shards.index import MANY
from wordmill.text.charset import Charset

LEVELS = 16  # bins of brightness, each of 16 gray levels
COMMON = 255  # characters that a data set's counts tell apart; the others are OTHERS
OTHERS = ""

Counts = npt.NDArray[np.int64]
Histogram = dict[str, int]  # what a sample has -> how many samples have it


@dataclass(frozen=True, kw_only=True)
class Tally:
    """Counts of samples.

    lengths:    (256,) by how many of the charset's characters the label has, 255 for that or more
    characters: (symbols,) by one of these characters
    brightness: (16,) by the mean level of the fitted picture
    """

    lengths: Counts
    characters: Counts
    brightness: Counts

    @classmethod
    def of(cls, labels: Sequence[str], levels: npt.NDArray[np.float32], charset: Charset) -> "Tally":
        """Count samples by their labels, without NUL, and mean levels (N,), 0..255.

        A label's character is the one at the sample's number modulo the label's length: samples stay independent.
        """
        numbers, lengths = charset.spell(labels)
        written, starts = lengths > 0, np.cumsum(lengths) - lengths
        chosen = (starts + np.arange(len(lengths)) % np.maximum(lengths, 1))[written]
        return cls(
            lengths=np.bincount(np.minimum(lengths, MANY), minlength=MANY + 1),
            characters=np.bincount(numbers[chosen], minlength=len(charset.symbols)),
            brightness=np.bincount((levels * (LEVELS / 256)).astype(np.int64), minlength=LEVELS),
        )

    @classmethod
    def join(cls, parts: Sequence[dict[str, list[int]]]) -> "Tally":
        """Return the counts of all parts, as `lists` gives them."""
        return cls(**{
            key: reduce(np.add, (np.array(part[key], dtype=np.int64) for part in parts)) for key in parts[0]
        })  # fmt: skip

    def lists(self) -> dict[str, list[int]]:
        """Return the counts as JSON has them."""
        return {key: getattr(self, key).tolist() for key in ("lengths", "characters", "brightness")}

    def histograms(self, charset: Charset) -> dict[str, Histogram]:
        """Return the counts by what they count; of rare characters together."""
        common = np.argsort(-self.characters, kind="stable")[:COMMON]
        characters = {charset.symbols[number]: int(self.characters[number]) for number in np.sort(common)}
        characters[OTHERS] = int(self.characters.sum()) - sum(characters.values())
        levels = {str(number * 256 // LEVELS): count for number, count in enumerate(self.brightness.tolist())}
        named = {"length": dict(zip(map(str, range(MANY + 1)), self.lengths.tolist(), strict=True)),
                 "character": characters, "brightness": levels}  # fmt: skip
        return {what: {name: count for name, count in counts.items() if count} for what, counts in named.items()}


def mean_levels(pictures: Picture) -> npt.NDArray[np.float32]:
    """Return each picture's mean level, 0..255, (N,) float32, of uint8 (N, ...)."""
    rows = pictures.reshape(len(pictures), -1)
    return np.asarray(rows.sum(axis=1, dtype=np.uint32) / rows.shape[1], dtype=np.float32)
