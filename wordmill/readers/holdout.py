"""Parts of a data set: most samples to learn from, some to validate on, and some held out to measure on."""

from collections.abc import Iterable, Iterator

import numpy as np

from wordmill.readers.sample import Reader, Sample
from wordmill.recipe.catalogue import LEAST, Split

HELD_OUT = {"val": 0.1, "test": 0.2}  # of all samples; the others are learnt from
SEED = 0


def part_numbers(samples: int, part: Split) -> list[int]:
    """Return the numbers of a part's samples out of all, in order; drawn, the same every time.

    ValueError where so few samples leave nothing to hold out.
    """
    if samples < LEAST:
        raise ValueError(f"{samples} samples are too few to hold some out: expected at least {LEAST}")
    # RandomState, whose sequences are the same in every version of NumPy.
    drawn = np.random.RandomState(SEED).permutation(samples)
    val, test = (round(samples * share) for share in HELD_OUT.values())
    ends = {"val": drawn[:val], "test": drawn[val : val + test], "train": drawn[val + test :]}
    numbers: list[int] = np.sort(ends[part]).tolist()
    return numbers


class HeldOut:
    """The samples of one part of another reader's, numbered from 0."""

    def __init__(self, reader: Reader, part: Split) -> None:
        self.reader, self.numbers = reader, part_numbers(len(reader), part)

    @property
    def notes(self) -> tuple[str, ...]:
        """What is unusual about the form of the whole."""
        return tuple(self.reader.notes)

    def __len__(self) -> int:
        return len(self.numbers)

    def read(self, indices: Iterable[int]) -> Iterator[Sample]:
        """Yield the samples of these numbers in this order."""
        return self.reader.read([self.numbers[index] for index in indices])
