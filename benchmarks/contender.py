"""What is timed, and what it is timed on: made-up pictures and words of a recipe's shape."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from wordmill.pictures.image import Picture
from wordmill.recipe.sections import Recipe
from wordmill.text.charset import charset_of

SHORTEST, LONGEST = 3, 9  # characters of a made-up word


@dataclass(frozen=True)
class Contender:
    """One implementation; `run` makes a training step, or predicts one batch, and waits for the device."""

    run: Callable[[], object]
    flops: float = 0.0  # floating point operations of `run` for one picture; 0 where nobody counted


def made_pictures(recipe: Recipe, batch: int) -> Picture:
    """Return noise in the shape of the recipe's pictures, (batch, H, W, C) uint8."""
    shape = (batch, recipe.data.height, recipe.data.width, recipe.data.channels)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def made_words(recipe: Recipe, batch: int) -> list[str]:
    """Return words of random characters of the recipe's charset, no two equal neighbours in any."""
    rng = np.random.default_rng(1)
    symbols = charset_of(recipe.data).symbols.replace(" ", "")
    lengths = rng.integers(SHORTEST, LONGEST + 1, batch)
    return [
        "".join(symbols[number] for number in rng.choice(len(symbols), length, replace=False)) for length in lengths
    ]
