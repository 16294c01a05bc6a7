"""Makes a recipe's champion better on words of one's own, from Python; here part numbers, drawn for the purpose.

    pip install -c requirements/constraints.txt '.[pytorch]'    # once, in the project's folder; or PYTHONPATH=. there
    python examples/tune_own_words.py parts     # draws 300 pictures into the folder `parts`, tunes, says what it reads

It goes on from quickstart's champion, which `make run` leaves, or from the weights that come with the project. A folder
that has pictures already is taken as it is: any names, and one text file with lines of a picture's name and its label.
"""

import argparse
import json
import sys
from pathlib import Path

import cv2
import numpy as np

from pipelines.cli import command_line
from pipelines.local import services

WORDS = 300


def draw(folder: Path, count: int) -> None:
    """Draw part numbers such as ab-1234 on grey, each in its own size, place and noise, with the file of labels."""
    folder.mkdir(parents=True)
    dice, lines = np.random.default_rng(1), []
    for number in range(count):
        letters = "".join(dice.choice(list("abcdefghkmnprstuvwxyz"), 2))
        label = f"{letters}-{dice.integers(1000, 10000)}"
        picture = np.full((40, 170), dice.integers(150, 230), np.uint8)
        place, size = (int(dice.integers(4, 18)), int(dice.integers(26, 34))), dice.uniform(0.85, 1.05)
        cv2.putText(picture, label, place, cv2.FONT_HERSHEY_DUPLEX, size, int(dice.integers(0, 70)), 1, cv2.LINE_AA)
        noisy = np.clip(picture + dice.normal(0, 9, picture.shape), 0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / f"{number:04}.png"), noisy)
        lines.append(f"{number:04}.png {label}\n")
    (folder / "labels.txt").write_text("".join(lines), encoding="utf-8")


def newest_gains() -> list[dict[str, object]]:
    """Return what the newest tuning has changed: for each benchmark the accuracy before and now, in shares."""
    files = sorted((services.STATE / "runs").glob("*/tune.json"), key=lambda path: path.stat().st_mtime)
    found: list[dict[str, object]] = json.loads(files[-1].read_text(encoding="utf-8"))["gains"]
    return found


def main(folder: Path, *more: str) -> int:
    """Draw the words if there are none, tune the champion on them, print what it reads now; return the code."""
    if not folder.exists():
        draw(folder, WORDS)
    options = command_line().parse_args(["tune", str(folder), *more])
    code: int = options.verb(options)
    if code == 0:
        for row in newest_gains():
            kind = "own words" if row["own"] else "others"
            print(f"{row['name']}: {kind}, {row['before']:.1%} read right before, {row['now']:.1%} now")
    return code


def options_of(words: list[str]) -> tuple[Path, list[str]]:
    """Return the folder that a command line names, and what stands beside it."""
    parser = argparse.ArgumentParser(description="Makes a recipe's champion better on words of one's own.",
                                     epilog="What else there is goes to the verb `tune` as it is.")  # fmt: skip
    parser.add_argument("folder", type=Path, help="of the words; one that is not there is made, with part numbers")
    known, more = parser.parse_known_args(words)
    return known.folder, more


if __name__ == "__main__":
    own, others = options_of(sys.argv[1:])
    try:
        sys.exit(main(own, *others))
    except (ValueError, RuntimeError, OSError) as error:
        sys.exit(f"error: {error}")
