"""From the straight line of text to the crop: margins, rotation, shear, perspective and curvature in one sampling.

Coordinates are float64 made with + - * / alone, then rounded to 1/32 pixel: the rest is integer arithmetic, so the
pixels are the same whatever vector instructions a machine has.
"""

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from components.recognition.synth_fonts import PAD, Pixels
from components.recognition.synth_random import Dice

HEIGHT, WIDTH = 32, 100
_OVER = 2  # samples per pixel and axis
_ROWS, _COLUMNS = HEIGHT * _OVER, WIDTH * _OVER
_XS = np.arange(_COLUMNS, dtype=np.float64) + 0.5
_YS = np.arange(_ROWS, dtype=np.float64)[:, None] + 0.5
_FRACTION = 32  # steps per pixel of OpenCV's fixed-point maps

Point = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Warp:
    """How strongly a line is bent; standard deviations in units of the text height, tangents for angles."""

    turn: float  # tangent of half the rotation
    wild_turn: float  # the same for one line in five
    shear: float
    perspective: float  # share of lines with moved corners
    corner: float  # largest move of a corner
    curve: float  # share of curved lines
    sag: float  # largest sag of a curved line
    loose: float  # margins
    tight: float  # share of sides cut close or into the ink


class Map(NamedTuple):
    """Where each sample of the crop comes from, as cv2.remap takes it."""

    whole: npt.NDArray[np.int16]
    part: npt.NDArray[np.uint16]


def place(width: int, height: int, warp: Warp, dice: Dice) -> Map:
    """A random map for a line whose ink box is width x height pixels, PAD pixels inside its canvas."""
    sag = 0.0
    if dice.chance(warp.curve) and width > 1.5 * height:
        sag = dice.between(-warp.sag, warp.sag) * height * min(1.0, width / (4.0 * height))
    skew = dice.between(-0.6, 0.6) if dice.chance(0.3) else 0.0
    spare = abs(sag) * (0.5 + 0.2 * abs(skew))
    corners = _corners(width, height + 2 * spare, height, warp, dice)
    matrix = _inverse(_from_unit_square(_fit(corners, height, warp, dice)))
    return _sample_points(matrix, width, height + 2 * spare, sag, skew, spare)


def sample(canvas: Pixels, where: Map) -> Pixels:
    """The crop (32, 100) uint8 of a canvas."""
    fine = cv2.remap(canvas, where.whole, where.part, cv2.INTER_LINEAR)
    crop: Pixels = cv2.resize(fine, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
    return crop


def _corners(width: float, height: float, ink: float, warp: Warp, dice: Dice) -> list[Point]:
    """The rotated, sheared and moved corners of a box, clockwise from the top left."""
    half = dice.bell(warp.turn if dice.chance(0.8) else warp.wild_turn)
    norm = 1.0 + half * half
    cosine, sine = (1.0 - half * half) / norm, 2.0 * half / norm
    shear = dice.bell(warp.shear if dice.chance(0.7) else 2.5 * warp.shear)
    box = ((0.0, 0.0), (width, 0.0), (width, height), (0.0, height))
    slanted = [(x + shear * y, y) for x, y in box]
    corners = [(cosine * x - sine * y, sine * x + cosine * y) for x, y in slanted]
    if not dice.chance(warp.perspective):
        return corners
    reach = warp.corner * (1.0 if dice.chance(0.8) else 2.0)
    across = 0.55 * min(width, 2.5 * ink)
    return [(x + dice.between(-reach, reach) * across, y + dice.between(-reach, reach) * height) for x, y in corners]


def _margin(height: float, warp: Warp, dice: Dice) -> float:
    """Pixels between the ink and one side of the crop; below zero the crop cuts the ink."""
    if not dice.chance(warp.tight):
        return (abs(dice.bell(warp.loose)) + 0.01) * height
    return (dice.between(-0.06, 0.02) if dice.chance(0.6) else dice.between(0.1, 0.4)) * height


def _fit(corners: list[Point], height: float, warp: Warp, dice: Dice) -> list[Point]:
    """Scale the corners' bounding box with random margins to the sampling grid."""
    left, right, above, below = (_margin(height, warp, dice) for _ in range(4))
    x0, y0 = min(x for x, _ in corners) - left, min(y for _, y in corners) - above
    x1, y1 = max(x for x, _ in corners) + right, max(y for _, y in corners) + below
    return [((x - x0) * _COLUMNS / (x1 - x0), (y - y0) * _ROWS / (y1 - y0)) for x, y in corners]


def _from_unit_square(corners: list[Point]) -> tuple[float, ...]:
    """Projective map, 9 numbers by rows, of the unit square to four corners (Heckbert 1989, section 2.2.3)."""
    (x0, y0), (x1, y1), (x2, y2), (x3, y3) = corners
    ax, ay, bx, by = x1 - x2, y1 - y2, x3 - x2, y3 - y2
    sx, sy = x0 - x1 + x2 - x3, y0 - y1 + y2 - y3
    across = ax * by - ay * bx
    g, h = (sx * by - sy * bx) / across, (ax * sy - ay * sx) / across
    return (x1 - x0 + g * x1, x3 - x0 + h * x3, x0, y1 - y0 + g * y1, y3 - y0 + h * y3, y0, g, h, 1.0)


def _inverse(m: tuple[float, ...]) -> tuple[float, ...]:
    """Inverse of a projective map up to scale (the adjugate matrix)."""
    a, b, c, d, e, f, g, h, i = m
    return (
        e * i - f * h,
        c * h - b * i,
        b * f - c * e,
        f * g - d * i,
        a * i - c * g,
        c * d - a * f,
        d * h - e * g,
        b * g - a * h,
        a * e - b * d,
    )


def _sample_points(m: tuple[float, ...], width: float, height: float, sag: float, skew: float, spare: float) -> Map:
    """Fixed-point canvas coordinates of every sample of the crop."""
    depth = (m[6] * _XS + m[8]) + m[7] * _YS
    u = ((m[0] * _XS + m[2]) + m[1] * _YS) / depth
    v = ((m[3] * _XS + m[5]) + m[4] * _YS) / depth
    y = v * height + (PAD - spare - 0.5)
    if sag:
        t = np.clip(u, 0.0, 1.0) * 2.0 - 1.0
        square = t * t
        y -= sag * (square - 0.5 + skew * t * (square - 1.0))
    x32 = np.rint((u * width + (PAD - 0.5)) * _FRACTION).astype(np.int32)
    y32 = np.rint(y * _FRACTION).astype(np.int32)
    whole = np.empty((_ROWS, _COLUMNS, 2), np.int16)
    whole[..., 0] = x32 >> 5
    whole[..., 1] = y32 >> 5
    return Map(whole, (((y32 & 31) << 5) | (x32 & 31)).astype(np.uint16))
