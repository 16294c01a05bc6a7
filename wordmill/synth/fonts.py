"""The glyph atlas: bitmaps of a few hundred faces, split by family into training and test faces."""

import hashlib
import json
import lzma
from bisect import bisect
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import accumulate
from operator import mul
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from wordmill.synth.random import Dice

Pixels = npt.NDArray[np.uint8]

_FOLDER = Path(__file__).parent / "data"
ATLAS = _FOLDER / "atlas.bin"
CHINESE_ATLAS = _FOLDER / "atlas_chinese.bin"
SIGN_ATLAS = _FOLDER / "atlas_signs.bin"
LETTER_ATLAS = _FOLDER / "atlas_letters.bin"
PAD = 12  # empty pixels around a line: room for outlines and shadows
_SPACE = 10.0  # pixels
_TEST_PERCENT = 15
_WEIGHTS = {"aenigma": 0.3, "3270": 0.15, "sixtyfour": 0.15}  # by package: display and terminal faces are rare outside
_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9, "lc": 0, "lp": 0, "pb": 0}]


class Glyph(NamedTuple):
    """Alpha (h, w) uint8 and its place: pixels right of the pen, above the base line, pen step in quarter pixels."""

    alpha: Pixels
    left: int
    top: int
    advance: int


def is_test_family(family: str) -> bool:
    """Whether a family of faces is kept for testing: by its name alone, so that a family is never in both parts."""
    return int.from_bytes(hashlib.sha256(family.encode()).digest()[:8], "little") % 100 < _TEST_PERCENT


@dataclass(kw_only=True)
class Face:
    """One face; its glyphs are unpacked when the first is asked for."""

    family: str
    name: str
    package: str
    characters: str
    scale: int
    stream: bytes
    _glyphs: dict[str, Glyph] = field(default_factory=dict)

    def glyphs(self) -> dict[str, Glyph]:
        """Glyphs by character; a face may lack some symbols, never a letter or digit."""
        if not self._glyphs:
            raw = lzma.decompress(self.stream, lzma.FORMAT_RAW, filters=_FILTERS)
            table = np.frombuffer(raw, "<i2", count=5 * len(self.characters)).reshape(-1, 5).tolist()
            pixels = np.frombuffer(raw, np.uint8, offset=10 * len(self.characters)) * np.uint8(self.scale)
            start = 0
            for character, (width, height, left, top, advance) in zip(self.characters, table, strict=True):
                if width:
                    alpha = pixels[start : start + width * height].reshape(height, width)
                    self._glyphs[character] = Glyph(alpha, left, top, advance)
                    start += width * height
        return self._glyphs

    def line(self, text: str, tracking_px: float, jitter_px: float, dice: Dice) -> Pixels:
        """Draw text on one base line: alpha (PAD + h + PAD, PAD + w + PAD) uint8, ink box h x w."""
        glyphs = self.glyphs()
        pen = 0.0
        placed: list[tuple[Pixels, int, int]] = []
        for character in text:
            if character == " ":
                pen += _SPACE
                continue
            glyph = glyphs[character]
            lift = round(dice.between(-jitter_px, jitter_px)) if jitter_px else 0
            placed.append((glyph.alpha, round(pen) + glyph.left, glyph.top + lift))
            pen += glyph.advance / 4 + tracking_px
        left, top = min([x for _, x, _ in placed]), max([y for _, _, y in placed])
        width = max([x + alpha.shape[1] for alpha, x, _ in placed]) - left
        height = top - min([y - alpha.shape[0] for alpha, _, y in placed])
        canvas = np.zeros((height + 2 * PAD, width + 2 * PAD), np.uint8)
        for alpha, x, y in placed:
            row, column = PAD + top - y, PAD + x - left
            view = canvas[row : row + alpha.shape[0], column : column + alpha.shape[1]]
            cv2.max(view, alpha, view)
        return canvas


class Faces:
    """The faces of one part ("train" or "test"), drawn by family so that large families do not dominate."""

    def __init__(self, part: str) -> None:
        families: dict[str, list[Face]] = {}
        for face in read_atlas(ATLAS):
            if is_test_family(face.family) == (part == "test"):
                families.setdefault(face.family, []).append(face)
        self.families = list(families.values())
        sizes = [min(4, len(family)) ** 0.5 for family in self.families]
        rare = [_WEIGHTS.get(family[0].package, 1.0) for family in self.families]
        self._limits = list(accumulate(map(mul, sizes, rare)))
        self._showy_limits = list(accumulate(sizes))

    def draw(self, dice: Dice, *, showy: bool) -> Face:
        """A random face; display faces are as likely as others where it may be showy, rare elsewhere."""
        limits = self._showy_limits if showy else self._limits
        family = bisect(limits, dice.unit() * limits[-1])
        return dice.pick(self.families[min(family, len(self.families) - 1)])


@lru_cache(maxsize=4)
def read_atlas(path: Path) -> tuple[Face, ...]:
    """All faces of an atlas; unpacks none of them."""
    content = path.read_bytes()
    start = 4 + int.from_bytes(content[:4], "little")
    index = json.loads(content[4:start])
    faces = []
    for entry in index["faces"]:
        stream = content[start : start + entry["bytes"]]
        start += entry["bytes"]
        faces.append(Face(family=entry["family"], name=entry["name"], package=entry["package"], stream=stream,
                          characters=index["characters"], scale=255 // index["levels"]))  # fmt: skip
    if start != len(content):
        raise RuntimeError(f"{path}: {len(content)} bytes, the index says {start}; restore the file from git")
    return tuple(faces)
