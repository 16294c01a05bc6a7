"""How often a night says that something has moved: simulated nights of data that has not changed, and of data that has.

python -m benchmarks.drift [--nights N] [--json]

Both runs draw their words from one distribution, that of rendered_val: of training as many as the quickstart has, of
validation and of benchmarks 2,000 pictures. Champion and candidate are equally good, and 8 % of the words are read by
one of them alone. Where word length shifts, training and validation both do: every word a fifth longer, rounded at
random, or every fifth word longer by one.
"""

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.data_rows import print_rows
from components.gate.drift import Histogram, compare_runs
from components.gate.sampling import DISCORDANT, Paired
from wordmill.recipe.arguments import from_one

Row = dict[str, str | float | bool | None]
Ints = npt.NDArray[np.int64]
Shift = Callable[[np.random.Generator, Ints], Ints]

SETS = {"training": 140_000, "validation": 2_000}
BENCHMARK = 2_000
# How many of rendered_val's 2,000 words have 1, 2, ... characters, each level of brightness from the second on, each of
# the charset's characters, one of a word, and each level of the quickstart's confidence.
LENGTHS = (95, 267, 358, 335, 265, 197, 170, 109, 73, 37, 34, 28, 11, 9, 8, 3, 1)
LEVELS = (24, 87, 148, 176, 193, 205, 227, 195, 212, 177, 151, 111, 77, 17)
CHARACTERS = (163, 132, 131, 116, 112, 99, 88, 78, 72, 71, 67, 65, 60, 53, 49, 49, 48, 46, 45, 41, 40, 39, 38, 38, 31,
              31, 29, 28, 27, 25, 24, 18, 16, 14, 10, 7)  # fmt: skip
CONFIDENCES = (220, 142, 95, 108, 104, 85, 91, 67, 77, 82, 74, 64, 72, 83, 82, 83, 86, 117, 145, 123)
NIGHTS = 200


def unchanged(generator: np.random.Generator, lengths: Ints) -> Ints:
    """Return the words' lengths (N,) as they are."""
    return lengths


def longer(generator: np.random.Generator, lengths: Ints) -> Ints:
    """Return lengths (N,) that are a fifth longer, rounded at random so that their mean is."""
    return np.asarray(1.2 * lengths + generator.random(len(lengths)), dtype=np.int64)


def fifth_longer(generator: np.random.Generator, lengths: Ints) -> Ints:
    """Return lengths (N,) of which one in five is longer by one."""
    return lengths + (generator.random(len(lengths)) < 0.2)


def histogram(generator: np.random.Generator, weights: tuple[int, ...], samples: int) -> Histogram:
    """Draw a histogram of so many samples."""
    drawn = generator.multinomial(samples, np.array(weights) / sum(weights))
    return {str(number): int(count) for number, count in enumerate(drawn) if count}


def word_lengths(generator: np.random.Generator, samples: int, shift: Shift) -> Histogram:
    """Draw the lengths of so many words, shifted."""
    lengths = generator.choice(np.arange(1, len(LENGTHS) + 1), samples, p=np.array(LENGTHS) / sum(LENGTHS))
    values, counts = np.unique(shift(generator, lengths), return_counts=True)
    return dict(zip(map(str, values.tolist()), counts.tolist(), strict=True))


def recorded(generator: np.random.Generator, shift: Shift) -> dict[str, Histogram]:
    """Draw what a run records."""
    found = {"validation, the champion's confidence": histogram(generator, CONFIDENCES, SETS["validation"])}
    for name, samples in SETS.items():
        found[f"{name}, word length"] = word_lengths(generator, samples, shift)
        found[f"{name}, characters"] = histogram(generator, CHARACTERS, samples)
        found[f"{name}, brightness"] = histogram(generator, LEVELS, samples)
    return found


def pair(generator: np.random.Generator) -> Paired:
    """Draw two recognisers' readings of the same words."""
    alone = generator.random(BENCHMARK)
    both, first = generator.random(BENCHMARK) < 0.8, generator.random(BENCHMARK) < 0.5
    candidate, champion = (np.where(alone < DISCORDANT, side, both).tolist() for side in (first, ~first))
    lengths = generator.choice(np.arange(1, len(LENGTHS) + 1), BENCHMARK, p=np.array(LENGTHS) / sum(LENGTHS))
    return Paired(name="words", candidate=candidate, champion=champion, pictures=list(map(str, range(BENCHMARK))),
                  lengths=lengths.tolist())  # fmt: skip


def night(number: int, shift: Shift) -> dict[str, Any]:
    """Return what the gate says of a night whose number is its seed."""
    generator = np.random.Generator(np.random.Philox(number))
    now, then = recorded(generator, shift), recorded(generator, unchanged)
    return compare_runs({what: (now[what], then[what]) for what in now}, [pair(generator)], "the champion")


def rows_of(shift: Shift, name: str, nights: int) -> list[Row]:
    """Simulate nights of one kind: how many say that something has moved, and that word length has."""
    found = [night(number, shift)["moved"] for number in range(nights)]
    some = 100 * sum(bool(words) for words in found) / nights
    length = 100 * sum(any("word length" in one for one in words) for words in found) / nights
    if shift is unchanged:
        return [row(f"{name}: something has moved", some, 5.0, some <= 5)]
    return [row(f"{name}: word length has moved", length, 100.0, length == 100)]


def row(name: str, value: float, goal: float, met: bool) -> Row:
    """Return a row of the table."""
    return {"name": name, "value": value, "unit": "% of nights", "peer": None, "ratio": None, "goal": goal, "met": met}


def main() -> None:
    """Print a table, or rows as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.drift", description=__doc__)
    parser.add_argument("--nights", type=from_one, default=NIGHTS)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    kinds: dict[str, Shift] = {"unchanged": unchanged, "words a fifth longer": longer,
                               "every fifth word longer by one": fifth_longer}  # fmt: skip
    rows = [one for name, shift in kinds.items() for one in rows_of(shift, name, options.nights)]
    print_rows(rows, options.json)


if __name__ == "__main__":
    main()
