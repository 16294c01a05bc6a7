"""Word pictures as MJSynth has them: colour JPEGs 31 pixels high, and the folder that peers make their LMDB of."""

from pathlib import Path

import cv2
import numpy as np

from wordmill.pictures.image import Picture
from wordmill.synth.renderer import SynthSpec, render

HEIGHT = 31  # pixels, of nearly all of MJSynth's pictures
WIDTHS = (20, 300)
QUALITY = 85
SPREAD = 0.25  # of a word's width about that of its number of characters
NOISE = 10.0  # gray levels; the file is as large as MJSynth's by it
LIST = "list.txt"  # `path<TAB>label`, what create_lmdb_dataset reads

Words = list[tuple[bytes, str]]  # JPEG and label


def words(count: int) -> Words:
    """Render words: JPEGs of about 1.6 kB and 81 pixels' width in the mean, and their labels."""
    rng = np.random.default_rng(1)
    spec = SynthSpec(seed=1, count=count, words="train", difficulty="mixed", colour="1")
    made = []
    for picture, label in render(spec, 0, count):
        wide = (5 + 15.4 * len(label)) * rng.uniform(1 - SPREAD, 1 + SPREAD)
        resized = cv2.resize(picture, (int(np.clip(wide, *WIDTHS)), HEIGHT), interpolation=cv2.INTER_LINEAR)
        noisy = resized + rng.normal(0, NOISE, resized.shape)
        made.append((encoded(np.clip(noisy, 0, 255).astype(np.uint8)), label))
    return made


def encoded(picture: Picture) -> bytes:
    """Encode uint8 (h, w, 3) as JPEG."""
    return bytes(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes())


def write_folder(folder: Path, samples: Words) -> Path:
    """Write each picture as a file of its own, and return the path of the list of them and their labels."""
    folder.mkdir()
    for number, (content, _) in enumerate(samples):
        (folder / f"{number:08}.jpg").write_bytes(content)
    lines = [f"{number:08}.jpg\t{label}\n" for number, (_, label) in enumerate(samples)]
    (folder / LIST).write_text("".join(lines), encoding="utf-8")
    return folder / LIST
