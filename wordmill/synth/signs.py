"""French street signs, 150x600: what `synth://signs` draws, in the form of the French Street Name Signs data set.

Smith et al. 2016: four views of one sign, 150x150 each, side by side; the label is its text in title case.
"""

import unicodedata
from typing import NamedTuple

import cv2
import numpy as np

from wordmill.synth.backdrop import Backdrops, Colour
from wordmill.synth.effects import OPAQUE, blend, damage
from wordmill.synth.fonts import PAD, SIGN_ATLAS, Face, Pixels, read_atlas
from wordmill.synth.french import Streets, lines_of
from wordmill.synth.geometry import Size, Warp, random_map, sample
from wordmill.synth.random import Dice
from wordmill.synth.style import Style, style_of, tinted

VIEWS = 4
VIEW = Size(150, 150)
_LARGE = 230  # pixels of a plate's side from which on it is halved before its views are taken
_WARP = Warp(turn=0.02, wild_turn=0.05, shear=0.05, perspective=0.8, corner=0.06, curve=0.0, bend=0.0,
             loose=0.05, smooth=0.0, tight=0.1)  # fmt: skip


class _Plate(NamedTuple):
    """A sign in the middle of an empty square: colours (s, s, 3) and where it covers the wall (s, s), uint8."""

    colours: Pixels
    cover: Pixels


class Signs:
    """Draws the signs of one part's street names."""

    def __init__(self, words: str, difficulty: str) -> None:
        self._faces, self._streets = read_atlas(SIGN_ATLAS), Streets(words)
        self._difficulty = difficulty
        self._backdrops = Backdrops()

    def draw(self, dice: Dice) -> tuple[Pixels, str]:
        """A picture (150, 600, 3) uint8 RGB and its label."""
        name = self._streets.write(dice)
        plate = _plate(_spelt(lines_of(name, dice), dice), dice.pick(self._faces), dice)
        style, gray = style_of(self._difficulty, dice), dice.integer(60, 220)
        wall = np.array((tinted(gray, 3, dice) + 3 * gray) // 4, np.int16)
        return np.concatenate([self._view(plate, wall, style, dice) for _ in range(VIEWS)], axis=1), name

    def _view(self, plate: _Plate, wall: Colour, style: Style, dice: Dice) -> Pixels:
        side = len(plate.cover) - 2 * PAD
        where = random_map(side, side, _WARP, VIEW, dice)
        picture = self._backdrops.plane(wall, dice.integer(8, 40), VIEW, dice)
        colours = sample(plate.colours, where).transpose(2, 0, 1).astype(np.int16)
        picture = blend(picture, sample(plate.cover, where), colours, OPAQUE)
        return damage(picture, style.harm, self._backdrops, dice)


def _spelt(lines: list[str], dice: Dice) -> list[str]:
    """The lines as they stand on the sign: often in capitals, some of those without accents."""
    draw = dice.unit()
    if draw < 0.45:
        return lines
    capitals = [line.upper() for line in lines]
    if draw < 0.85:
        return capitals
    return ["".join(c for c in unicodedata.normalize("NFD", line) if not unicodedata.combining(c)) for line in capitals]


def _plate(lines: list[str], face: Face, dice: Dice) -> _Plate:
    """An enamel plate with the lines in the middle, a frame, and sometimes a small line above."""
    text = _stacked([_ink(face, line, dice) for line in lines], dice)
    if dice.chance(0.2):
        above = _ink(face, f"{dice.integer(1, 20)}e ARR.", dice)
        small = cv2.resize(above, (above.shape[1] // 2, above.shape[0] // 2), interpolation=cv2.INTER_AREA)
        text = _stacked([small, text], dice)
    edge = dice.integer(12, 26)
    ground, ink, frame = _enamel(dice)
    height, width = text.shape[0] + 2 * edge, text.shape[1] + 2 * edge
    picture = np.broadcast_to(frame, (3, height, width)).copy()
    thick = dice.integer(2, 6) if dice.chance(0.8) else 0
    picture[:, thick : height - thick, thick : width - thick] = ground
    inner = picture[:, edge : height - edge, edge : width - edge]
    inner[:] = blend(inner, text, ink, OPAQUE)
    colours, cover = picture.transpose(1, 2, 0).astype(np.uint8), np.full((height, width), 255, np.uint8)
    return _Plate(_squared(colours), _squared(cover))


def _ink(face: Face, line: str, dice: Dice) -> Pixels:
    """The ink box of a line."""
    glyphs = face.glyphs()
    drawable = "".join(c for c in line if c in glyphs or c == " ")
    return face.line(drawable, dice.between(0.0, 2.0), 0.0, dice)[PAD:-PAD, PAD:-PAD]


def _stacked(inks: list[Pixels], dice: Dice) -> Pixels:
    """Lines below each other, each in the middle."""
    width, gap = max(ink.shape[1] for ink in inks), dice.integer(8, 16)
    rows = []
    for ink in inks:
        left = (width - ink.shape[1]) // 2
        rows.append(cv2.copyMakeBorder(ink, 0, gap, left, width - ink.shape[1] - left, cv2.BORDER_CONSTANT))
    stacked: Pixels = np.concatenate(rows)
    return stacked[:-gap]


def _enamel(dice: Dice) -> tuple[Colour, Colour, Colour]:
    """Colours of the plate, its letters and its frame: white on blue mostly."""
    white = np.array([dice.integer(200, 255) for _ in range(3)], np.int16)[:, None, None]
    dark = np.array([dice.integer(0, 50), dice.integer(20, 80), dice.integer(80, 170)], np.int16)[:, None, None]
    draw = dice.unit()
    if draw > 0.85:
        return white, dark, dark
    green = np.array([dice.integer(0, 60), dice.integer(70, 130), dice.integer(40, 80)], np.int16)[:, None, None]
    ground = dark if draw < 0.75 else tinted(dice.integer(20, 80), 3, dice)
    return ground, white, green if dice.chance(0.4) else white


def _squared(picture: Pixels) -> Pixels:
    """Put a plate into the middle of a square, halved where it is large, with PAD empty pixels around."""
    if max(picture.shape[:2]) > _LARGE:
        half = picture.shape[1] // 2, picture.shape[0] // 2
        picture = cv2.resize(picture[: 2 * half[1], : 2 * half[0]], half, interpolation=cv2.INTER_AREA)
    height, width = picture.shape[:2]
    down, right = max(width - height, 0), max(height - width, 0)
    sides = PAD + down // 2, PAD + down - down // 2, PAD + right // 2, PAD + right - right // 2
    square: Pixels = cv2.copyMakeBorder(picture, *sides, cv2.BORDER_CONSTANT)
    return square
