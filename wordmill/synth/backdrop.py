"""Backgrounds of the renderer: a fixed bank of gray pictures made with integer arithmetic, and noise."""

import random
from functools import lru_cache
from math import isqrt

import cv2
import numpy as np
import numpy.typing as npt

from wordmill.synth.fonts import Pixels
from wordmill.synth.geometry import Size
from wordmill.synth.random import Dice

Plane = npt.NDArray[np.int16]  # (C, h, w) levels 0 to 255
Colour = npt.NDArray[np.int16]  # (C, 1, 1)

_Wide = npt.NDArray[np.int32]

_ROWS, _COLUMNS = 80, 256
_PICTURES = 240
_DEVIATION = 42  # gray levels
_NOISE_ROWS, _NOISE_COLUMNS = 256, 3072
_NOISE_UNIT = 147  # standard deviation of the sum of four bytes


class Backdrops:
    """The bank: crops of it for backgrounds and textures, and of a noise field."""

    def __init__(self) -> None:
        self._pictures, self._noise = _bank()

    def plane(self, mean: Colour, contrast: int, size: Size, dice: Dice) -> Plane:
        """A crop (C, h, w) around a mean colour; contrast in 1/64 of the bank's, at most 255."""
        if not contrast:
            return np.broadcast_to(mean, (len(mean), *size)).copy()
        crop = self._crop(size, dice).astype(np.int16) * np.int16(contrast)
        crop >>= np.int16(6)
        return np.minimum(np.maximum(crop + mean, np.int16(0)), np.int16(255))

    def _crop(self, size: Size, dice: Dice) -> npt.NDArray[np.int8]:
        picture = self._pictures[dice.below(_PICTURES)]
        larger = size.height > _ROWS or size.width > _COLUMNS
        height, width = (-(-size.height // 2), -(-size.width // 2)) if larger else size
        top, left = dice.below(_ROWS - height + 1), dice.below(_COLUMNS - width + 1)
        crop: npt.NDArray[np.int8] = picture[top : top + height, left : left + width]
        if dice.chance(0.5):
            crop = crop[:, ::-1]
        return crop.repeat(2, 0).repeat(2, 1)[: size.height, : size.width] if larger else crop

    def noisy(self, image: Pixels, strength: int, dice: Dice) -> Pixels:
        """An image (h, w) or (h, w, 3) with bell-shaped noise of standard deviation strength / 16 levels."""
        rows, columns = image.shape[0], image.size // image.shape[0]
        top, left = dice.below(_NOISE_ROWS - rows + 1), dice.below(_NOISE_COLUMNS - columns + 1)
        field = self._noise[top : top + rows, left : left + columns]
        noise = field * np.int16(min(strength, 700))
        noise >>= np.int16(7)
        noisy: Pixels = cv2.add(image, noise.reshape(image.shape), dtype=cv2.CV_8U)  # saturates
        return noisy


@lru_cache(maxsize=1)
def _bank() -> tuple[npt.NDArray[np.int8], npt.NDArray[np.int16]]:
    """Pictures (N, 80, 256) around 0, and the noise field (256, 3072) with a standard deviation of 8."""
    makers = (_gradient, _clouds, _clouds, _clouds, _polygons, _stripes, _discs, _grain)
    pictures = np.empty((_PICTURES, _ROWS, _COLUMNS), np.int8)
    for index in range(_PICTURES):
        dice = Dice("backdrop", index)
        pictures[index] = _level(makers[index % len(makers)](dice))
    bytes_ = np.frombuffer(random.Random(1).randbytes(4 * _NOISE_ROWS * _NOISE_COLUMNS), np.uint8)
    noise = bytes_.reshape(4, _NOISE_ROWS, _NOISE_COLUMNS).sum(0, dtype=np.int32) - 510
    return pictures, ((noise * 8 + _NOISE_UNIT // 2) // _NOISE_UNIT).astype(np.int16)


def _level(picture: _Wide) -> npt.NDArray[np.int8]:
    """Shift to mean 0 and scale to the bank's contrast."""
    centred = picture.astype(np.int64) - int(picture.sum(dtype=np.int64)) // picture.size
    deviation = max(1, isqrt(int((centred * centred).sum()) // picture.size))
    return np.clip(centred * _DEVIATION // deviation, -127, 127).astype(np.int8)


def _blur(picture: _Wide, dice: Dice, most: float) -> _Wide:
    """Blur a picture of 0..255 with OpenCV's bit-exact 8-bit filter."""
    soft = cv2.GaussianBlur(picture.astype(np.uint8), (0, 0), dice.between(0.4, most))
    return np.asarray(soft, np.int32)


def _bytes(rows: int, columns: int, dice: Dice) -> npt.NDArray[np.uint8]:
    content = random.Random(dice.below(1 << 48)).randbytes(rows * columns)
    return np.frombuffer(content, np.uint8).reshape(rows, columns)


def _clouds(dice: Dice) -> _Wide:
    """Value noise: random grids of growing fineness, enlarged and added."""
    total = np.zeros((_ROWS, _COLUMNS), np.int32)
    weight = 256
    keep = dice.integer(90, 220)
    stretch = dice.pick((1, 1, 2, 4))
    for cell in (64, 32, 16, 8, 4, 2):
        grid = _bytes(_ROWS // cell + 2, _COLUMNS // (cell * stretch) + 2, dice)
        large = cv2.resize(grid, (_COLUMNS, _ROWS), interpolation=cv2.INTER_LINEAR_EXACT)
        total += large.astype(np.int32) * weight
        weight = weight * keep >> 8
    return total


def _gradient(dice: Dice) -> _Wide:
    rows, columns = np.arange(_ROWS, dtype=np.int32)[:, None], np.arange(_COLUMNS, dtype=np.int32)
    slope = rows * dice.integer(-8, 8) + columns * dice.integer(-4, 4)
    return np.asarray(slope + (_clouds(dice) >> 10), np.int32)


def _polygons(dice: Dice) -> _Wide:
    picture = np.full((_ROWS, _COLUMNS), dice.below(256), np.uint8)
    for _ in range(dice.integer(3, 14)):
        corners = [(dice.integer(-40, _COLUMNS + 40), dice.integer(-40, _ROWS + 40)) for _ in range(dice.integer(3, 5))]
        cv2.fillPoly(picture, [np.array(corners, np.int32)], dice.below(256))
    return _blur(picture.astype(np.int32), dice, 3.0)


def _stripes(dice: Dice) -> _Wide:
    """Stripes in any direction, or bricks."""
    rows, columns = np.arange(_ROWS, dtype=np.int32)[:, None], np.arange(_COLUMNS, dtype=np.int32)
    down, right = dice.pick(((0, 8), (8, 0), (dice.integer(-8, 8), dice.integer(1, 8))))
    period = dice.integer(4, 48) * 8
    stripes = ((rows * down + columns * right) % period) < period * dice.integer(1, 7) // 8
    if dice.chance(0.4):
        crossing = dice.integer(5, 40) * 8
        stripes = stripes & (((columns * down - rows * right) % crossing) > crossing // 8)
    return _blur(stripes.astype(np.int32) * 255, dice, 2.0)


def _discs(dice: Dice) -> _Wide:
    """Discs and thin lines."""
    picture = np.full((_ROWS, _COLUMNS), dice.below(256), np.uint8)
    for _ in range(dice.integer(3, 20)):
        centre = (dice.below(_COLUMNS), dice.below(_ROWS))
        if dice.chance(0.5):
            cv2.circle(picture, centre, dice.integer(2, 40), dice.below(256), -1)
        else:
            cv2.line(picture, centre, (dice.below(_COLUMNS), dice.below(_ROWS)), dice.below(256))
    return _blur(picture.astype(np.int32), dice, 2.5)


def _grain(dice: Dice) -> _Wide:
    """Fine grain on clouds: plaster, paper, asphalt."""
    return (_clouds(dice) >> 8) + _blur(_bytes(_ROWS, _COLUMNS, dice).astype(np.int32), dice, 1.2) * 2
