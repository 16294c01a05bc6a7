"""New words out of pieces of others: crops are cut between characters, and pieces of several joined side by side.

Few words teach their letters in few surroundings, and are soon known by heart. Out of their pieces come others without
end: letters as they really look, in words that never were.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
import numpy.typing as npt

from wordmill.pictures.image import Picture, to_channels

LONGEST = 6  # characters of a piece that a text is looked for in
WIDER = (0.85, 1.18)  # of a piece's characters, to those of the first one's crop
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


Piece = tuple[Crop, int, int]  # a crop's characters begin <= n < end


class Composer:
    """Composes words out of crops of one height."""

    def __init__(self, crops: Sequence[Crop]) -> None:
        self.crops, self.pieces = crops, defaultdict[str, list[Piece]](list)
        for crop in crops:
            for begin in range(len(crop.text)):
                for end in range(begin + 1, min(begin + LONGEST, len(crop.text)) + 1):
                    self.pieces[crop.text[begin:end]].append((crop, begin, end))

    def cross(self, rng: np.random.Generator) -> list[Piece]:
        """Return the front of one crop and the back of another, of those with several characters."""
        first, second = (self.crops[number] for number in rng.integers(len(self.crops), size=2))
        kept, begun = (int(rng.integers(1, len(one.text))) for one in (first, second))
        return [(first, 0, kept), (second, begun, len(second.text))]

    def spell(self, text: str, rng: np.random.Generator) -> list[Piece]:
        """Return pieces that make a text, each the longest that there is; none where one of its characters is nowhere.

        The first is the front of its crop, and the last the back, where there are such: words have margins.
        """
        found = list[Piece]()
        while (place := sum(end - begin for _, begin, end in found)) < len(text):
            several = (self.pieces.get(text[place:end]) for end in range(min(place + LONGEST, len(text)), place, -1))
            chosen = next(filter(None, several), None)
            if chosen is None:
                return []
            length = chosen[0][2] - chosen[0][1]
            if place == 0:
                chosen = [piece for piece in chosen if piece[1] == 0] or chosen
            elif place + length == len(text):
                chosen = [piece for piece in chosen if piece[2] == len(piece[0].text)] or chosen
            found.append(chosen[int(rng.integers(len(chosen)))])
        return found


def beside_each_other(pieces: Sequence[Piece], rng: np.random.Generator) -> Picture:
    """Return pieces side by side, uint8 (H, w, C), with the contrast, brightness, polarity and pitch of the first."""
    first, begin, end = pieces[0]
    joined: Levels = first.picture[:, first.columns(begin, end)].astype(np.float32)
    for crop, begin, end in pieces[1:]:
        part = relit(crop.picture[:, crop.columns(begin, end)], crop, first)
        width = max(LEAST, round(part.shape[1] * rng.uniform(*WIDER) * first.pitch / crop.pitch))
        way = cv2.INTER_AREA if width < part.shape[1] else cv2.INTER_LINEAR
        scaled = cv2.resize(part, (width, len(part)), interpolation=way).reshape(len(part), width, -1)
        seam = joined.shape[1]
        joined = np.concatenate([joined, scaled], axis=1)
        near = slice(max(0, seam - SEAM), seam + SEAM)
        joined[:, near] = cv2.blur(joined, (SEAM + 1, 1)).reshape(joined.shape)[:, near]
    return np.clip(np.rint(joined), 0, 255).astype(np.uint8)


def text_of(pieces: Sequence[Piece]) -> str:
    """Return what pieces say."""
    return "".join(crop.text[begin:end] for crop, begin, end in pieces)


def relit(part: Picture, crop: Crop, like: Crop) -> Levels:
    """Return a part of a crop with the levels that it would have were the crop lit and inked as another one."""
    (mean, deviation), (wanted, other) = crop.light, like.light
    return np.asarray((part - mean) * np.float32(other / deviation) + wanted, dtype=np.float32)


def is_bright_on_dark(picture: Picture) -> bool:
    """Tell whether a word is brighter than its ground, which is what most of the upper and lower edge shows."""
    gray = to_channels(picture, 1)[:, :, 0]
    level, _ = cv2.threshold(gray, 0, 255, cv2.THRESH_OTSU)
    return bool((gray[[0, -1]] > level).mean() < 0.5)
