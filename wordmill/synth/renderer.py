"""Pictures of text rendered from glyph atlases: `synth://words?...`, data sets that need no download.

Picture `index` depends on the specification (without its count) and the index alone: the same bytes on every
machine, in any order, from any number of processes. Randomness comes from hashes, pixels from integer arithmetic.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import get_args
from urllib.parse import parse_qsl, urlsplit

import cv2

from wordmill.synth.chinese import Lines
from wordmill.synth.fonts import ATLAS, CHINESE_ATLAS, LETTER_ATLAS, SIGN_ATLAS, Pixels
from wordmill.synth.letters import LetteredWords, drawable
from wordmill.synth.random import Dice
from wordmill.synth.signs import Signs
from wordmill.synth.style import Difficulty
from wordmill.synth.text import LISTS, WORD_LISTS
from wordmill.synth.words import Words

DATA = (
    ATLAS,
    CHINESE_ATLAS,
    SIGN_ATLAS,
    LETTER_ATLAS,
    *WORD_LISTS.values(),
    *LISTS.values(),
)  # files that pictures depend on
_CHOICES = {
    "kind": ("words", "chinese", "signs"),
    "fonts": ("train", "test"),
    "words": ("train", "test"),
    "difficulty": get_args(Difficulty),
    "colour": ("0", "1"),
}
_EXAMPLES = """expected one like
  synth://words?seed=1&count=200000&fonts=train&words=train&difficulty=mixed&colour=0
  synth://words?seed=1&count=20000&fonts=train&words=train&difficulty=mixed&characters=%C3%A9%C3%A8
  synth://chinese?seed=1&count=200000&words=train&difficulty=mixed
  synth://signs?seed=1&count=20000&words=train&difficulty=mixed"""


@dataclass(frozen=True, kw_only=True)
class SynthSpec:
    """One rendered data set.

    kind: Latin words 32x100, Chinese lines 26..40 high in colour, or French street signs 150x600 in colour.
    words, fonts: "train" or "test", parts that share no text and no family of faces; Chinese lines and signs have
    few faces, which both parts share. colour: words in red, green and blue. characters: one or more of these stand in
    every word, and in its label.
    """

    kind: str = "words"
    seed: int
    count: int
    fonts: str = "train"
    words: str
    difficulty: str
    colour: str = "0"
    characters: str = ""

    def __post_init__(self) -> None:
        for key, allowed in _CHOICES.items():
            if getattr(self, key) not in allowed:
                raise ValueError(f"synth: {key} is {getattr(self, key)!r}, expected one of {', '.join(allowed)}")
        if self.seed < 0 or self.count < 1:
            raise ValueError(f"synth: seed is {self.seed} and count is {self.count}, expected seed >= 0 and count >= 1")
        drawn = drawable(self.characters, self.fonts)
        if wrong := "".join(dict.fromkeys(character for character in self.characters if character not in drawn)):
            raise ValueError(f"synth: characters: no face has {wrong!r}")

    @classmethod
    def parse(cls, uri: str) -> "SynthSpec":
        """Read an address; every key that its kind has is needed once, but `colour` and `characters`."""
        parts = urlsplit(uri)
        if parts.scheme != "synth" or parts.netloc not in _CHOICES["kind"] or parts.path or parts.fragment:
            raise ValueError(f"{uri}: not an address of rendered text, {_EXAMPLES}")
        pairs = parse_qsl(parts.query, keep_blank_values=True)
        values = dict(pairs)
        latin = {"fonts", "colour", "characters"}
        known = [f.name for f in fields(cls) if f.name != "kind" and (parts.netloc == "words" or f.name not in latin)]
        wrong = [f"unknown key {key}" for key in values if key not in known]
        wrong += [f"missing key {key}" for key in known if key not in values and key not in ("colour", "characters")]
        if wrong or len(values) != len(pairs):
            raise ValueError(f"{uri}: {', '.join(wrong) or 'a key stands twice'}; {_EXAMPLES}")
        for key in ("seed", "count"):
            if not (values[key].isascii() and values[key].isdigit()):
                raise ValueError(f"{uri}: {key} is {values[key]!r}, expected a whole number such as {key}=1")
        return cls(kind=parts.netloc, seed=int(values.pop("seed")), count=int(values.pop("count")), **values)


class Renderer:
    """Draws the pictures of one specification."""

    def __init__(self, spec: SynthSpec) -> None:
        cv2.setNumThreads(1)
        self._key: tuple[str | int, ...] = (spec.kind, spec.seed, spec.fonts, spec.words, spec.difficulty, spec.colour)
        self._key += (spec.characters,) if spec.characters else ()
        self._artist = _artist(spec)

    def sample(self, index: int) -> tuple[Pixels, str]:
        """Picture (h, w) gray or (h, w, 3) RGB, uint8, and label of one index."""
        return self._artist.draw(Dice(*self._key, index))


def _artist(spec: SynthSpec) -> Words | LetteredWords | Lines | Signs:
    if spec.kind == "chinese":
        return Lines(spec.words, spec.difficulty)
    if spec.kind == "signs":
        return Signs(spec.words, spec.difficulty)
    channels = 3 if spec.colour == "1" else 1
    if spec.characters:
        return LetteredWords(spec.fonts, spec.words, spec.difficulty, channels, spec.characters)
    return Words(spec.fonts, spec.words, spec.difficulty, channels)


def render(spec: SynthSpec, start: int, stop: int) -> Iterator[tuple[Pixels, str]]:
    """Pictures and labels of the indices start..stop-1, in order: what one worker process runs."""
    if not 0 <= start <= stop <= spec.count:
        raise ValueError(f"synth: range {start}..{stop} does not lie in 0..{spec.count}, the count of {spec}")
    renderer = Renderer(spec)
    for index in range(start, stop):
        yield renderer.sample(index)
