"""Changes of words' pictures for training: what cameras, printers and croppers do to them, by one strength.

A picture is changed as it comes, before it is fitted, by what its seed draws alone: each effect for itself comes in
CHANCE of the pictures, as strong as is drawn from 0 to the strength, 1 being the most that a person still reads well.
"""

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

from wordmill.pictures.image import Picture

CHANCE = 0.3  # of each effect
# At strength 1. Lengths are in heights of the picture.
TURN, CORNER = 0.14, 0.12  # radians, about 8 degrees; how far corners move
TRIM = 0.15  # taken from a side
CONTRAST, BRIGHTNESS, TINT = 0.6, 60.0, 40.0  # share of the contrast; levels; levels of one channel
HOLE = 0.35  # side of what is cut out
BLUR, STREAK = 0.06, 0.16  # deviation; length
GRAIN = 28.0  # deviation in levels
QUALITY = 85.0  # of JPEG, taken from 95
LEAST = 4  # pixels that a side keeps

Effect = Callable[[Picture, float, np.random.Generator], Picture]


def distort(image: Picture, seed: int, strength: float) -> Picture:
    """Return uint8 (h, w) or (h, w, 1 or 3) changed, of as many dimensions; sides may be a little shorter."""
    rng = np.random.default_rng(seed)
    changed = np.ascontiguousarray(image[:, :, 0] if image.ndim == 3 and image.shape[2] == 1 else image)
    for effect, coin, amount in zip(EFFECTS, *rng.random((2, len(EFFECTS))), strict=True):
        if coin < CHANCE:
            changed = effect(changed, strength * amount, rng)
    return changed.reshape(*changed.shape[:2], *image.shape[2:])


def tilt(image: Picture, amount: float, rng: np.random.Generator) -> Picture:
    """Turn it, and see it from another side; what lies outside is as its edge."""
    height, width = image.shape[:2]
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    angle = amount * TURN * rng.choice((-1.0, 1.0))
    turning = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]], np.float32)
    middle = np.array([width / 2, height / 2], np.float32)
    moved = (corners - middle) @ turning.T + middle
    moved += rng.uniform(-1, 1, (4, 2)).astype(np.float32) * np.float32(amount * CORNER * min(height, width))
    matrix = cv2.getPerspectiveTransform(corners, moved)
    return _as_picture(cv2.warpPerspective(image, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE))


def trim_edges(image: Picture, amount: float, rng: np.random.Generator) -> Picture:
    """Crop it tighter, into the letters at times, at each side as much as is drawn."""
    height, width = image.shape[:2]
    top, bottom, left, right = (rng.random(4) * amount * TRIM * height).astype(int).tolist()
    if height - top - bottom < LEAST or width - left - right < LEAST:
        return image
    return np.ascontiguousarray(image[top : height - bottom, left : width - right])


def relevel(image: Picture, amount: float, rng: np.random.Generator) -> Picture:
    """Change contrast and brightness, and of colours each channel; every third picture is its negative."""
    channels = channels_of(image)
    factor = 1.0 + amount * CONTRAST * rng.uniform(-1, 1)
    offset = amount * (BRIGHTNESS * rng.uniform(-1, 1) + TINT * rng.uniform(-1, 1, channels) * (channels > 1))
    levels = (np.arange(256)[:, None] - 127.5) * (factor if rng.random() > 1 / 3 else -factor) + 127.5 + offset
    table = np.clip(np.rint(levels), 0, 255).astype(np.uint8)
    return _as_picture(cv2.LUT(image, table.reshape(1, 256, channels) if channels > 1 else table[:, 0]))


def cut_out(image: Picture, amount: float, rng: np.random.Generator) -> Picture:
    """Hide a small part of it behind its mean colour (DeVries and Taylor 2017, arXiv 1708.04552)."""
    height, width = image.shape[:2]
    rows, columns = (1 + (rng.random(2) * amount * HOLE * min(height, width)).astype(int)).tolist()
    top, left = rng.integers(0, (max(1, height - rows), max(1, width - columns))).tolist()
    changed = image.copy()
    changed[top : top + rows, left : left + columns] = np.rint(cv2.mean(image)[: channels_of(image)])
    return changed


def blur(image: Picture, amount: float, rng: np.random.Generator) -> Picture:
    """Put it out of focus."""
    deviation = amount * BLUR * image.shape[0]
    return _as_picture(cv2.GaussianBlur(image, (0, 0), deviation)) if deviation > 0.2 else image


def streak(image: Picture, amount: float, rng: np.random.Generator) -> Picture:
    """Blur it along a line, as a camera does that moves."""
    length = amount * STREAK * image.shape[0]
    if length < 1:
        return image
    angle, size = rng.uniform(0, np.pi), 2 * int(np.ceil(length / 2)) + 1
    places = np.linspace(-length / 2, length / 2, 4 * size)
    kernel = np.zeros((size, size), np.float32)
    rows, columns = (np.rint(places * part).astype(int) + size // 2 for part in (np.sin(angle), np.cos(angle)))
    np.add.at(kernel, (rows, columns), 1 / len(places))
    return _as_picture(cv2.filter2D(image, -1, kernel, borderType=cv2.BORDER_REPLICATE))


def grain(image: Picture, amount: float, rng: np.random.Generator) -> Picture:
    """Add a sensor's noise, to all channels alike."""
    noise = np.rint(rng.standard_normal(image.shape[:2], dtype=np.float32) * np.float32(amount * GRAIN))
    layers = cv2.merge([noise.astype(np.int16)] * channels_of(image))
    return _as_picture(cv2.add(image, layers, dtype=cv2.CV_8U))


def compress(image: Picture, amount: float, rng: np.random.Generator) -> Picture:
    """Store it as a JPEG and read it again."""
    quality = round(95 - amount * QUALITY)
    _, packed = cv2.imencode(".jpg", image, (cv2.IMWRITE_JPEG_QUALITY, quality))
    return _as_picture(cv2.imdecode(packed, cv2.IMREAD_UNCHANGED))


EFFECTS: tuple[Effect, ...] = (tilt, trim_edges, relevel, cut_out, blur, streak, grain, compress)


def channels_of(image: Picture) -> int:
    """Return how many channels uint8 (h, w) or (h, w, 3) has."""
    return 1 if image.ndim == 2 else image.shape[2]


def _as_picture(image: npt.NDArray[np.generic]) -> Picture:
    return np.asarray(image, dtype=np.uint8)
