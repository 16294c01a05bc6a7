"""French street names as signs have them, put together from kinds of streets, persons and things."""

from wordmill.synth.random import Dice
from wordmill.synth.text import is_test_text, read_lists

_SMALL = ("de", "la", "le", "du", "des", "les", "aux", "sous", "derrière")
_LONGEST = 37  # characters of a name of the French Street Name Signs


class Streets:
    """Draws street names of one part ("train" or "test"); the parts share none."""

    def __init__(self, part: str) -> None:
        self._test = part == "test"
        self._lists = read_lists("french")

    def write(self, dice: Dice) -> str:
        """A name such as `Rue du Général Leclerc`, at most 37 characters."""
        while True:
            name = f"{dice.pick(self._lists['kinds'])} {self._rest(dice)}"
            if len(name) <= _LONGEST and is_test_text(name) == self._test:
                return name

    def _rest(self, dice: Dice) -> str:
        draw = dice.unit()
        if draw < 0.45:
            return dice.pick(self._lists["things"])
        last = dice.pick(self._lists["last names"])
        if draw < 0.60:
            return f"{dice.pick(self._lists['titles'])} {last}".replace("_", " ")
        return last if draw < 0.72 else f"{dice.pick(self._lists['first names'])} {last}"


def lines_of(name: str, dice: Dice) -> list[str]:
    """Break a name into the one to three lines of its sign; small words stay with what follows."""
    lines: list[str] = []
    widest = dice.integer(9, 22)
    for word in name.split():
        ends_small = bool(lines) and lines[-1].split()[-1].lower() in _SMALL
        if lines and (ends_small or len(lines) == 3 or len(lines[-1]) + 1 + len(word) <= widest):
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines
