"""Words with given characters in them, 32x100: what `synth://words?...&characters=` draws.

A recogniser that is to learn characters anew sees them here in many words and faces; one's own words have each of
them a few times. Letters with accents stand in the place of those without, where the word has one; others anywhere.
"""

import unicodedata
from collections.abc import Sequence
from functools import cache

from wordmill.synth.fonts import CHINESE_ATLAS, LETTER_ATLAS, Face, Pixels, is_test_family, read_atlas
from wordmill.synth.random import Dice
from wordmill.synth.scene import Scene, spaced
from wordmill.synth.style import style_of
from wordmill.synth.text import MAX_LABEL, Writer, is_test_text
from wordmill.synth.words import SIZE

_TRIES = 8  # words that are drawn until one has a place for the character
_ALL_OVER = 0.05  # share of words of which every character is one of the given
_MORE = 0.05  # share of the other places for given characters that are taken: more would see them where none are


@cache
def _faces(part: str) -> tuple[Face, ...]:
    """The faces of one part; the two with Chinese characters are in both."""
    latin = (face for face in read_atlas(LETTER_ATLAS) if is_test_family(face.family) == (part == "test"))
    return (*latin, *read_atlas(CHINESE_ATLAS))


def drawable(characters: str, part: str = "train") -> str:
    """Those of the characters that a face of the part has, in order."""
    return "".join(character for character in characters if any(character in face.glyphs() for face in _faces(part)))


def plain(character: str) -> str:
    """The letter or digit that a character is with its accents left out, "" where it is none."""
    first = unicodedata.normalize("NFD", character)[0]
    return first if first != character and first.isascii() and first.isalnum() else ""


class LetteredWords:
    """Draws words and numbers of one part's texts, each with one or more of the given characters."""

    def __init__(self, fonts: str, words: str, difficulty: str, channels: int, characters: str) -> None:
        self._faces = {character: [face for face in _faces(fonts) if character in face.glyphs()]
                       for character in characters}  # fmt: skip
        self._writer, self._test = Writer(words), words == "test"
        self._difficulty, self._scene = difficulty, Scene(channels)

    def draw(self, dice: Dice) -> tuple[Pixels, str]:
        """A picture (32, 100) or (32, 100, 3) uint8 and its label: ASCII letters, digits and given characters."""
        style = style_of(self._difficulty, dice)
        wanted = dice.pick(list(self._faces))
        face = dice.pick(self._faces[wanted])
        text, label = self._write(wanted, face, dice)
        mask = spaced(face, text, style, dice)
        image = self._scene.paint(
            mask, style, SIZE, lambda: spaced(face, self._writer.write(dice)[0], style, dice), dice
        )
        return image, label

    def _write(self, wanted: str, face: Face, dice: Dice) -> tuple[str, str]:
        """A text that the face can draw, with a character in it, and its label."""
        given = [character for character in self._faces if character in face.glyphs()]
        while True:
            text = self._word(plain(wanted), dice)
            if dice.chance(_ALL_OVER):
                text = "".join(dice.pick(given) for _ in text)
            text = placed("".join(c for c in text if c in face.glyphs()), wanted, given, dice)
            label = "".join(c for c in text if c in given or (c.isascii() and c.isalnum()))
            if len(label) <= MAX_LABEL and is_test_text(label) == self._test:
                return text, label

    def _word(self, letter: str, dice: Dice) -> str:
        """A text of the part, with a letter if a few tries find one."""
        for _ in range(_TRIES):
            text = self._writer.write(dice)[0]
            if letter in text:
                break
        return text


def placed(text: str, wanted: str, given: Sequence[str], dice: Dice) -> str:
    """Put one of the given characters into a text, and here and there others of them where they fit."""
    fitting: dict[str, list[str]] = {}
    for character in given:
        fitting.setdefault(plain(character), []).append(character)
    letters = [dice.pick(fitting[c]) if c in fitting and dice.chance(_MORE) else c for c in text]
    if wanted not in letters:
        places = [place for place, c in enumerate(text) if c == plain(wanted)] or range(len(text))
        letters[dice.pick(places)] = wanted
    return "".join(letters)
