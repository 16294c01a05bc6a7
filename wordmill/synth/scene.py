"""Paints a line of text: ink on a ground, with effects, clutter and damage."""

from collections.abc import Callable

import cv2
import numpy as np

from wordmill.synth.backdrop import Backdrops, Colour, Plane
from wordmill.synth.effects import OPAQUE, blend, damage, decorate, strengthen
from wordmill.synth.fonts import PAD, Face, Pixels
from wordmill.synth.geometry import Map, Size, random_map, sample
from wordmill.synth.random import Dice
from wordmill.synth.style import Style, grays, outline_gray, plate, shadow_gray, tinted

_REACH = 5  # pixels of a neighbour that are seen, at most


def spaced(face: Face, text: str, style: Style, dice: Dice) -> Pixels:
    """The text as a mask, with random spaces between letters; symbols that the face lacks are left out."""
    draw = dice.unit()
    tracking = 0.0
    if draw > 0.9:
        tracking = dice.between(3.0, max(3.0, style.tracking))
    elif draw > 0.65:
        tracking = dice.between(0.0, 4.0)
    elif draw > 0.55:
        tracking = dice.between(-1.6, 0.0)
    jitter = dice.between(1.0, 3.0) if style.effects and dice.chance(0.08) else 0.0
    glyphs = face.glyphs()
    return face.line("".join(c for c in text if c in glyphs), tracking, jitter, dice)


class Scene:
    """Paints pictures of one or three channels."""

    def __init__(self, channels: int) -> None:
        self.channels = channels
        self.backdrops = Backdrops()

    def paint(self, mask: Pixels, style: Style, size: Size, other: Callable[[], Pixels], dice: Dice) -> Pixels:
        """A picture of `size`, (h, w) or (h, w, 3) uint8, with a line's mask; `other` gives a neighbour's."""
        mask = strengthen(mask, style.bolder, dice)
        where = random_map(mask.shape[1] - 2 * PAD, mask.shape[0] - 2 * PAD, style.warp, size, dice)
        ground, ink = grays(style.contrast, dice)
        colour = tinted(ink, self.channels, dice)
        picture = self._ground(ground, ink, style, size, dice)
        if dice.chance(style.clutter):
            plate(picture, ground, ink, dice)
        if dice.chance(style.clutter):
            picture = blend(picture, _edge(other(), size, dice), colour, OPAQUE)
        picture = self._ink(picture, mask, where, (ground, ink), colour, style, dice)
        return damage(picture, style.harm, self.backdrops, dice)

    def _ground(self, ground: int, ink: int, style: Style, size: Size, dice: Dice) -> Plane:
        texture = dice.between(0.0, 0.15) if dice.chance(0.45) else abs(dice.bell(style.texture))
        contrast = int(64 * min(texture, abs(ink - ground) / 75))
        return self.backdrops.plane(tinted(ground, self.channels, dice), contrast, size, dice)

    def _ink(
        self, picture: Plane, mask: Pixels, where: Map, grays: tuple[int, int], colour: Colour, style: Style, dice: Dice
    ) -> Plane:
        """Lay the letters, and what is under them, over the ground."""
        ground, ink = grays
        layers = decorate(mask, style.effects, dice)
        if layers.under is not None:
            shade = outline_gray(ink, dice) if layers.outlined else shadow_gray(ink, ground, dice)
            opacity = OPAQUE if layers.outlined else dice.integer(OPAQUE * 5 // 16, OPAQUE)
            picture = blend(picture, sample(layers.under, where), tinted(shade, self.channels, dice), opacity)
        body: Plane | Colour = colour
        if style.effects and dice.chance(0.3):
            contrast = int(64 * min(abs(dice.bell(0.25)), abs(ink - ground) / 90))
            body = self.backdrops.plane(colour, contrast, where.size, dice)
        opacity = OPAQUE if dice.chance(0.75) else dice.integer(OPAQUE * 5 // 8, OPAQUE)
        return blend(picture, sample(layers.face, where), body, opacity)


def _edge(line: Pixels, size: Size, dice: Dice) -> Pixels:
    """A mask (h, w) of the ink of a neighbour line or word that reaches into the picture at one side."""
    small = cv2.resize(line[PAD:-PAD, PAD:-PAD], (size.width, size.height - 8), interpolation=cv2.INTER_LINEAR_EXACT)
    mask = np.zeros(size, np.uint8)
    seen = dice.integer(1, _REACH)
    side = dice.below(4)
    if side == 0:
        mask[:seen] = small[-seen:]
    elif side == 1:
        mask[-seen:] = small[:seen]
    elif side == 2:
        mask[4:-4, :seen] = small[:, -seen:]
    else:
        mask[4:-4, -seen:] = small[:, :seen]
    return mask
