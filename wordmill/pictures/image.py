"""Pictures: decoded ones to uint8 (H, W, C) of the recipe's size, and on to what a recogniser reads."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Literal

# OpenCV reads its limits when it is loaded; it refuses a larger picture by its header, before memory is spent on it.
MAX_PIXELS = int(os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(64 << 20)))
MAX_SIDE = int(os.environ.setdefault("OPENCV_IO_MAX_IMAGE_WIDTH", str(1 << 14)))
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_HEIGHT", str(MAX_SIDE))
os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")  # else it writes a line of every picture that is not whole
LIMITS = f"more than {MAX_PIXELS} pixels, or than {MAX_SIDE} wide or high"

import cv2  # noqa: E402
import numpy as np  # noqa: E402
import numpy.typing as npt  # noqa: E402

from wordmill.recipe.sections import Data  # noqa: E402

Picture = npt.NDArray[np.uint8]
Edits = Sequence[Callable[[Picture], Picture]]  # of each of several pictures, what is done to it before it is fitted


@dataclass(frozen=True, kw_only=True)
class Fitting:
    """How a picture is fitted into (height, width, channels): what of a recipe's data its bytes depend on."""

    height: int
    width: int
    channels: Literal[1, 3]
    fit: Literal["stretch", "pad_black", "pad_grey"] = "stretch"
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    turn_tall: bool = False


PICTURE_KEYS = tuple(field.name for field in fields(Fitting))
# MindOCR's and PaddleOCR's: the latter pads the normalised picture with 0, level 127.5, which no byte holds.
PADDING = {"pad_black": 0, "pad_grey": 127}
UNIT = 1 << 22  # bicubic weights are whole numbers of 1 / UNIT, as Pillow's
BAND = 50  # columns that one product of matrices makes: few enough to leave out most weights that are 0
LIKE = 4  # pictures of one size that are resized together; OpenCV takes up to four channels at full speed


def encode(image: Picture) -> bytes:
    """Encode uint8 (H, W) or (H, W, 1 or 3), RGB or gray, as PNG."""
    colour = image.ndim == 3 and image.shape[2] == 3
    return bytes(cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if colour else image)[1].tobytes())


def to_channels(image: Picture, channels: int) -> Picture:
    """Turn uint8 (H, W) or (H, W, 1 or 3) into (H, W, channels): gray by luma, colour by repetition."""
    if image.ndim == 2:
        image = image[:, :, None]
    if image.shape[2] == channels:
        return image
    if channels == 3:
        return np.repeat(image, 3, axis=2)
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), dtype=np.uint8)[:, :, None]


