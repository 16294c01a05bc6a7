"""What the word-image renderer writes: dictionary words, numbers, short and random strings, with unlabelled symbols."""

import lzma
import zlib
from bisect import bisect
from collections.abc import Callable
from functools import cache, lru_cache, partial
from itertools import accumulate
from pathlib import Path

from wordmill.synth.random import Dice

FOLDER = Path(__file__).parent / "data"
WORD_LISTS = {"common": FOLDER / "words_common.txt.xz", "large": FOLDER / "words_large.txt.xz"}
LISTS = {name: FOLDER / f"{name}.txt" for name in ("shapes", "chinese", "french")}
MAX_LABEL = 20
_DIGITS = "0123456789"
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
# Share of dictionary words by length, 2 to 16 letters: signs and labels are shorter than a dictionary.
_LENGTHS = (11, 17, 18, 16, 12, 10, 6, 4.5, 2.6, 1.6, 1, 0.6, 0.4, 0.3, 0.2)
_KINDS = (0.50, 0.72, 0.83, 0.89, 0.965)  # limits of common words, other words, digits, short, random; rest compounds
_WITH_SYMBOLS = 0.16


def is_test_text(label: str) -> bool:
    """Whether a label is kept for testing: by its lower-case text. Single characters are too few to keep any."""
    return len(label) > 1 and zlib.crc32(label.lower().encode()) % 20 < 3


@cache
def read_lists(name: str) -> dict[str, tuple[str, ...]]:
    """The sections of one of LISTS: title -> its words, or its lines in the section "things"."""
    sections: dict[str, tuple[str, ...]] = {}
    title = ""
    for line in LISTS[name].read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            title = line.strip("[]")
            sections[title] = ()
        elif not line.startswith("# "):
            sections[title] += (line,) if title == "things" else tuple(line.split())
    return sections


@lru_cache(maxsize=2)
def _words_by_length(name: str, part: str) -> tuple[tuple[str, ...], ...]:
    """The words of one list that belong to one part, by length from 2 to 16."""
    groups: list[list[str]] = [[] for _ in _LENGTHS]
    for word in lzma.decompress(WORD_LISTS[name].read_bytes()).decode("ascii").split():
        if is_test_text(word) == (part == "test"):
            groups[len(word) - 2].append(word)
    return tuple(map(tuple, groups))


class Writer:
    """Draws texts of one part ("train" or "test")."""

    def __init__(self, part: str) -> None:
        self._test = part == "test"
        self._common_word = partial(self._word, _words_by_length("common", part))
        self._large_word = partial(self._word, _words_by_length("large", part))
        self._limits = list(accumulate(_LENGTHS))
        self._shapes = read_lists("shapes")["shapes"]

    def write(self, dice: Dice) -> tuple[str, str]:
        """A text to draw and its label: the same text without symbols, [0-9A-Za-z] only, never empty."""
        kind = self._kind(dice)
        while True:
            text = _cased(kind(dice), dice)
            label = "".join(c for c in text if c.isalnum())
            if 0 < len(label) <= MAX_LABEL and is_test_text(label) == self._test:
                return text, label

    def _kind(self, dice: Dice) -> Callable[[Dice], str]:
        """What makes the text; chosen before texts of the other part are refused, so that both parts mix alike."""
        if dice.chance(_WITH_SYMBOLS):
            return partial(self._shaped, dice.pick(self._shapes))
        draw = dice.unit()
        kinds = (self._common_word, self._large_word, _digits, self._short, _random, self._compound)
        return kinds[bisect(_KINDS, draw)]

    def _word(self, lists: tuple[tuple[str, ...], ...], dice: Dice) -> str:
        length = bisect(self._limits, dice.unit() * self._limits[-1])
        return dice.pick(lists[min(length, len(lists) - 1)])

    def _short(self, dice: Dice) -> str:
        return self._common_word(dice)[: dice.integer(1, 4)]

    def _compound(self, dice: Dice) -> str:
        tail = self._common_word(dice) if dice.chance(0.4) else str(dice.below(100))
        return self._common_word(dice) + tail

    def _shaped(self, shape: str, dice: Dice) -> str:
        fill: dict[str, Callable[[Dice], str]] = {
            "*": self._common_word,
            "0": lambda dice: dice.pick(_DIGITS),
            "n": lambda dice: str(dice.below(10 ** dice.integer(1, 3))),
        }
        return "".join(fill[c](dice) if c in fill else c for c in shape)


def _random(dice: Dice) -> str:
    alphabet = _LETTERS + _DIGITS if dice.chance(0.6) else _LETTERS
    return "".join(dice.pick(alphabet) for _ in range(dice.integer(1, 8)))


def _digits(dice: Dice) -> str:
    """One to twelve digits, short ones far more often."""
    length = 1 if dice.chance(0.15) else 2
    while 1 < length < 12 and dice.chance(0.62):
        length += 1
    return "".join(dice.pick(_DIGITS) for _ in range(length))


def _cased(text: str, dice: Dice) -> str:
    draw = dice.unit()
    if draw < 0.46:
        return text.upper()
    if draw < 0.74:
        return text[:1].upper() + text[1:]
    if draw < 0.97:
        return text
    return "".join(c.upper() if dice.chance(0.5) else c for c in text)
