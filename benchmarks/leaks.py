"""Which copies of pictures the leak check finds, which others it takes for them, and what it takes.

python -m benchmarks.leaks [--pictures N] [--rows N] [--photographs FOLDER] [--json]

Copies are made of rendered words, and of photographs where a folder with some is named. Others are rendered words that
are no copies: the same words in other faces, and different ones. Rows are made-up fingerprints of training pictures,
looked up among those of as many benchmark pictures as the ten sets of scene text have.
"""

import argparse
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from benchmarks.data_rows import print_rows
from components.shard.leaks import AT_ONCE
from wordmill.pictures.decoder import decode
from wordmill.pictures.image import Picture, fit_pictures
from wordmill.pictures.resemblance import Fingerprints, Lookup, fingerprints, thumbnails, variants
from wordmill.recipe.arguments import from_one
from wordmill.recipe.sections import Data
from wordmill.synth.renderer import SynthSpec, render

Row = dict[str, str | float | bool | None]
Copy = Callable[[np.random.Generator, Picture], Picture]

DATA = Data(train=("t",), val=("v",), charset="lower36", height=32, width=100, channels=1)
SOUGHT = 10_000
FOUND, TAKEN = 95.0, 1.0  # % of copies at least, and of 10,000 others at most


def compressed(generator: np.random.Generator, image: Picture) -> Picture:
    """Return a picture as JPEG leaves it, at a quality of 30 to 90."""
    quality = [cv2.IMWRITE_JPEG_QUALITY, int(generator.integers(30, 91))]
    return np.asarray(cv2.imdecode(cv2.imencode(".jpg", image, quality)[1], cv2.IMREAD_GRAYSCALE), dtype=np.uint8)


def resized(generator: np.random.Generator, image: Picture) -> Picture:
    """Return a picture at half to twice its size, by one of three interpolations."""
    scale, how = generator.uniform(0.5, 2), (cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_AREA)[generator.integers(3)]
    height, width = (max(8, round(scale * side)) for side in image.shape[:2])
    return np.asarray(cv2.resize(image, (width, height), interpolation=how), dtype=np.uint8)


def cropped(generator: np.random.Generator, image: Picture) -> Picture:
    """Return a picture without two pixels of one side."""
    return (image[2:], image[:-2], image[:, 2:], image[:, :-2])[generator.integers(4)]


def cropped_all(generator: np.random.Generator, image: Picture) -> Picture:
    """Return a picture without two pixels of every side."""
    return image[2:-2, 2:-2]


def everything(generator: np.random.Generator, image: Picture) -> Picture:
    """Return a picture that is cropped on one side, resized and compressed."""
    return compressed(generator, resized(generator, cropped(generator, image)))


COPIES: dict[str, Copy] = {"JPEG again": compressed, "resized": resized, "cropped by 2 px on a side": cropped,
                           "cropped by 2 px on all": cropped_all, "all of it": everything}  # fmt: skip


def prints(images: Sequence[Picture]) -> Fingerprints:
    """Return the fingerprints of pictures as the shard stage has them."""
    return fingerprints(thumbnails(fit_pictures(images, DATA)))


def sought(images: Sequence[Picture]) -> tuple[Lookup, npt.NDArray[np.int64]]:
    """Return what finds copies of benchmark pictures, and whose each known fingerprint is."""
    made = [variants(image) for image in images]
    owners = np.repeat(np.arange(len(images)), [len(some) for some in made])
    return Lookup(np.concatenate([prints(some) for some in made])), owners


def rendered(count: int, seed: int) -> tuple[list[Picture], list[str]]:
    """Return rendered words and what they say."""
    spec = SynthSpec.parse(f"synth://words?seed={seed}&count={count}&fonts=train&words=train&difficulty=mixed")
    images, labels = zip(*render(spec, 0, count), strict=True)
    return list(images), list(labels)


