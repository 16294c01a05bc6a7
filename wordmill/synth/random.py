"""Random draws of the word-image renderer: the same on every machine and Python version."""

import hashlib
import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")
_BELL = 3.0**0.5  # turns the sum of four uniforms into unit variance


class Dice:
    """Draws made of `random.Random.random()` alone, the one method whose sequence Python promises to keep."""

    def __init__(self, *key: object) -> None:
        digest = hashlib.sha256(":".join(map(str, key)).encode()).digest()
        self.unit = random.Random(int.from_bytes(digest[:16], "little")).random

    def below(self, limit: int) -> int:
        """An integer in [0, limit)."""
        return int(self.unit() * limit)

    def integer(self, low: int, high: int) -> int:
        """An integer in [low, high]."""
        return low + int(self.unit() * (high - low + 1))

    def between(self, low: float, high: float) -> float:
        """A number in [low, high)."""
        return low + (high - low) * self.unit()

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return self.unit() < probability

    def pick(self, items: Sequence[T]) -> T:
        """One of the items."""
        return items[int(self.unit() * len(items))]

    def bell(self, deviation: float) -> float:
        """A bell-shaped number around 0: four uniforms, since logarithms and cosines differ between machines."""
        unit = self.unit
        return (unit() + unit() + unit() + unit() - 2.0) * _BELL * deviation