def fit_picture(image: Picture, data: Fitting | Data) -> Picture:
    """Fit uint8 (h, w) or (h, w, 1 or 3) into (H, W, C); of a recipe's section it reads a Fitting's keys alone."""
    image = to_channels(image, data.channels)
    if data.turn_tall and image.shape[0] > 2 * image.shape[1]:
        image = np.ascontiguousarray(np.rot90(image))
    if data.fit == "stretch":
        return resize(image, data.height, data.width, data.interpolation)
    height, width = image.shape[:2]
    width = min(data.width, -(-data.height * width // height))  # rounded up
    canvas = np.full((data.height, data.width, data.channels), PADDING[data.fit], dtype=np.uint8)
    canvas[:, :width] = resize(image, data.height, width, data.interpolation)
    return canvas


def filled(shape: Sequence[int], data: Fitting | Data) -> float:
    """Return the share of the recipe's width that a picture (h, w, ...) fills when it is fitted, in 0..1."""
    height, width = shape[:2]
    if data.fit == "stretch":
        return 1.0
    if data.turn_tall and height > 2 * width:
        height, width = width, height
    return min(data.width, -(-data.height * width // height)) / data.width


def fit_pictures(images: Sequence[Picture], data: Fitting | Data) -> Picture:
    """Fit many pictures, each as `fit_picture` does, to (N, H, W, C); gray ones of equal size are made together."""
    fitted = np.empty((len(images), data.height, data.width, data.channels), dtype=np.uint8)
    alike: dict[tuple[int, ...], list[int]] = {}
    for number, image in enumerate(images):
        alike.setdefault(image.shape, []).append(number)
    gray = data.channels == 1 and data.fit == "stretch" and not data.turn_tall
    for shape, numbers in alike.items():
        together = gray and len(shape) == 3 and shape[2] == 1 and shape[:2] != (data.height, data.width)
        step = LIKE if together else 1
        for some in (numbers[start : start + step] for start in range(0, len(numbers), step)):
            if len(some) > 1:
                planes = [fitted[number, :, :, 0] for number in some]
                _resize_together([images[number] for number in some], planes, data.interpolation)
            else:
                fitted[some[0]] = fit_picture(images[some[0]], data)
    return fitted


def _resize_together(images: list[Picture], fitted: list[Picture], interpolation: str) -> None:
    """Resize pictures uint8 (h, w, 1) of one size to the planes (H, W) of `fitted`."""
    height, width = fitted[0].shape
    if interpolation == "bicubic":
        planes = _bicubic(np.stack([image[:, :, 0] for image in images]), height, width)
        for plane, made in zip(planes, fitted, strict=True):
            made[...] = plane
    else:
        cv2.split(cv2.resize(cv2.merge(images), (width, height), interpolation=cv2.INTER_LINEAR_EXACT), fitted)


def resize(image: Picture, height: int, width: int, interpolation: Literal["bilinear", "bicubic"]) -> Picture:
    """Resize uint8 (H, W, C) to (height, width, C), to equal bytes on every processor, which shards' digests rest on.

    Bilinear takes the nearest four pixels as OpenCV does; bicubic widens where it shrinks (antialiasing), as Pillow
    does. OpenCV's own bicubic does not, and its bytes depend on the processor.
    """
    if image.shape[:2] == (height, width):
        return image
    if interpolation == "bicubic":
        resized: Picture = cv2.merge(tuple(_bicubic(np.stack(cv2.split(image)), height, width)))
    else:
        resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR_EXACT)
    return resized.reshape(height, width, image.shape[2])


def _bicubic(planes: Picture, height: int, width: int) -> Picture:
    """Resize uint8 (N, H, W) to (N, height, width): along the lines, rounded, then along the columns."""
    count, old_height, old_width = planes.shape
    lines = planes.reshape(count * old_height, old_width).astype(np.float64)
    sums = np.empty((len(lines), width))
    for taken, made, weights in _bands(old_width, width):
        np.matmul(lines[:, taken], weights, out=sums[:, made])
    narrow = _rounded(sums).reshape(count, old_height, width).astype(np.float64)
    columns = np.matmul(_weights(old_height, height), narrow)
    return _rounded(columns.reshape(count * height, width)).reshape(count, height, width)


@lru_cache(maxsize=512)
def _bands(old: int, new: int) -> list[tuple[slice, slice, npt.NDArray[np.float64]]]:
    """Cut the weights into bands of new pixels: the old pixels that each takes, the new ones, weights (old, new)."""
    bands = []
    for start in range(0, new, BAND):
        weights = _weights(old, new)[start : start + BAND]
        used = np.flatnonzero(weights.any(axis=0))
        taken = slice(int(used[0]), int(used[-1]) + 1)
        bands.append((taken, slice(start, start + len(weights)), np.ascontiguousarray(weights[:, taken].T)))
    return bands


@lru_cache(maxsize=512)
def _weights(old: int, new: int) -> npt.NDArray[np.float64]:
    """Return what each of `new` pixels takes of `old` ones, (new, old): cubic convolution, a = -0.5 (Keys 1981).

    They are whole numbers of 1 / UNIT, so that sums of products with uint8 are exact in any order of adding.
    """
    scale = old / new
    centres = (np.arange(new) + 0.5) * scale
    x = np.abs(np.arange(old) + 0.5 - centres[:, None]) / max(scale, 1.0)
    near, far = (1.5 * x - 2.5) * x * x + 1.0, ((2.5 - 0.5 * x) * x - 4.0) * x + 2.0
    weights = np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))
    return np.asarray(np.rint(weights / weights.sum(axis=1, keepdims=True) * UNIT) / UNIT, dtype=np.float64)


def _rounded(sums: npt.NDArray[np.float64]) -> Picture:
    """Round whole numbers of 1 / UNIT (H, W) to uint8, halves up: OpenCV rounds them to even, thus half a unit more."""
    rounded: Picture = cv2.addWeighted(sums, 1.0, sums, 0.0, 0.5 / UNIT, dtype=cv2.CV_8U)
    return rounded


def normalise(images: Picture, middle: float) -> npt.NDArray[np.float32]:
    """Turn uint8 (N, H, W, C) into float32 (N, C, H, W), (x - middle) / middle: what recognisers read, about -1..1."""
    count, height, width, channels = images.shape
    planes = np.empty((count, channels, height, width), dtype=np.float32)
    if channels == 1:
        planes[...] = images.reshape(planes.shape)
    else:  # OpenCV takes colours apart over ten times as fast as a transposed view is copied
        for channel, plane in enumerate(cv2.split(images.reshape(count * height, width, channels))):
            planes[:, channel] = plane.reshape(count, height, width)
    planes -= np.float32(middle)
    planes /= np.float32(middle)
    return planes
