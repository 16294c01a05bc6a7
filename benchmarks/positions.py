"""Where a recogniser says that characters stand, beside where the renderer has drawn them: `MODEL [--json]`.

Of rendered words of two characters and more that it reads right, the share of characters whose span overlaps their
cell by half or more (intersection over union); a cell ends half way to the character's neighbours.
"""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from benchmarks.data_rows import alone, print_rows
from benchmarks.models import Row
from wordmill.inference.reading import open_recogniser
from wordmill.pictures.image import fit_picture
from wordmill.recipe.arguments import from_one
from wordmill.synth import scene
from wordmill.synth.fonts import PAD, Face, Pixels
from wordmill.synth.geometry import Map, random_map
from wordmill.synth.random import Dice
from wordmill.synth.renderer import Renderer, SynthSpec
from wordmill.text.positions import cells

WORDS, BATCH, GOAL = 2000, 64, 90.0
OVERLAP = 0.5
SETS = {"easy": 3, "hard": 4}  # seeds of the catalogue's rendered_easy and rendered_hard


class Drawn:
    """What is drawn of a picture: its text, the middle of each letter on its canvas, and the way to the picture."""

    def __init__(self) -> None:
        self.text, self.middles = "", list[float]()
        self.where: list[Map] = []

    def places(self) -> list[float]:
        """Return the middles of letters and digits in shares of the picture's width, in the text's order."""
        x, y = (self.where[0].whole[:, :, axis].astype(float) for axis in (0, 1))
        middle = float(np.median(y))
        shares = []
        for letter, place in zip(self.text, self.middles, strict=True):
            if letter.isalnum():
                column = np.unravel_index(np.argmin((x - place) ** 2 + (y - middle) ** 2), x.shape)[1]
                shares.append((int(column) + 0.5) / x.shape[1])
        return shares


@contextmanager
def watched(drawn: Drawn) -> Iterator[None]:
    """Note what a renderer draws: the first line of a picture is its word."""
    line, mapped = Face.line, random_map

    def noted(face: Face, text: str, tracking_px: float, jitter_px: float, dice: Dice) -> Pixels:
        if not drawn.text:
            glyphs, pen, spans = face.glyphs(), 0.0, []
            for letter in text:
                glyph = glyphs[letter]
                spans.append((round(pen) + glyph.left, glyph.alpha.shape[1]))
                pen += glyph.advance / 4 + tracking_px
            left = min(x for x, _ in spans)
            drawn.text, drawn.middles = text, [PAD + x - left + width / 2 for x, width in spans]
        return line(face, text, tracking_px, jitter_px, dice)

    def kept(*arguments: Any) -> Map:
        drawn.where.append(mapped(*arguments))
        return drawn.where[-1]

    with patch.object(Face, "line", noted), patch.object(scene, "random_map", kept):
        yield


def overlap(one: tuple[float, float], other: tuple[float, float]) -> float:
    """Return the intersection of two spans over their union."""
    common = max(0.0, min(one[1], other[1]) - max(one[0], other[0]))
    return common / (one[1] - one[0] + other[1] - other[0] - common)


def overlaps(model: Path, seed: int, difficulty: str, words: int) -> tuple[int, list[float]]:
    """Return how many words a model reads right, and the overlap of each of their characters."""
    recogniser = open_recogniser(model)
    renderer = Renderer(SynthSpec(seed=seed, count=words, fonts="test", words="test", difficulty=difficulty))
    right, found = 0, list[float]()
    for start in range(0, words, BATCH):
        samples = []
        for number in range(start, min(start + BATCH, words)):
            drawn = Drawn()
            with watched(drawn):
                image, label = renderer.sample(number)
            samples.append((image, label, drawn))
        pictures = np.stack([fit_picture(image, recogniser.data) for image, _, _ in samples])
        _, details = recogniser.read_in_detail(pictures, [1.0] * len(pictures))
        for (_, label, drawn), detail in zip(samples, details, strict=True):
            read = detail["characters"]
            if "".join(one["text"] for one in read) != label.lower() or len(read) < 2 or " " in drawn.text:
                continue  # one character has all of the picture, in both
            right += 1
            places = sorted(drawn.places())
            spans = [(one["start"], one["end"]) for one in read]
            found += [overlap(span, cell) for span, cell in zip(spans, cells(places), strict=True)]
    return right, found


def rows(model: Path, words: int) -> list[Row]:
    """Make the lines of the table."""
    lines = []
    for difficulty, seed in SETS.items():
        right, found = overlaps(model, seed, difficulty, words)
        share = 100 * float(np.mean(np.array(found) >= OVERLAP)) if found else 0.0
        name = f"characters in their cell, {difficulty}, {right} words of {words} read right"
        lines.append(alone(name, share, "%", GOAL, least=True))
    return lines


def main() -> None:
    """Print the table, or rows for programs."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.positions", description=__doc__)
    parser.add_argument("model", type=Path, help="a file or folder, as make read takes it")
    parser.add_argument("--words", type=from_one, default=WORDS)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    print_rows(rows(options.model, options.words), options.json)


if __name__ == "__main__":
    main()
