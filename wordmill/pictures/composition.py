"""New words out of pieces of others: the front of one crop and the back of another, side by side.

Few words teach their letters in few surroundings, and are soon known by heart. Cut between characters they make as many
others as there are pairs of cuts: letters as they really look, in words that never were.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
import numpy.typing as npt

from wordmill.pictures.image import Picture, to_channels

WIDER = (0.85, 1.18)  # of the second piece's characters, to those of the first one's crop
LEAST = 3  # columns of a piece
FLAT = 4.0  # levels, of the deviation of a picture with hardly anything in it
SEAM = 2  # columns either side that are smoothed

Levels = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Crop:
    """A word's picture, uint8 (H, W, C), its text, and where that is cut: between two characters, in shares of W."""

    picture: Picture
    text: str
    cuts: tuple[float, ...]

    @property
    def pitch(self) -> float:
        """Columns of a character, by and large."""
        return self.picture.shape[1] / len(self.text)

    @cached_property
    def light(self) -> tuple[Levels, float]:
        """Mean level of each channel, (C,), and their deviation, negative where ink is darker than its ground."""
        deviation = float(self.picture.std())
        sign = 1 if is_bright_on_dark(self.picture) else -1
        return self.picture.mean(axis=(0, 1), dtype=np.float32), sign * max(FLAT, deviation)

    def columns(self, begin: int, end: int) -> slice:
        """Return where the characters begin <= n < end stand, LEAST columns or more."""
        width = self.picture.shape[1]
        edges = (0.0, *self.cuts, 1.0)
        first = min(round(edges[begin] * width), width - LEAST)
        return slice(first, max(round(edges[end] * width), first + LEAST))


def compose(crops: Sequence[Crop], seed: int) -> tuple[Picture, str]:
    """Return a word, uint8 (H, w, C), of pieces of two crops of one height and two characters or more, and its text.

    The second piece takes the contrast, brightness, polarity and, by and large, the pitch of the first one's crop.
    """
    rng = np.random.default_rng(seed)
    first, second = (crops[number] for number in rng.integers(len(crops), size=2))
    kept, begun = (int(rng.integers(1, len(one.text))) for one in (first, second))
    front = first.picture[:, first.columns(0, kept)]
    back = relit(second.picture[:, second.columns(begun, len(second.text))], second, first)
    width = max(LEAST, round(back.shape[1] * rng.uniform(*WIDER) * first.pitch / second.pitch))
    way = cv2.INTER_AREA if width < back.shape[1] else cv2.INTER_LINEAR
    scaled = cv2.resize(back, (width, len(back)), interpolation=way).reshape(len(back), width, -1)
    joined = np.concatenate([front.astype(np.float32), scaled], axis=1)
    near = slice(max(0, front.shape[1] - SEAM), front.shape[1] + SEAM)
    joined[:, near] = cv2.blur(joined, (SEAM + 1, 1)).reshape(joined.shape)[:, near]
    return np.clip(np.rint(joined), 0, 255).astype(np.uint8), first.text[:kept] + second.text[begun:]


def relit(part: Picture, crop: Crop, like: Crop) -> Levels:
    """Return a part of a crop with the levels that it would have were the crop lit and inked as another one."""
    (mean, deviation), (wanted, other) = crop.light, like.light
    return np.asarray((part - mean) * np.float32(other / deviation) + wanted, dtype=np.float32)


def is_bright_on_dark(picture: Picture) -> bool:
    """Tell whether a word is brighter than its ground, which is what most of the upper and lower edge shows."""
    gray = to_channels(picture, 1)[:, :, 0]
    level, _ = cv2.threshold(gray, 0, 255, cv2.THRESH_OTSU)
    return bool((gray[[0, -1]] > level).mean() < 0.5)
