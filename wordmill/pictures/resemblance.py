"""By what a picture is known again that was resized, compressed anew or cropped: fingerprints, and which are near.

A fingerprint has the signs of a picture's lowest frequencies (pHash; Zauner 2010, Implementation and Benchmarking of
Perceptual Image Hash Functions, 3.2.1), of 192 of them: words of one text in other letters differ in the higher ones.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt

from wordmill.pictures.image import Picture, to_channels

Fingerprints = npt.NDArray[np.uint64]  # (N, 3), the lowest frequencies in the lowest bits
Numbers = npt.NDArray[np.int64]

ROWS, COLUMNS = 8, 25  # of the thumbnail that a fingerprint is made of
BITS, BAND = 192, 16
FAINT = 1.0  # of a frequency, in gray levels of the thumbnail: below is noise
NEAR = 36  # bits that two fingerprints of one picture differ in at most
CROP = 2  # pixels that a copy may lack or have on a side
AT_ONCE = 1 << 18  # pairs that are compared together
# Of a band that as many share, such as the band of blank pictures, the others have to tell.
CROWD = 4096


def _cosines(count: int) -> npt.NDArray[np.float32]:
    """Return the matrix of the discrete cosine transform, unscaled, (count, count): a row for each frequency."""
    places = (np.arange(count) + 0.5) * np.pi / count
    return np.cos(places * np.arange(count)[:, None]).astype(np.float32)


DOWN, ACROSS = _cosines(ROWS), _cosines(COLUMNS).T.copy()
HEIGHTS = (np.arange(ROWS)[:, None] / ROWS) ** 2 + (np.arange(COLUMNS) / COLUMNS) ** 2
LOWEST = np.argsort(HEIGHTS, axis=None, kind="stable")[1 : BITS + 1]  # without the mean, which is brightness


def thumbnails(pictures: Picture) -> Picture:
    """Return fitted pictures (N, H, W, C) uint8 in gray, ROWS high and COLUMNS wide: (N, ROWS, COLUMNS)."""
    count, height, width, channels = pictures.shape
    rows = to_channels(pictures.reshape(count * height, width, channels), 1)
    if height % ROWS:  # a row of the thumbnail would mix two pictures
        apart = rows.reshape(count, height, width)
        return np.stack([cv2.resize(one, (COLUMNS, ROWS), interpolation=cv2.INTER_AREA) for one in apart])
    while height % (2 * ROWS) == 0 and width % (2 * COLUMNS) == 0:  # which OpenCV does ten times as fast
        height, width = height // 2, width // 2
        rows = cv2.resize(rows, (width, count * height), interpolation=cv2.INTER_AREA)
    small: Picture = cv2.resize(rows, (COLUMNS, count * ROWS), interpolation=cv2.INTER_AREA)
    return small.reshape(count, ROWS, COLUMNS)


def fingerprints(small: Picture) -> Fingerprints:
    """Return the fingerprints of thumbnails (N, ROWS, COLUMNS)."""
    across = small.reshape(-1, COLUMNS).astype(np.float32) @ ACROSS
    signs = np.matmul(DOWN, across.reshape(small.shape)).reshape(len(small), -1) > FAINT
    packed = np.packbits(np.take(signs, LOWEST, axis=1), axis=1, bitorder="little")
    return np.ascontiguousarray(packed).view("<u8")


def variants(image: Picture) -> list[Picture]:
    """Return a picture (H, W) or (H, W, C) as it is, and as copies may have it: cropped, or with more at the edge."""
    made = [image]
    for top, bottom, left, right in SIDES:
        height, width = image.shape[:2]
        if min(height, width) > 4 * CROP:
            made.append(image[top : height - bottom, left : width - right])
            wider = cv2.copyMakeBorder(image, top, bottom, left, right, cv2.BORDER_REPLICATE)
            made.append(wider.reshape(*wider.shape[:2], *image.shape[2:]))
    return made


SIDES = tuple(
    (CROP * top, CROP * bottom, CROP * left, CROP * right)
    for top, bottom, left, right in ((1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1), (1, 1, 0, 0), (0, 0, 1, 1),
                                     (1, 1, 1, 1))
)  # fmt: skip


@dataclass(frozen=True)
class Lookup:
    """Fingerprints (M, 3), found by any 16 bits of them that are alike (Norouzi et al. 2012, multi-index hashing).

    Which of 12 bands of a copy are alike is chance: it is found if one is, which the low frequencies mostly are.
    """

    known: Fingerprints
    order: list[Numbers] = field(init=False)  # of each band, the fingerprints by its value
    starts: list[Numbers] = field(init=False)  # and where in that order each value begins, (65537,)

    def __post_init__(self) -> None:
        bands = self.known.view("<u2")
        counts = [np.bincount(band, minlength=1 << BAND) for band in bands.T]
        object.__setattr__(self, "order", [np.argsort(band, kind="stable") for band in bands.T])
        object.__setattr__(self, "starts", [np.append(0, np.cumsum(count)) for count in counts])

    def near(self, asked: Fingerprints) -> tuple[Numbers, Numbers]:
        """Return for fingerprints (N, 3) the rows that are near a known one, rising, and the number of the nearest."""
        found = list(self._near(asked))
        rows, known, far = (np.concatenate(parts) for parts in zip(*found, strict=True)) if found else (NONE,) * 3
        order = np.lexsort((known, far, rows))
        first = order[np.flatnonzero(np.diff(rows[order], prepend=-1))]
        return rows[first], known[first]

    def _near(self, asked: Fingerprints) -> Iterator[tuple[Numbers, Numbers, Numbers]]:
        seen = asked.any(axis=1)  # a blank picture has no frequencies, and is nobody's
        for order, starts, band in zip(self.order, self.starts, asked.view("<u2").T, strict=True):
            begins, counts = starts[band], starts[band.astype(np.int64) + 1] - starts[band]
            counts[(counts > CROWD) | ~seen] = 0
            ends = np.cumsum(counts)
            pairs = int(counts.sum())
            stops = np.unique(np.searchsorted(ends, np.arange(AT_ONCE, pairs + AT_ONCE, AT_ONCE))) + 1
            for low, high in itertools.pairwise([0, *stops.tolist()]):
                yield self._compared(asked, order, begins, counts, slice(low, high))

    def _compared(
        self, asked: Fingerprints, order: Numbers, begins: Numbers, counts: Numbers, part: slice
    ) -> tuple[Numbers, Numbers, Numbers]:
        """Return rows of a part of what is asked, known ones near them, and how far these are."""
        many = counts[part]
        rows = np.repeat(np.arange(len(asked))[part], many)
        within = np.arange(len(rows)) - np.repeat(np.cumsum(many) - many, many)
        known = order[begins[rows] + within]
        far = differing(asked[rows], self.known[known])
        near = far <= NEAR
        return rows[near], known[near], far[near]


NONE = np.empty(0, dtype=np.int64)


def differing(ours: Fingerprints, theirs: Fingerprints) -> Numbers:
    """Return how many bits of fingerprints (N, 3) and (N, 3) differ, (N,) (Warren, Hacker's Delight, 5-1)."""
    bits = ours ^ theirs
    bits -= (bits >> np.uint64(1)) & np.uint64(0x5555555555555555)
    bits = (bits & np.uint64(0x3333333333333333)) + ((bits >> np.uint64(2)) & np.uint64(0x3333333333333333))
    bits = (bits + (bits >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    counts = ((bits * np.uint64(0x0101010101010101)) >> np.uint64(56)).astype(np.int64)
    return np.asarray(counts.sum(axis=1))
