"""Pictures: from encoded bytes to uint8 (H, W, C) of the recipe's size, and on to what a recogniser reads."""

import os

# OpenCV reads its limit when it is loaded; it refuses a larger picture by its header, before memory is spent on it.
MAX_PIXELS = 64 << 20
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(MAX_PIXELS))

import cv2  # noqa: E402
import numpy as np  # noqa: E402
import numpy.typing as npt  # noqa: E402

Picture = npt.NDArray[np.uint8]


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


def resize(image: Picture, height: int, width: int) -> Picture:
    """Resize uint8 (H, W, C) to (height, width, C), bilinear, the ratio of the sides not kept."""
    if image.shape[:2] == (height, width):
        return image
    # The exact variant gives equal bytes on every processor, which the shards' digests rest on.
    resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR_EXACT)
    return np.asarray(resized, dtype=np.uint8).reshape(height, width, image.shape[2])


def normalise(images: Picture) -> npt.NDArray[np.float32]:
    """Turn uint8 (N, H, W, C) in 0..255 into float32 (N, C, H, W) in -1..1, the input of recognisers."""
    planes = np.ascontiguousarray(images.transpose(0, 3, 1, 2), dtype=np.float32)
    return (planes - np.float32(127.5)) / np.float32(127.5)
