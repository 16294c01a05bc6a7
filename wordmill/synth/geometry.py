"""From the straight line of text to the crop: margins, rotation, shear, perspective and bending in one sampling.

Coordinates are float32 made with + - * / and square roots alone, which every processor rounds alike, then rounded to
1/32 pixel: the rest is integer arithmetic, so the pixels are the same whatever vector instructions a machine has.
"""

from dataclasses import dataclass
from functools import lru_cache
from math import sqrt
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from wordmill.synth.fonts import PAD, Pixels
from wordmill.synth.random import Dice

_DENSE = 1.4  # pixels of the canvas per pixel of the crop from which on two samples are taken

Point = tuple[float, float]
Floats = npt.NDArray[np.float32]


class Size(NamedTuple):
    """Height and width of a picture in pixels."""

    height: int
    width: int


@dataclass(frozen=True, kw_only=True)
class Warp:
    """How strongly a line is bent; standard deviations in units of the text height, tangents for angles."""

    turn: float  # tangent of half the rotation, usually
    wild_turn: float  # and for every fifth line
    shear: float
    perspective: float  # share of lines with moved corners
    corner: float  # how far, at most
    curve: float  # share of curved lines
    bend: float  # tangent of a quarter of the arc that the line becomes, at most
    loose: float  # margins, usually
    smooth: float  # share of lines that are shrunk without jagged edges, as few pictures of recipes are
    tight: float  # share of sides where the crop cuts into the ink or lies far away


class Map(NamedTuple):
    """Where each sample of the crop lies in the canvas: whole pixels (h, w, 2) int16 and 1/32 parts (h, w) uint16."""

    whole: npt.NDArray[np.int16]
    part: npt.NDArray[np.uint16]
    size: Size  # of the crop; the map has one or two samples per pixel along each axis


class _Arc(NamedTuple):
    """A bent line: radius of its middle in pixels, upwards or downwards, and the box around it."""

    radius: float
    sign: int
    width: float
    height: float


def random_map(width: int, height: int, warp: Warp, size: Size, dice: Dice) -> Map:
    """A random map to a crop for a line whose ink box is width x height pixels, PAD pixels inside its canvas."""
    arc = None
    if dice.chance(warp.curve) and width > 1.5 * height:
        arc = _arc(width, height, dice.between(0.25, 1.0) * warp.bend, dice)
    box = (arc.width, arc.height) if arc else (float(width), float(height))
    corners = _fit(_corners(*box, height, warp, dice), height, warp, size, dice)
    matrix = _inverse(_from_unit_square(corners))
    smooth = dice.chance(warp.smooth)
    dense = [2 if smooth and extent > _DENSE * span else 1 for extent, span in zip(box, _spans(corners), strict=True)]
    if arc:
        x, y = _unbend(*_coordinates(matrix, (1.0, 1.0), 0.0, size, dense), arc, width, height)
    else:
        x, y = _coordinates(matrix, box, PAD - 0.5, size, dense)
    return Map(*cv2.convertMaps(x, y, cv2.CV_16SC2), size)


def sample(canvas: Pixels, where: Map) -> Pixels:
    """The crop (h, w) or (h, w, C) uint8 of a canvas (H, W) or (H, W, C)."""
    fine: Pixels = cv2.remap(canvas, where.whole, where.part, cv2.INTER_LINEAR)
    if where.part.shape == where.size:
        return fine
    crop: Pixels = cv2.resize(fine, where.size[::-1], interpolation=cv2.INTER_AREA)
    return crop


def _arc(width: int, height: int, bend: float, dice: Dice) -> _Arc:
    """Bend a line so that half of it spans the angle whose half has the tangent `bend`."""
    norm = 1.0 + bend * bend
    cosine, sine = (1.0 - bend * bend) / norm, 2.0 * bend / norm
    radius = max(width / (2.0 * _angle(sine / cosine)), 0.75 * height)
    outer, inner = radius + height / 2, radius - height / 2
    return _Arc(radius, 1 if dice.chance(0.65) else -1, 2.0 * outer * sine, outer - inner * cosine)


def _angle(tangent: float) -> float:
    """About the arc tangent, by + * / alone: the same on every machine, near enough up to 60 degrees."""
    return tangent / (1.0 + 0.28 * tangent * tangent)


def _unbend(u: Floats, v: Floats, arc: _Arc, width: int, height: int) -> tuple[Floats, Floats]:
    """Coordinates in the straight line's canvas for points of the unit square around the bent one."""
    across = (u - 0.5) * arc.width
    down = (v if arc.sign > 0 else 1.0 - v) * arc.height
    depth = np.maximum(arc.radius + height / 2 - down, 1.0)  # above the arc's centre
    tangent = across / depth
    angle = tangent / (tangent * tangent * 0.28 + 1.0)
    lift = np.sqrt(across * across + depth * depth) - arc.radius
    return angle * arc.radius + (width / 2 + PAD - 0.5), (height / 2 + PAD - 0.5) - lift * arc.sign


def _spans(corners: list[Point]) -> Point:
    """Width and height of a quadrangle, the mean of opposite sides."""
    sides = [
        sqrt((x1 - x0) * (x1 - x0) + (y1 - y0) * (y1 - y0))
        for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True)
    ]
    return (sides[0] + sides[2]) / 2, (sides[1] + sides[3]) / 2


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


def _fit(corners: list[Point], height: float, warp: Warp, size: Size, dice: Dice) -> list[Point]:
    """Scale the corners' bounding box with random margins to the crop."""
    left, right, above, below = (_margin(height, warp, dice) for _ in range(4))
    (x0, x1), (y0, y1) = ((min(values), max(values)) for values in zip(*corners, strict=True))
    x0, y0, x1, y1 = x0 - left, y0 - above, x1 + right, y1 + below
    return [((x - x0) * size.width / (x1 - x0), (y - y0) * size.height / (y1 - y0)) for x, y in corners]


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
    return (e * i - f * h, c * h - b * i, b * f - c * e,
            f * g - d * i, a * i - c * g, c * d - a * f,
            d * h - e * g, b * g - a * h, a * e - b * d)  # fmt: skip


@lru_cache(maxsize=1024)
def _centres(pixels: int, dense: int) -> Floats:
    """Where the samples of a row lie, in pixels of the crop."""
    return (np.arange(pixels * dense, dtype=np.float32) + np.float32(0.5)) / np.float32(dense)


def _coordinates(m: tuple[float, ...], box: Point, start: float, size: Size, dense: list[int]) -> tuple[Floats, Floats]:
    """Where every sample of the crop lies, (h, w) each: x and y from `start` on in a box of that width and height."""
    xs, ys = _centres(size.width, dense[0]), _centres(size.height, dense[1])[:, None]
    across = [box[0] * m[k] + start * m[6 + k] for k in range(3)]
    down = [box[1] * m[3 + k] + start * m[6 + k] for k in range(3)]
    # Scaled so that the depth is about 1: float32 has no room for the determinant.
    x = xs * (across[0] / m[8]) + (ys * (across[1] / m[8]) + across[2] / m[8])
    y = xs * (down[0] / m[8]) + (ys * (down[1] / m[8]) + down[2] / m[8])
    if abs(m[6]) + abs(m[7]) < 1e-12 * abs(m[8]):  # no perspective
        return x, y
    nearness = np.float32(1.0) / (xs * (m[6] / m[8]) + (ys * (m[7] / m[8]) + 1.0))
    return x * nearness, y * nearness
