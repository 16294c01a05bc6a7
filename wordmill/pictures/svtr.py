"""Changes of words' pictures for training as MindOCR's SVTR has them: geometry, deterioration, colour.

By its svtr_tiny.yaml and svtr_transform.py. A picture is changed as it comes, before it is fitted, by what its seed
draws alone; what lies outside it is as its edge.
"""

import cv2
import numpy as np
import numpy.typing as npt

from wordmill.pictures.augmentation import brighten, saturate, stretch, turn_hue
from wordmill.pictures.image import Picture

GEOMETRY, DETERIORATION, COLOUR = 0.5, 0.25, 0.25  # shares of the pictures
DEGREES = 15.0  # either way
SHIFT, SCALE, SHEAR = 0.3, (0.5, 2.0), (45.0, 15.0)  # in heights; factors; degrees either way, of x and of y
PERSPECTIVE = 0.5  # how far corners move in, in half sides
VARIANCE = 20.0  # of noise
STREAK = 6.0  # pixels of motion
HALVINGS, BASE = 4, (512, 128)  # at most so many, of a picture that is resized to width and height first
BRIGHTNESS, CONTRAST, SATURATION, HUE = 0.5, 0.5, 0.5, 0.1
WAYS = (cv2.INTER_NEAREST, cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_AREA)

Matrix = npt.NDArray[np.float64]


def roughen(image: Picture, seed: int) -> Picture:
    """Return uint8 (h, w) or (h, w, 1 or 3) changed, of as many dimensions and of another size."""
    rng = np.random.default_rng(seed)
    changed = np.ascontiguousarray(image[:, :, 0] if image.ndim == 3 and image.shape[2] == 1 else image)
    geometry, deterioration, colour = rng.random(3)
    if geometry < GEOMETRY:
        changed = (turn, slant, look_aside)[rng.integers(3)](changed, rng)
    if deterioration < DETERIORATION:
        for change in rng.permutation(np.array((add_noise, move, coarsen), dtype=object)):
            changed = change(changed, rng)
    if colour < COLOUR and changed.ndim == 3:
        changed = tint(changed, rng)
    return changed.reshape(*changed.shape[:2], *image.shape[2:])


def turn(image: Picture, rng: np.random.Generator) -> Picture:
    """Turn it on a canvas that holds all of it."""
    height, width = image.shape[:2]
    matrix = np.asarray(cv2.getRotationMatrix2D((width / 2, height / 2), _even(rng, DEGREES), 1.0))
    cosine, sine = np.abs(matrix[0, :2])
    size = int(height * sine + width * cosine), int(height * cosine + width * sine)
    matrix[:, 2] += (np.array(size) - (width, height)) / 2
    return _warped(image, matrix, size, rng)


def slant(image: Picture, rng: np.random.Generator) -> Picture:
    """Turn, shear, scale and shift it."""
    height, width = image.shape[:2]
    angle, shear_x, shear_y = np.radians([_even(rng, most) for most in (DEGREES, *SHEAR)])
    moved = np.rint([_even(rng, SHIFT * height) for _ in range(2)])
    turned = np.array([[np.cos(angle - shear_y), -np.sin(angle)], [np.sin(angle - shear_y), np.cos(angle)]])
    turned[:, 0] /= np.cos(shear_y)
    turned[:, 1] -= np.tan(shear_x) * turned[:, 0]
    linear = np.linalg.inv(turned) / rng.uniform(*SCALE)
    middle = np.array([width / 2, height / 2])
    matrix = np.column_stack([linear, middle - linear @ middle])
    corners = np.array([[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]])
    box = cv2.boxPoints(cv2.minAreaRect((corners @ linear.T + matrix[:, 2]).astype(np.float32)))
    size = np.trunc(np.ptp(box, axis=0))
    matrix[:, 2] += (size - (width, height)) / 2 + np.maximum(-moved, 0)
    return _warped(image, matrix, tuple((size + np.abs(moved)).astype(int).tolist()), rng)


def look_aside(image: Picture, rng: np.random.Generator) -> Picture:
    """See it from another side: each corner moves in."""
    height, width = image.shape[:2]
    corners = np.array([[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]], np.float32)
    inwards = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]], np.float32)
    moved = (rng.beta(1, 4, (4, 2)) * PERSPECTIVE * np.array([width, height]) / 2).astype(int)
    places = corners + inwards * moved.astype(np.float32)
    left, top = np.maximum(places.min(0), 0).astype(int).tolist()
    right, bottom = np.maximum(places.max(0).astype(int), (left + 1, top + 1)).tolist()
    matrix = cv2.getPerspectiveTransform(corners, places)
    seen = cv2.warpPerspective(image, matrix, (right, bottom), flags=_way(rng), borderMode=cv2.BORDER_REPLICATE)
    return np.ascontiguousarray(seen[top:, left:], dtype=np.uint8)


def add_noise(image: Picture, rng: np.random.Generator) -> Picture:
    """Add noise to every number."""
    variance = max(int(rng.beta(1, 4) * VARIANCE), 1)
    noisy = image + rng.normal(0.0, variance**0.5, image.shape)
    return np.asarray(np.clip(noisy, 0, 255), dtype=np.uint8)


def move(image: Picture, rng: np.random.Generator) -> Picture:
    """Blur it along a line."""
    length = max(int(rng.beta(1, 4) * STREAK), 1)
    turned = cv2.getRotationMatrix2D((length // 2, length // 2), rng.uniform(-90.0, 90.0), 1.0)
    line = np.zeros((length, length))
    line[length // 2] = 1.0
    return np.asarray(cv2.filter2D(image, -1, cv2.warpAffine(line, turned, (length, length)) / length), dtype=np.uint8)


def coarsen(image: Picture, rng: np.random.Generator) -> Picture:
    """Halve a larger copy of it a few times, and resize that to its own size."""
    halvings = round(rng.uniform(0, HALVINGS))
    if not halvings:
        return image
    small = cv2.resize(image, BASE, interpolation=_way(rng))
    for _ in range(halvings):
        small = cv2.pyrDown(small)
    return np.asarray(cv2.resize(small, image.shape[1::-1], interpolation=_way(rng)), dtype=np.uint8)


def tint(image: Picture, rng: np.random.Generator) -> Picture:
    """Change brightness, contrast, saturation and hue of uint8 (h, w, 3) in a random order."""
    steps = ((brighten, 1.0, BRIGHTNESS), (stretch, 1.0, CONTRAST), (saturate, 1.0, SATURATION), (turn_hue, 0.0, HUE))
    for step in rng.permutation(len(steps)):
        change, middle, most = steps[step]
        image = change(image, rng.uniform(middle - most, middle + most))
    return image


def _warped(image: Picture, matrix: Matrix, size: tuple[int, ...], rng: np.random.Generator) -> Picture:
    """Return the picture moved onto a canvas of a size (width, height)."""
    width, height = (max(1, side) for side in size)
    warped = cv2.warpAffine(image, matrix, (width, height), flags=_way(rng), borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(warped, dtype=np.uint8)


def _even(rng: np.random.Generator, most: float) -> float:
    """Draw from -most to most, rather near 0."""
    return float((rng.beta(4, 4) - 0.5) * 2 * most)


def _way(rng: np.random.Generator) -> int:
    return WAYS[rng.integers(len(WAYS))]
