"""Latin words, 32x100: what `synth://words` draws."""

from wordmill.synth.fonts import Faces, Pixels
from wordmill.synth.geometry import Size
from wordmill.synth.random import Dice
from wordmill.synth.scene import Scene, spaced
from wordmill.synth.style import style_of
from wordmill.synth.text import Writer

SIZE = Size(32, 100)


class Words:
    """Draws words and numbers of one part's faces and texts."""

    def __init__(self, fonts: str, words: str, difficulty: str, channels: int) -> None:
        self._faces, self._writer = Faces(fonts), Writer(words)
        self._difficulty = difficulty
        self._scene = Scene(channels)

    def draw(self, dice: Dice) -> tuple[Pixels, str]:
        """A picture (32, 100) or (32, 100, 3) uint8 and its label [0-9A-Za-z]+."""
        style = style_of(self._difficulty, dice)
        text, label = self._writer.write(dice)
        face = self._faces.draw(dice, showy=label.isdigit())
        mask = spaced(face, text, style, dice)
        image = self._scene.paint(
            mask, style, SIZE, lambda: spaced(face, self._writer.write(dice)[0], style, dice), dice
        )
        return image, label
