"""Pictures: from encoded bytes to uint8 (H, W, C) of the recipe's size, and on to what a recogniser reads."""

import os
from functools import lru_cache
from typing import Literal

# OpenCV reads its limit when it is loaded; it refuses a larger picture by its header, before memory is spent on it.
MAX_PIXELS = int(os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(64 << 20)))

import cv2  # noqa: E402
import numpy as np  # noqa: E402
import numpy.typing as npt  # noqa: E402

from components.recognition.recipe import Data  # noqa: E402

Picture = npt.NDArray[np.uint8]

# What a picture's stored bytes depend on in a recipe's data section.
PICTURE_KEYS = ("height", "width", "channels", "fit", "interpolation", "turn_tall")
# MindOCR's and PaddleOCR's: the latter pads the normalised picture with 0, level 127.5, which no byte holds.
PADDING = {"pad_black": 0, "pad_grey": 127}
UNIT = 1 << 22  # bicubic weights are whole numbers of 1 / UNIT, as Pillow's


def decode(data: bytes, channels: int) -> Picture:
    """Decode any picture that OpenCV reads to uint8 (H, W, channels), RGB or gray; ValueError for what is none."""
    if not data:
        raise ValueError("empty file")
    flag = cv2.IMREAD_GRAYSCALE if channels == 1 else cv2.IMREAD_COLOR_RGB
    try:
        image = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), flag)
    except cv2.error as error:
        if "CV_IO_MAX_IMAGE_PIXELS" in str(error):
            raise ValueError(f"more than {MAX_PIXELS} pixels") from None
        raise ValueError(f"not decodable: {error.err}") from None
    if image is None:
        raise ValueError(f"not a whole picture: {len(data)} bytes that begin with {data[:8]!r}")
    if image.shape[0] * image.shape[1] > MAX_PIXELS:
        raise ValueError(f"{image.shape[1]}x{image.shape[0]} is more than {MAX_PIXELS} pixels")
    return np.asarray(image, dtype=np.uint8).reshape(*image.shape[:2], channels)


def to_channels(image: Picture, channels: int) -> Picture:
    """Turn uint8 (H, W) or (H, W, 1 or 3) into (H, W, channels): gray by luma, colour by repetition."""
    if image.ndim == 2:
        image = image[:, :, None]
    if image.shape[2] == channels:
        return image
    if channels == 3:
        return np.repeat(image, 3, axis=2)
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), dtype=np.uint8)[:, :, None]


def fit_picture(image: Picture, data: Data) -> Picture:
    """Fit uint8 (h, w) or (h, w, 1 or 3) into the recipe's (H, W, C); of the recipe it reads `PICTURE_KEYS` alone."""
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


def resize(image: Picture, height: int, width: int, interpolation: Literal["bilinear", "bicubic"]) -> Picture:
    """Resize uint8 (H, W, C) to (height, width, C), to equal bytes on every processor, which shards' digests rest on.

    Bilinear takes the nearest four pixels as OpenCV does; bicubic widens where it shrinks (antialiasing), as Pillow
    does. OpenCV's own bicubic does not, and its bytes depend on the processor.
    """
    if image.shape[:2] == (height, width):
        return image
    if interpolation == "bicubic":
        return np.stack([_bicubic(plane, height, width) for plane in np.moveaxis(image, 2, 0)], axis=2)
    resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR_EXACT)
    return np.asarray(resized, dtype=np.uint8).reshape(height, width, image.shape[2])


def _bicubic(plane: Picture, height: int, width: int) -> Picture:
    """Resize uint8 (H, W) along its lines, round, then along its columns."""
    narrow = _rounded(plane @ _weights(plane.shape[1], width).T)
    return _rounded(_weights(plane.shape[0], height) @ narrow)


@lru_cache(maxsize=128)
def _weights(old: int, new: int) -> npt.NDArray[np.float64]:
    """Return what each of `new` pixels takes of `old` ones, (new, old): cubic convolution, a = -0.5 (Keys 1981).

    They are whole numbers of 1 / UNIT, so that sums of products with uint8 are exact in any order of adding.
    """
    scale = old / new
    centres = (np.arange(new) + 0.5) * scale
    x = np.abs(np.arange(old) + 0.5 - centres[:, None]) / max(scale, 1.0)
    near, far = (1.5 * x - 2.5) * x * x + 1.0, ((2.5 - 0.5 * x) * x - 4.0) * x + 2.0
    weights = np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))
    return np.asarray(np.rint(weights / weights.sum(axis=1, keepdims=True) * UNIT), dtype=np.float64)


def _rounded(sums: npt.NDArray[np.float64]) -> Picture:
    return np.asarray(np.clip(np.floor(sums / UNIT + 0.5), 0, 255), dtype=np.uint8)


def normalise(images: Picture, middle: float) -> npt.NDArray[np.float32]:
    """Turn uint8 (N, H, W, C) into float32 (N, C, H, W), (x - middle) / middle: what recognisers read, about -1..1."""
    planes = np.ascontiguousarray(images.transpose(0, 3, 1, 2), dtype=np.float32)
    return (planes - np.float32(middle)) / np.float32(middle)
