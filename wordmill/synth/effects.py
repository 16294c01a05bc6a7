"""Effects on the letters and damage to the picture, in integer arithmetic.

Letters are masks (h, w) uint8, pictures are planes (C, h, w) int16 of levels 0 to 255 with one or three colours.
"""

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from wordmill.synth.backdrop import Backdrops, Colour, Plane
from wordmill.synth.fonts import PAD, Pixels
from wordmill.synth.random import Dice

_REACH = 5  # pixels that a shadow lies aside, at most; less than half of PAD
OPAQUE = 128  # full opacity; with more steps a product with a difference of levels would not fit into int16


class Layers(NamedTuple):
    """The letters' mask, and what lies under it: a shadow, an outline or nothing."""

    face: Pixels
    under: Pixels | None
    outlined: bool


@dataclass(frozen=True, kw_only=True)
class Damage:
    """Shares of pictures that suffer each kind of damage, and how much."""

    low_resolution: float
    blur: float
    most_blur: float  # pixels
    motion: float
    sharpen: float
    light: float
    noise: float
    noise_level: float  # gray levels
    jpeg: float
    jpeg_quality: int  # the worst


def strengthen(mask: Pixels, share: float, dice: Dice) -> Pixels:
    """Make some letters bolder and a few thinner."""
    draw = dice.unit()
    if draw < share:
        size = 2 if dice.chance(0.5) else 3
        bold: Pixels = cv2.dilate(mask, np.ones((size, size), np.uint8))
        return bold
    if draw < 1.4 * share:
        thin: Pixels = cv2.erode(mask, np.ones((2, 2), np.uint8))
        return thin if int(thin.max()) > 160 else mask
    return mask


def decorate(mask: Pixels, share: float, dice: Dice) -> Layers:
    """Give some letters an outline, a shadow or depth."""
    draw = dice.unit()
    if draw >= share:
        return Layers(mask, None, False)
    if draw < 0.4 * share:
        size = dice.pick((3, 5, 7))
        under = cv2.dilate(mask, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size)))
        hollow = dice.chance(0.3)
        return Layers(cv2.subtract(under, mask), None, False) if hollow else Layers(mask, under, True)
    across, down = dice.integer(-_REACH, _REACH), dice.integer(-_REACH + 1, _REACH)
    shadow = _extrude(mask, across, down) if dice.chance(0.35) else _shifted(mask, across, down)
    if dice.chance(0.5):
        shadow = cv2.GaussianBlur(shadow, (0, 0), dice.between(0.5, 2.5))
    return Layers(mask, shadow, False)


def _shifted(mask: Pixels, across: int, down: int) -> Pixels:
    moved = np.zeros_like(mask)
    inner = PAD // 2
    height, width = mask.shape
    moved[inner + down : height - inner + down, inner + across : width - inner + across] = mask[
        inner : height - inner, inner : width - inner
    ]
    return moved


def _extrude(mask: Pixels, across: int, down: int) -> Pixels:
    depth = np.zeros_like(mask)
    steps = max(abs(across), abs(down), 1)
    for step in range(1, steps + 1):
        cv2.max(depth, _shifted(mask, across * step // steps, down * step // steps), depth)
    return depth


def blend(picture: Plane, mask: Pixels, ink: Plane | Colour, opacity: int) -> Plane:
    """Lay ink over a picture where the mask (h, w) is; opacity 0..OPAQUE."""
    weight = np.multiply(mask, np.uint16(opacity), dtype=np.uint16)
    weight += np.uint16(255)
    weight >>= np.uint16(8)
    change = ink - picture
    change *= weight.view(np.int16)
    change += np.int16(64)
    change >>= np.int16(7)
    change += picture
    return change


def damage(picture: Plane, harm: Damage, backdrops: Backdrops, dice: Dice) -> Pixels:
    """Turn a plane into the final picture, (h, w) or (h, w, 3) uint8, with random damage."""
    if dice.chance(harm.light):
        picture = _light(picture, dice)
    planes = picture.astype(np.uint8)
    image: Pixels = planes[0] if len(planes) == 1 else cv2.merge(list(planes))
    if dice.chance(harm.low_resolution):
        image = _low_resolution(image, dice)
    image = _defocus(image, harm, dice)
    if dice.chance(harm.noise):
        image = backdrops.noisy(image, int(16 * (0.5 + abs(dice.bell(harm.noise_level)))), dice)
    if dice.chance(harm.jpeg):
        quality = [cv2.IMWRITE_JPEG_QUALITY, dice.integer(harm.jpeg_quality, 85)]
        image = cv2.imdecode(cv2.imencode(".jpg", image, quality)[1], cv2.IMREAD_UNCHANGED)
    return image


def _defocus(image: Pixels, harm: Damage, dice: Dice) -> Pixels:
    draw = dice.unit()
    if draw < harm.blur:
        soft: Pixels = cv2.GaussianBlur(image, (0, 0), dice.between(0.3, harm.most_blur))
        return soft
    if draw < harm.blur + harm.motion:
        return _motion(image, dice)
    if draw < harm.blur + harm.motion + harm.sharpen:
        soft = cv2.GaussianBlur(image, (0, 0), 1.5)
        return np.clip(2 * image.astype(np.int32) - soft, 0, 255).astype(np.uint8)
    return image


def _light(picture: Plane, dice: Dice) -> Plane:
    """A gain that changes evenly over the picture."""
    height, width = picture.shape[1:]
    across, down = int(dice.bell(28)), int(dice.bell(14))
    columns = np.arange(1 - width, width, 2, dtype=np.int32) * across // width
    rows = np.arange(1 - height, height, 2, dtype=np.int32)[:, None] * down // height
    brighter = picture * (columns + rows + 128) >> 7
    return np.clip(brighter, 0, 255).astype(np.int16)


def _low_resolution(image: Pixels, dice: Dice) -> Pixels:
    height, width = image.shape[:2]
    share = dice.between(0.34, 0.7)
    size = max(12, int(width * share)), max(9, int(height * share * dice.between(1.0, 1.3)))
    soft = cv2.GaussianBlur(image, (0, 0), 0.35 / share)
    small = cv2.resize(soft, size, interpolation=cv2.INTER_LINEAR_EXACT)
    way = cv2.INTER_LINEAR_EXACT if dice.chance(0.93) else cv2.INTER_NEAREST_EXACT
    large: Pixels = cv2.resize(small, (width, height), interpolation=way)
    return large


def _motion(image: Pixels, dice: Dice) -> Pixels:
    """The mean of the picture moved along a short line."""
    height, width = image.shape[:2]
    across, down = dice.pick(((1, 0), (1, 0), (0, 1), (1, 1), (1, -1), (2, 1), (2, -1)))
    steps = dice.integer(3, 5) if max(across, abs(down)) == 1 else 3
    edge = 8
    wide = cv2.copyMakeBorder(image, edge, edge, edge, edge, cv2.BORDER_REPLICATE)
    total = np.zeros(image.shape, np.uint16)
    for step in range(steps):
        top, left = edge + down * (step - steps // 2), edge + across * (step - steps // 2)
        total += wide[top : top + height, left : left + width]
    return ((total + np.uint16(steps // 2)) // np.uint16(steps)).astype(np.uint8)