def copies(name: str, images: Sequence[Picture], lookup: Lookup, owners: npt.NDArray[np.int64]) -> list[Row]:
    """Return which share of copies of each kind is found as what it is."""
    generator = np.random.Generator(np.random.Philox(0))
    found = []
    for how, copy in COPIES.items():
        rows, near = lookup.near(prints([copy(generator, image) for image in images]))
        # A picture that stands among the sought twice may be found as the other one.
        share = 100 * len(rows) / len(images)
        same = 100 * float((owners[near] == rows).mean())
        found.append(row(f"{name}, {how}: found", share, "%", FOUND, share >= FOUND))
        found.append(row(f"{name}, {how}: as what it is", same, "%"))
    return found


def others(images: Sequence[Picture], labels: Sequence[str], first: int, lookup: Lookup) -> list[Row]:
    """Return how many of the pictures from `first` on, none of which is sought, are taken for one that is."""
    rows, _ = lookup.near(prints(images[first:]))
    known = defaultdict[str, int](int)
    for label in labels[:first]:
        known[label.lower()] += 1
    alike = [number for number, label in enumerate(labels[first:]) if label.lower() in known]
    of_these = 1e4 * len(set(rows.tolist()) & set(alike)) / max(1, len(alike))
    of_all = 1e4 * len(rows) / (len(images) - first)
    return [row("words in other faces than the sought ones'", len(alike), "pictures"),
            row("of these taken, of 10,000", of_these, "pictures", TAKEN, of_these <= TAKEN),
            row("of all others taken, of 10,000", of_all, "pictures", TAKEN, of_all <= TAKEN)]  # fmt: skip


def speed(images: Sequence[Picture], lookup: Lookup, count: int) -> list[Row]:
    """Return what a fingerprint costs, and what so many rows cost that are looked up, in processor time."""
    fitted = fit_pictures(images[:2048], DATA)
    taken = min(_seconds(lambda: fingerprints(thumbnails(fitted))) for _ in range(9))
    generator = np.random.Generator(np.random.Philox(1))
    real = prints(images)
    spent = 0.0
    for start in range(0, count, AT_ONCE):
        size = min(AT_ONCE, count - start)
        # As different from the sought ones as other pictures are, and no more than they are from chance.
        asked = real[generator.integers(len(real), size=size)] ^ _noise(generator, size)
        spent += _seconds(lambda asked=asked: lookup.near(asked))  # type: ignore[misc]
    return [row("a fingerprint", 1e6 * taken / len(fitted), "us"),
            row(f"{count:,} rows looked up among {len(lookup.known):,}", spent, "s"),
            row("14 million at that rate", spent / count * 14e6 / 60, "min")]  # fmt: skip


def _noise(generator: np.random.Generator, size: int) -> Fingerprints:
    """Return bits of which three in ten are set, the lowest frequencies' as often as others', (size, 3)."""
    bits = generator.random((size, 192), dtype=np.float32) < 0.3
    return np.packbits(bits, axis=1, bitorder="little").view("<u8")


def _seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def row(name: str, value: float, unit: str, goal: float | None = None, met: bool | None = None) -> Row:
    """Return a row of the table."""
    return {"name": name, "value": round(value, 3), "unit": unit, "peer": None, "ratio": None, "goal": goal, "met": met}


def rows_of(pictures: int, rows: int, photographs: Path | None) -> list[Row]:
    """Measure all of it."""
    half = pictures // 2
    images, labels = rendered(pictures, seed=1)
    lookup, owners = sought(images[:half])
    found = [*copies("rendered", images[:half], lookup, owners), *others(images, labels, half, lookup)]
    if photographs:
        files = sorted(path for path in photographs.rglob("*") if path.suffix.lower() in (".jpg", ".png"))
        photos = [decode(path.read_bytes(), 1) for path in files]
        found += copies("photographs", photos, *sought(photos))
    if rows:
        many = images[:half] * -(-SOUGHT // half)
        found += speed(images[half:], sought(many[:SOUGHT])[0], rows)
    return found


def main() -> None:
    """Print a table, or rows as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.leaks", description=__doc__)
    parser.add_argument("--pictures", type=from_one, default=20_000)
    parser.add_argument("--rows", type=from_one, default=2_000_000)
    parser.add_argument("--photographs", type=Path)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    print_rows(rows_of(options.pictures, options.rows, options.photographs), options.json)


if __name__ == "__main__":
    main()
