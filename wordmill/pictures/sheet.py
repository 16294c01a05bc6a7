"""Contact sheets: many pictures with their labels in one, for people.

python -m wordmill.pictures.sheet ADDRESS --sheet sheet.png    draws the first pictures of a rendered set
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from wordmill.synth.fonts import Pixels
from wordmill.synth.renderer import SynthSpec, render

SHOWN = 96  # pictures of a rendered set


def contact_sheet(images: Sequence[Pixels], labels: Sequence[str], columns: int = 8) -> bytes:
    """A PNG with pictures, uint8 (h, w) or RGB (h, w, 3), at twice their size, each above its label.

    Letters outside ASCII are shown as question marks in labels.
    """
    if not images or len(images) != len(labels):
        raise ValueError(f"contact sheet: {len(images)} pictures and {len(labels)} labels, expected as many, not none")
    height, width = (2 * max(image.shape[axis] for image in images) for axis in (0, 1))
    rows = (len(images) + columns - 1) // columns
    sheet = np.full((rows * (height + 16), columns * (width + 6), 3), 255, np.uint8)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        top, left = number // columns * (height + 16), number % columns * (width + 6)
        large = image.repeat(2, 0).repeat(2, 1)
        sheet[top : top + large.shape[0], left : left + large.shape[1]] = large.reshape(*large.shape[:2], -1)
        place = (left, top + height + 12)
        cv2.putText(sheet, label, place, cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
    return cv2.imencode(".png", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))[1].tobytes()


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw the first pictures of a set onto a sheet."""
    parser = argparse.ArgumentParser(prog="python -m wordmill.pictures.sheet", description="See rendered data.")
    parser.add_argument("address", type=SynthSpec.parse, help="synth://...")
    parser.add_argument("--sheet", type=Path, required=True, help="the PNG file to write")
    options = parser.parse_args(arguments)
    spec: SynthSpec = options.address
    samples = list(render(spec, 0, min(spec.count, SHOWN)))
    columns = {"words": 8, "chinese": 4, "signs": 2}[spec.kind]
    sheet = contact_sheet([image for image, _ in samples], [label for _, label in samples], columns)
    options.sheet.write_bytes(sheet)
    print(f"{options.sheet}: {len(samples)} pictures")


if __name__ == "__main__":
    main()
