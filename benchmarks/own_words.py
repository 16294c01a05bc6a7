"""What `make tune` gains from 300 words of a kind that the recogniser that comes with the project has never seen.

python -m benchmarks.own_words [--families NAME ...] [--crops FOLDER --labels FILE] [--words N] [--json]

The words are drawn in faces of families that no training picture has, all of them or those that are named, every second
word with one or more of ten letters with accents that the recogniser does not know; 1,000 others measure. Or they are
labelled crops of FOLDER: N of them, drawn at random, to tune with, and all others to measure.
"""

import argparse
import json
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

from benchmarks.data_rows import alone, print_rows
from benchmarks.models import Row
from components.report.gather import gather_run
from pipelines.building import FOLDER
from pipelines.local import services
from wordmill.inference.packaged.pyfunc import TextRecogniser
from wordmill.inference.reading import open_recogniser, read_images
from wordmill.models.checkpoint import load
from wordmill.models.pretrained import PRETRAINED, WEIGHTS
from wordmill.pictures.image import encode
from wordmill.readers.label_file import LabelFile
from wordmill.recipe.arguments import from_one
from wordmill.recipe.catalogue import LabelFormat
from wordmill.synth.fonts import LETTER_ATLAS, Face, is_test_family, read_atlas
from wordmill.synth.random import Dice
from wordmill.synth.scene import Scene, spaced
from wordmill.synth.style import style_of
from wordmill.synth.text import Writer
from wordmill.synth.words import SIZE
from wordmill.text.charset import Charset, charset_of
from wordmill.text.protocols import is_correct

WORDS, OTHERS, SEED = 300, 1000, 2026
ACCENTS = {"a": "àâ", "c": "ç", "e": "éèê", "i": "î", "o": "ô", "u": "ùû"}
GAIN, HALF_GAIN, LOSS, MINUTES = 30.0, 10.0, 1.0, 10.0  # points and minutes that are aimed at

Sample = tuple[bytes, str]  # the file of a picture, and its label


def unseen() -> list[Face]:
    """Return the faces with these accents of which no training picture is drawn."""
    faces = (face for face in read_atlas(LETTER_ATLAS) if is_test_family(face.family))
    return [face for face in faces if set("".join(ACCENTS.values())) <= set(face.characters)]


def drawn(seed: int, count: int, faces: Sequence[Face]) -> list[Sample]:
    """Draw words: every second one has an accent or more."""
    writer, scene, samples = Writer("test"), Scene(1), list[Sample]()
    while len(samples) < count:
        dice = Dice(SEED, seed, len(samples))
        text, label = writer.write(dice)
        if len(samples) % 2:
            while not set(label.lower()) & set(ACCENTS):
                text, label = writer.write(dice)
            text, label = accented(text.lower(), label.lower(), dice)
        style = style_of("mixed", dice)
        face = dice.pick(faces)
        mask = spaced(face, text, style, dice)
        picture = scene.paint(mask, style, SIZE, partial(spaced, face, writer.write(dice)[0], style, dice), dice)
        samples.append((encode(picture[:, :, None]), label))
    return samples


def accented(text: str, label: str, dice: Dice) -> tuple[str, str]:
    """Put an accent on all of one of the letters that take one, in what is drawn and in its label."""
    letter = dice.pick(sorted(set(label) & set(ACCENTS)))
    other = dice.pick(ACCENTS[letter])
    return text.replace(letter, other), label.replace(letter, other)


def parted(folder: Path, labels: str, form: str, words: int) -> tuple[list[Sample], list[Sample]]:
    """Return so many labelled crops of a folder, drawn at random, and all the others."""
    reader = LabelFile(folder, labels, form)
    samples = list[Sample]()
    for sample in reader.read(range(len(reader))):
        if sample.problem:
            raise ValueError(f"{folder}: {sample.where}: {sample.problem}")
        samples.append((bytes(sample.image), sample.label))
    order = random.Random(SEED).sample(range(len(samples)), len(samples))
    return [samples[number] for number in order[:words]], [samples[number] for number in order[words:]]


def write_folder(folder: Path, samples: list[Sample]) -> list[Path]:
    """Write pictures and `labels.txt`, a line for each; return the paths of the pictures."""
    folder.mkdir(parents=True)
    paths = [folder / f"{number:05d}.png" for number in range(len(samples))]
    for path, (content, _) in zip(paths, samples, strict=True):
        path.write_bytes(content)
    lines = [f"{path.name}\t{label}\n" for path, (_, label) in zip(paths, samples, strict=True)]
    (folder / "labels.txt").write_text("".join(lines), encoding="utf-8")
    return paths


