"""Reads pictures of words from Python, and says of what in them it is not sure.

    pip install -c requirements/constraints.txt '.[pytorch]'    # once, in the project's folder; or PYTHONPATH=. there
    python examples/read_pictures.py MODEL PICTURES

MODEL is a file or a folder, PICTURES a folder, a list or one picture; --help says more.
"""

import argparse
import sys
from pathlib import Path

from wordmill.inference.reading import find_images, open_recogniser, read_images

SURE = 0.9


def main(model: Path, pictures: Path) -> int:
    """Print a line for each picture; return how many could not be read."""
    recogniser = open_recogniser(model)
    paths, _ = find_images(pictures)
    wrong = 0
    for result in read_images(recogniser, paths, characters=True):
        if result.error:
            wrong += 1
            print(f"{result.path.name}: {result.error}")
            continue
        unsure = [f"{one['text']!r}" + ("" if one["start"] is None else f" at {one['start']:.0%} of the width")
                  for one in result.details["characters"] if one["confidence"] < SURE]  # fmt: skip
        print(f"{result.path.name}: {result.text} ({result.confidence:.1%})", *unsure, sep="\n  perhaps not ")
    return wrong


def command_line() -> argparse.ArgumentParser:
    """Return what this takes."""
    parser = argparse.ArgumentParser(description="Reads pictures of words, and says of what in them it is not sure.")
    parser.add_argument("model", type=Path, help="a file that a run has exported (.onnx, .mindir, with card.json "
                        "beside it), a checkpoint (.safetensors), or the folder of a registered model")  # fmt: skip
    parser.add_argument("pictures", type=Path, help="a folder, a .txt list of paths, or one picture")
    return parser


if __name__ == "__main__":
    options = command_line().parse_args()
    try:
        sys.exit(min(1, main(options.model, options.pictures)))
    except (ValueError, RuntimeError) as error:
        sys.exit(f"error: {error}")
