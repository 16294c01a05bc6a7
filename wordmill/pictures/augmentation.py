"""Training pictures changed at random: several views of one sign, side by side, each cropped and recoloured by itself.

The augmentation of MindSpore's crnn_seq2seq_ocr on the French Street Name Signs, after that of Wojna et al. 2017. A
deviation: crops are taken from the stored view of 128 x 128 and enlarged, where the original shrinks crops of the view
of 150 x 150, so that pictures are a little softer here.
"""

import cv2
import numpy as np
import numpy.typing as npt

from wordmill.pictures.image import Picture

AREA = 0.8  # smallest share of the view that a crop keeps
ASPECT = (0.8, 1.2)  # width / height of a crop
WAYS = (cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_AREA, cv2.INTER_NEAREST)
BRIGHTNESS, CONTRAST, SATURATION = 32 / 255, 0.5, 0.5  # factors lie in 1 - x .. 1 + x
HUE = 0.2  # share of the circle, either way

LUMA = np.array([[0.299, 0.587, 0.114]], dtype=np.float32)  # ITU-R BT.601


def augment_views(images: Picture, seeds: npt.NDArray[np.int32]) -> Picture:
    """Return changed copies of uint8 (N, H, W, 3), each H x H view of the W // H ones changed by itself.

    What is drawn for a picture depends on its seed of (N,) alone.
    """
    side, views = images.shape[1], images.shape[2] // images.shape[1]
    changed = images.copy()
    for image, seed in zip(changed, seeds.view(np.uint32).tolist(), strict=True):
        rng = np.random.default_rng(seed)
        for left in range(0, views * side, side):
            view = image[:, left : left + side]
            view[:] = recolour(crop(view, rng), rng)
    return changed


def crop(view: Picture, rng: np.random.Generator) -> Picture:
    """Cut a random part out of uint8 (S, S, 3) and resize it to (S, S, 3) in a random one of four ways."""
    side = len(view)
    height, width = crop_size(side, rng)
    top, left = rng.integers(side - height), rng.integers(side - width)
    part = view[top : top + height, left : left + width]
    return np.asarray(cv2.resize(part, (side, side), interpolation=WAYS[rng.integers(len(WAYS))]), dtype=np.uint8)


def crop_size(side: int, rng: np.random.Generator) -> tuple[int, int]:
    """Draw height and width of a crop, both less than `side`, until they keep to AREA and ASPECT."""
    while True:
        aspect = rng.uniform(*ASPECT)
        low, high = np.ceil(side * np.sqrt(AREA / aspect)), np.floor(side / np.sqrt(aspect))
        height = int(rng.integers(low, high, endpoint=True))
        width = int(height * aspect)
        if height < side and width < side:
            return height, width


def recolour(view: Picture, rng: np.random.Generator) -> Picture:
    """Change brightness, contrast, saturation and hue of uint8 (H, W, 3) in a random order."""
    steps = ((brighten, 1.0, BRIGHTNESS), (stretch, 1.0, CONTRAST), (saturate, 1.0, SATURATION), (turn_hue, 0.0, HUE))
    for step in rng.permutation(4):
        change, middle, most = steps[step]
        view = change(view, rng.uniform(middle - most, middle + most))
    return view


def brighten(view: Picture, factor: float) -> Picture:
    """Multiply every level by the factor."""
    return _levels(view, factor, 0.0)


def stretch(view: Picture, factor: float) -> Picture:
    """Change the contrast: the distance of every level from the view's mean luma is multiplied by the factor."""
    middle = cv2.mean(cv2.cvtColor(view, cv2.COLOR_RGB2GRAY))[0]
    return _levels(view, factor, (1.0 - factor) * middle)


def saturate(view: Picture, factor: float) -> Picture:
    """Multiply every pixel's distance from its own luma by the factor."""
    mixing = factor * np.eye(3, dtype=np.float32) + (1.0 - factor) * LUMA
    return np.asarray(cv2.transform(view, mixing), dtype=np.uint8)


def turn_hue(view: Picture, turns: float) -> Picture:
    """Turn the hue of every pixel by so much of the circle, which in OpenCV's bytes has 180 steps."""
    colours = cv2.cvtColor(view, cv2.COLOR_RGB2HSV)
    turned = ((np.arange(256) + round(turns * 180)) % 180).astype(np.uint8)
    hue = cv2.LUT(cv2.extractChannel(colours, 0), turned)
    return np.asarray(cv2.cvtColor(cv2.insertChannel(hue, colours, 0), cv2.COLOR_HSV2RGB), dtype=np.uint8)


def _levels(view: Picture, factor: float, offset: float) -> Picture:
    """Return factor * level + offset, rounded and kept within 0..255."""
    return np.asarray(cv2.addWeighted(view, factor, view, 0.0, offset), dtype=np.uint8)