def tuned(folder: Path) -> tuple[Path, list[dict[str, Any]]]:
    """Tune with a folder's words; return the new weights' file and what has been gained and lost by benchmark."""
    before = set((services.STATE / "runs").glob(f"{PRETRAINED}-tune-*"))
    command = [sys.executable, "-m", "pipelines", "tune", str(folder), "--recipe", PRETRAINED, "--label-format", "dtrb"]
    subprocess.run(command, cwd=FOLDER.parent, check=True, stdout=sys.stderr)
    (run,) = set((services.STATE / "runs").glob(f"{PRETRAINED}-tune-*")) - before
    store = services.open_store()
    trained = gather_run(store, run.name).one("train")
    assert trained is not None  # noqa: S101 (the run has ended well)
    gains = json.loads((run / "tune.json").read_text(encoding="utf-8"))["gains"]
    return store.fetch(trained.object("model.safetensors")), gains


def rights(recogniser: TextRecogniser, paths: list[Path], labels: list[str], charset: Charset) -> list[bool]:
    """Tell of each picture whether it is read right, by the characters that the new recogniser writes."""
    texts = [result.text for result in read_images(recogniser, paths)]
    return [bool(is_correct("mindocr", text, label, charset)) for text, label in zip(texts, labels, strict=True)]


def rows(tune: list[Sample], measure: list[Sample]) -> list[Row]:
    """Tune, measure before and after, and make the lines of the table."""
    with TemporaryDirectory() as folder:
        write_folder(Path(folder) / "own_words", tune)
        paths, labels = write_folder(Path(folder) / "measured", measure), [label for _, label in measure]
        began = time.monotonic()
        stored, gains = tuned(Path(folder) / "own_words")
        minutes = (time.monotonic() - began) / 60
        weights = Path(shutil.copyfile(stored, Path(folder) / "tuned.safetensors"))
        now = open_recogniser(weights)
        charset = charset_of(now.data)
        old, new = (rights(one, paths, labels, charset) for one in (open_recogniser(WEIGHTS), now))
    known = set(charset_of(load(WEIGHTS).data).symbols)
    unknown = [bool(set(label.lower()) - known - set("".join(map(chr, range(128))))) for label in labels]
    lines = [alone("minutes, all of it", minutes, "min", MINUTES)]
    for name, wanted, goal in (
        ("all", None, GAIN),
        ("with new characters", True, HALF_GAIN),
        ("without", False, HALF_GAIN),
    ):
        chosen = [number for number, one in enumerate(unknown) if wanted is None or one == wanted]
        if chosen and (wanted is None or len(chosen) < len(labels)):
            shares = [100 * sum(found[number] for number in chosen) / len(chosen) for found in (old, new)]
            lines.append(alone(f"{len(chosen)} other words, {name}: {shares[0]:.1f} to {shares[1]:.1f} %",
                               shares[1] - shares[0], "points", goal, least=True))  # fmt: skip
    others = [row for row in gains if not row["own"]]
    return lines + [alone(f"{row['name']}: {100 * row['before']:.1f} to {100 * row['now']:.1f} %",
                          -100 * row["difference"], "points lost", LOSS) for row in others]  # fmt: skip


def main() -> None:
    """Print the table, or rows for programs."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.own_words", description=__doc__)
    families = sorted({face.family for face in unseen()})
    parser.add_argument("--families", nargs="+", default=families, choices=families, help="of the words' faces")
    parser.add_argument("--crops", type=Path, help="a folder of labelled crops instead of drawn words")
    parser.add_argument("--labels", default="labels.txt", help="its file of labels")
    parser.add_argument("--label-format", default="dtrb", choices=get_args(LabelFormat))
    parser.add_argument("--words", type=from_one, default=WORDS, help="to tune with")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.crops:
        tune, measure = parted(options.crops, options.labels, options.label_format, options.words)
    else:
        faces = [face for face in unseen() if face.family in options.families]
        tune, measure = drawn(0, options.words, faces), drawn(1, OTHERS, faces)
    print_rows(rows(tune, measure), options.json)


if __name__ == "__main__":
    main()
