"""Word images rendered from a glyph atlas: `synth://words?...`, a data set that needs no download.

Picture `index` depends on the specification (without its count) and the index alone: the same bytes on every
machine, in any order, from any number of processes. Randomness comes from hashes, pixels from integer arithmetic.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from urllib.parse import parse_qsl, urlsplit

import cv2
import numpy as np

from components.recognition.synth_backdrop import Backdrops, Plane
from components.recognition.synth_effects import blend, damage, decorate, strengthen
from components.recognition.synth_fonts import ATLAS, PAD, Face, Faces, Pixels
from components.recognition.synth_geometry import HEIGHT, WIDTH, Map, place, sample
from components.recognition.synth_random import Dice
from components.recognition.synth_style import EASY, HARD, SCENE, Style, grays, outline_gray, plate, shadow_gray
from components.recognition.synth_text import WORD_LISTS, Writer

_PARTS = ("train", "test")
_DIFFICULTIES = ("easy", "hard", "mixed")
_EXAMPLE = "synth://words?seed=1&count=200000&fonts=train&words=train&difficulty=mixed"


@dataclass(frozen=True, kw_only=True)
class SynthSpec:
    """One rendered data set; `fonts` and `words` are "train" or "test", parts that share no family and no text."""

    seed: int
    count: int
    fonts: str
    words: str
    difficulty: str

    def __post_init__(self) -> None:
        for key, allowed in (("fonts", _PARTS), ("words", _PARTS), ("difficulty", _DIFFICULTIES)):
            if getattr(self, key) not in allowed:
                raise ValueError(f"synth: {key} is {getattr(self, key)!r}, expected one of {', '.join(allowed)}")
        if self.seed < 0 or self.count < 1:
            raise ValueError(f"synth: seed is {self.seed} and count is {self.count}, expected seed >= 0 and count >= 1")

    @classmethod
    def parse(cls, uri: str) -> "SynthSpec":
        """Read `synth://words?seed=..&count=..&fonts=..&words=..&difficulty=..`; every key is needed, once."""
        parts = urlsplit(uri)
        if (parts.scheme, parts.netloc, parts.path, parts.fragment) != ("synth", "words", "", ""):
            raise ValueError(f"{uri}: not an address of rendered words, expected one like {_EXAMPLE}")
        pairs = parse_qsl(parts.query, keep_blank_values=True)
        values = dict(pairs)
        known = [field.name for field in fields(cls)]
        wrong = [f"unknown key {key}" for key in values if key not in known]
        wrong += [f"missing key {key}" for key in known if key not in values]
        if wrong or len(values) != len(pairs):
            raise ValueError(f"{uri}: {', '.join(wrong) or 'a key stands twice'}; expected one like {_EXAMPLE}")
        for key in ("seed", "count"):
            if not (values[key].isascii() and values[key].isdigit()):
                raise ValueError(f"{uri}: {key} is {values[key]!r}, expected a whole number such as {key}=1")
        return cls(
            seed=int(values["seed"]),
            count=int(values["count"]),
            fonts=values["fonts"],
            words=values["words"],
            difficulty=values["difficulty"],
        )


class Renderer:
    """Draws the pictures of one specification."""

    def __init__(self, spec: SynthSpec) -> None:
        cv2.setNumThreads(1)
        self._key = (spec.seed, spec.fonts, spec.words, spec.difficulty)
        self._difficulty = spec.difficulty
        self._faces = Faces(spec.fonts)
        self._writer = Writer(spec.words)
        self._backdrops = Backdrops()

    def sample(self, index: int) -> tuple[Pixels, str]:
        """Picture (32, 100) uint8 gray and label [0-9A-Za-z]+ of one index."""
        dice = Dice("word", *self._key, index)
        style = self._style(dice)
        text, label = self._writer.write(dice)
        face = self._faces.draw(dice)
        mask = strengthen(self._line(face, text, style, dice), style.bolder, dice)
        where = place(mask.shape[1] - 2 * PAD, mask.shape[0] - 2 * PAD, style.warp, dice)
        picture = self._compose(mask, where, face, style, dice)
        return damage(picture, style.harm, self._backdrops, dice), label

    def _style(self, dice: Dice) -> Style:
        draw = dice.unit()
        if self._difficulty == "mixed":  # some easy pictures shorten the plateau at the start of training
            return SCENE if draw < 0.7 else EASY if draw < 0.9 else HARD
        return EASY if self._difficulty == "easy" else HARD

    def _line(self, face: Face, text: str, style: Style, dice: Dice) -> Pixels:
        """The text as a mask; symbols that the face lacks are left out."""
        draw = dice.unit()
        tracking = 0.0
        if draw > 0.9:
            tracking = dice.between(3.0, max(3.0, style.tracking))
        elif draw > 0.65:
            tracking = dice.between(0.0, 4.0)
        elif draw > 0.55:
            tracking = dice.between(-1.6, 0.0)
        jitter = dice.between(1.0, 3.0) if style.effects and dice.chance(0.08) else 0.0
        glyphs = face.glyphs()
        return face.line("".join(c for c in text if c in glyphs), tracking, jitter, dice)

    def _compose(self, mask: Pixels, where: Map, face: Face, style: Style, dice: Dice) -> Plane:
        ground, ink = grays(style.contrast, dice)
        apart = abs(ink - ground)
        texture = dice.between(0.0, 0.15) if dice.chance(0.45) else abs(dice.bell(style.texture))
        picture = self._backdrops.plane(ground, int(256 * min(texture, apart / 75)), dice)
        if dice.chance(style.clutter):
            plate(picture, ground, ink, dice)
        if dice.chance(style.clutter):
            picture = self._neighbour(picture, ink, face, style, dice)
        layers = decorate(mask, style.effects, dice)
        if layers.under is not None:
            shade = outline_gray(ink, dice) if layers.outlined else shadow_gray(ink, ground, dice)
            opacity = 256 if layers.outlined else dice.integer(80, 256)
            picture = blend(picture, sample(layers.under, where), shade, opacity)
        body: Plane | int = ink
        if style.effects and dice.chance(0.3):
            body = self._backdrops.plane(ink, int(256 * min(abs(dice.bell(0.25)), apart / 90)), dice)
        opacity = 256 if dice.chance(0.75) else dice.integer(160, 256)
        return blend(picture, sample(layers.face, where), body, opacity)

    def _neighbour(self, picture: Plane, ink: int, face: Face, style: Style, dice: Dice) -> Plane:
        """Ink of a line above or below that reaches into the picture."""
        line = self._line(face, self._writer.write(dice)[0], style, dice)[PAD:-PAD, PAD:-PAD]
        small = cv2.resize(line, (WIDTH, HEIGHT - 8), interpolation=cv2.INTER_LINEAR_EXACT)
        rows = dice.integer(1, 5)
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        if dice.chance(0.5):
            mask[:rows] = small[-rows:]
        else:
            mask[-rows:] = small[:rows]
        return blend(picture, mask, ink, 256)


def render(spec: SynthSpec, start: int, stop: int) -> Iterator[tuple[Pixels, str]]:
    """Pictures and labels of the indices start..stop-1, in order: what one worker process runs."""
    if not 0 <= start <= stop <= spec.count:
        raise ValueError(f"synth: range {start}..{stop} does not lie in 0..{spec.count}, the count of {spec}")
    renderer = Renderer(spec)
    for index in range(start, stop):
        yield renderer.sample(index)


def atlas_digest() -> str:
    """SHA-256, hexadecimal, over the atlas and the word lists: what pictures depend on besides this code."""
    digest = hashlib.sha256()
    for path in (ATLAS, *WORD_LISTS.values()):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def contact_sheet(images: Sequence[Pixels], labels: Sequence[str], columns: int = 8) -> bytes:
    """A PNG with pictures (h, w) uint8 of one size at twice their size, each above its label."""
    if not images or len(images) != len(labels):
        raise ValueError(f"contact sheet: {len(images)} pictures and {len(labels)} labels, expected as many, not none")
    height, width = 2 * images[0].shape[0], 2 * images[0].shape[1]
    rows = (len(images) + columns - 1) // columns
    sheet = np.full((rows * (height + 16), columns * (width + 6)), 255, np.uint8)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        top, left = number // columns * (height + 16), number % columns * (width + 6)
        sheet[top : top + height, left : left + width] = image.repeat(2, 0).repeat(2, 1)
        cv2.putText(sheet, label, (left, top + height + 12), cv2.FONT_HERSHEY_SIMPLEX, 0.42, 0, 1, cv2.LINE_AA)
    return bytes(cv2.imencode(".png", sheet)[1].tobytes())
