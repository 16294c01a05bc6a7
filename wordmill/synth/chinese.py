"""Lines of Chinese text, in colour: what `synth://chinese` draws."""

from functools import lru_cache

from wordmill.synth.fonts import CHINESE_ATLAS, PAD, Pixels, read_atlas
from wordmill.synth.geometry import Size
from wordmill.synth.random import Dice
from wordmill.synth.scene import Scene, spaced
from wordmill.synth.style import style_of
from wordmill.synth.text import is_test_text, read_lists

_LONGEST = 16


@lru_cache(maxsize=1)
def common_characters() -> str:
    """The 3,755 characters of everyday use: level 1 of the standard GB 2312, its rows 16 to 55."""
    rows = bytes(byte for row in range(16, 56) for cell in range(1, 95) for byte in (row + 160, cell + 160))
    return rows.decode("gb2312", errors="ignore")


class Lines:
    """Draws lines of one part's texts; both parts share the faces."""

    def __init__(self, words: str, difficulty: str) -> None:
        self._test = words == "test"
        self._faces = read_atlas(CHINESE_ATLAS)
        self._difficulty = difficulty
        self._all = [c for c in self._faces[0].characters if c >= "\u3400"]
        self._common = sorted(set(common_characters()) & set(self._all))
        self._lists = read_lists("chinese")
        self._scene = Scene(3)

    def draw(self, dice: Dice) -> tuple[Pixels, str]:
        """A picture (26..40, w, 3) uint8 RGB, as wide as the text needs, and its label."""
        style = style_of(self._difficulty, dice)
        text, face = self.write(dice), dice.pick(self._faces)
        mask = spaced(face, text, style, dice)
        size = _size(mask, dice)
        return self._scene.paint(mask, style, size, lambda: face.line(self.write(dice), 0.0, 0.0, dice), dice), text

    def write(self, dice: Dice) -> str:
        """A text of 1 to 16 characters: words of signs, random characters, prices, numbers and the like."""
        while True:
            text = self._text(dice)[:_LONGEST]
            if is_test_text(text) == self._test:
                return text

    def _text(self, dice: Dice) -> str:
        draw, words = dice.unit(), self._lists["words"]
        if draw < 0.40:
            return "".join(dice.pick(words) for _ in range(dice.pick((1, 1, 2, 2, 3, 4))))
        if draw < 0.75:
            return "".join(dice.pick(self._common) for _ in range(dice.integer(1, 9)))
        if draw < 0.87:
            return "".join(dice.pick(self._all) for _ in range(dice.integer(1, 7)))
        number = str(dice.below(10 ** dice.integer(1, 8)))
        if draw < 0.95:
            return dice.pick(("", "", dice.pick(words))) + number + dice.pick(("", dice.pick(self._lists["tails"])))
        return dice.pick(words) + dice.pick(self._lists["marks"]) + dice.pick(words)


def _size(mask: Pixels, dice: Dice) -> Size:
    """A size that keeps about the shape of the line and its margins."""
    height = dice.integer(26, 40)
    ink_height, ink_width = max(mask.shape[0] - 2 * PAD, 20), mask.shape[1] - 2 * PAD
    shape = (ink_width + 0.4 * ink_height) / (1.3 * ink_height)
    return Size(height, min(max(int(height * shape * dice.between(0.85, 1.2)), 20), 500))
