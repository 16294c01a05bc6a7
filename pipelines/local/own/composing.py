"""Words composed of the letters of one's own, as a data set that `make tune` learns from beside them."""

import json
import zipfile
from collections.abc import Iterator, Sequence
from itertools import count, islice
from pathlib import Path

import numpy as np

from pipelines.local.own.first_reading import Word, fitted_batches
from wordmill.inference.packaged.pyfunc import TextRecogniser
from wordmill.pictures.composition import LEAST, Composer, Crop, Piece, beside_each_other, text_of
from wordmill.pictures.image import Picture, encode
from wordmill.pictures.sheet import contact_sheet
from wordmill.recipe.catalogue import Entry
from wordmill.store.files import atomic_file, write_atomically
from wordmill.store.progress import Progress
from wordmill.store.storage import hash_file
from wordmill.synth.letters import plain
from wordmill.synth.random import Dice
from wordmill.synth.text import Writer
from wordmill.text.alignment import aligned
from wordmill.text.charset import Charset

LEAST_CROPS = 16  # whose letters are found
UNSURE = 0.1  # share of them that is left out: where their letters stand is the least sure
CROSSED, ACCENTED = 0.25, 0.5  # shares of words made of a front and a back, and, of the others, with accents
TRIED = 8  # texts, of which the one with the fewest pieces is taken: each seam is one that no word has
ENDING = "_composed"  # behind a data set's name
LABELS, SHOWN = "labels.jsonl", 96
DATE = (1980, 1, 1, 0, 0, 0)  # of what an archive holds, so that equal words are equal bytes


def composed_words(
    name: str, words: Sequence[Word], recogniser: TextRecogniser, samples: int, path: Path
) -> dict[str, Entry]:
    """Return a set of so many words composed of the letters of those of data set `name`, none where these are too few.

    recogniser: knows all of their characters, and finds them; path: of the archive, which gets a contact sheet
    beside it.
    """
    crops = find_crops(words, recogniser)
    if len(crops) < LEAST_CROPS:
        print(f"{name}: the letters of {len(crops)} words are found, expected at least {LEAST_CROPS} to compose others "
              "of: learnt from these words alone")  # fmt: skip
        return {}
    write_words(crops, samples, path)
    sheet = path.with_suffix(".png")
    pictures, texts = zip(*islice(composed(crops), min(SHOWN, samples)), strict=True)
    write_atomically(sheet, contact_sheet([recogniser.fit(picture) for picture in pictures], texts))
    print(f"{name}: {samples:,} words are composed of the letters of {len(crops):,}: {sheet}", flush=True)
    return composed_entry(name, path, samples, hash_file(path))


def composed_entry(name: str, path: Path, samples: int, sha256: str = "") -> dict[str, Entry]:
    """Return the set of words composed of those of data set `name`, in an archive that is there or still to come."""
    return {f"{name}{ENDING}": Entry(
        source=path.absolute().as_uri(), sha256=sha256, reader="label_file", labels=LABELS, label_format="jsonl",
        samples=samples, licence="that of the words",
    )}  # fmt: skip


def find_crops(words: Sequence[Word], recogniser: TextRecogniser) -> list[Crop]:
    """Return the words of two characters or more, fitted, with their places, but for the least sure ones.

    What cannot be read, or is longer than the recogniser writes, is left out.
    """
    found, sure = list[Crop](), list[float]()
    for pictures, shares, labels in fitted_batches(words, recogniser):
        texts = [spelling(label, recogniser.codec.charset) for label in labels]
        logits, scores = aligned(recogniser.network(pictures), texts, recogniser.codec)
        places = recogniser.places(pictures, shares, logits)
        for picture, share, text, row, score in zip(pictures, shares, texts, places, scores.tolist(), strict=True):
            cuts, width = tuple(one.end for one in row[:-1] if one.end is not None), round(share * picture.shape[1])
            if np.isfinite(score) and len(cuts) == len(text) - 1 > 0 and width >= LEAST:
                found.append(Crop(picture=picture[:, :width], text=text, cuts=cuts))
                sure.append(score)
    least = np.quantile(sure, UNSURE) if sure else 0.0
    return [crop for crop, score in zip(found, sure, strict=True) if score >= least]


def spelling(label: str, charset: Charset) -> str:
    """Return what a charset knows of a label, in the case in which it is written."""
    text = "".join(symbol for symbol in label if charset.clean(symbol))
    return text if charset.fold(text) == charset.clean(label) else charset.clean(label)


def composed(crops: Sequence[Crop]) -> Iterator[tuple[Picture, str]]:
    """Yield words without an end, none longer than the longest of the crops.

    Most are words of the renderer's that take few pieces, others the front of one crop and the back of another, which
    have all that the own words have: symbols, codes, letters of other alphabets.
    """
    composer, writer = Composer(crops), Writer("train")
    longest, variants = max(len(crop.text) for crop in crops), letters_with_accents(composer)
    for number in count():
        rng, found = np.random.default_rng(number), list[Piece]()
        if rng.random() >= CROSSED:
            texts = (writer.write(Dice(number, tried))[1] for tried in range(TRIED))
            several = (composer.spell(with_accent(text, variants, rng), rng) for text in texts if len(text) <= longest)
            found = min(filter(None, several), key=lambda pieces: len(pieces) / len(text_of(pieces)), default=[])
        found = found or composer.cross(rng)
        if len(text := text_of(found)) <= longest:
            yield beside_each_other(found, rng), text


def letters_with_accents(composer: Composer) -> dict[str, list[str]]:
    """Return for each letter those with accents that crops have of it."""
    found = dict[str, list[str]]()
    for character in sorted(composer.pieces):
        if len(character) == 1 and (letter := plain(character)):
            found.setdefault(letter, []).append(character)
    return found


def with_accent(text: str, variants: dict[str, list[str]], rng: np.random.Generator) -> str:
    """Return every second text, by chance, with an accent on all of one letter that crops have with accents."""
    letters = [letter for letter in text if letter in variants]
    if not letters or rng.random() >= ACCENTED:
        return text
    letter = letters[int(rng.integers(len(letters)))]
    return text.replace(letter, variants[letter][int(rng.integers(len(variants[letter])))])


def write_words(crops: Sequence[Crop], samples: int, path: Path) -> None:
    """Write so many composed words to an archive, with their labels."""
    progress, labels = Progress(path.stem, samples, "words"), list[str]()
    with atomic_file(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for number, (picture, text) in enumerate(islice(composed(crops), samples)):
            file = f"{number:06}.png"
            archive.writestr(zipfile.ZipInfo(file, DATE), encode(picture))
            labels.append(json.dumps({"filename": file, "text": text}, ensure_ascii=False))
            progress.update(number + 1)
        archive.writestr(zipfile.ZipInfo(LABELS, DATE), "".join(f"{line}\n" for line in labels))
