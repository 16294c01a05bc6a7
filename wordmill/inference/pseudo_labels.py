"""Pseudo-labels (Lee 2013): what a recogniser reads surely of pictures without labels is taken for their labels.

Kept are the surest readings, as many as leave the expected share of wrong ones, the mean of 1 - confidence, at most at
a given one. A confidence tells how often readings are right of the words that the recogniser was validated on; of
others it may be wrong.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wordmill.inference.packaged.pyfunc import TextRecogniser
from wordmill.inference.reading import Result
from wordmill.pictures.sheet import contact_sheet
from wordmill.recipe.catalogue import Entry
from wordmill.store.artifacts import digest
from wordmill.store.files import atomic_folder
from wordmill.store.storage import hash_file

PICTURES, LABELS, SHEET, CATALOGUE, TOLD = "words", "labels.jsonl", "sheet.png", "catalogue.yaml", "pseudo.json"
HIGHER = "a higher WRONG (--most-wrong)"
SHOWN = 96  # pictures on the sheet, from the least sure on at equal distances


@dataclass(frozen=True, kw_only=True)
class Kept:
    """The readings that are taken for labels, the least sure first, and what is known of them.

    threshold: the least confidence of them; wrong: the expected share of wrong ones.
    """

    results: Sequence[Result]
    threshold: float
    wrong: float


def keep_surest(results: Sequence[Result], most_wrong: float) -> Kept:
    """Return the surest readings whose expected share of wrong ones is at most `most_wrong`; empty texts are none.

    ValueError where that is none of them.
    """
    read = sorted((one for one in results if one.text), key=lambda one: (-one.confidence, str(one.path)))
    wrong = expected_wrong(np.array([one.confidence for one in read]))
    count = int((wrong <= most_wrong).sum())
    if not count:
        surest = f"the surest has a confidence of {read[0].confidence:.3f}" if read else "no text was read in any"
        raise ValueError(f"of {len(results)} pictures none is read surely enough: {surest}, expected at least "
                         f"{1 - most_wrong:.3f}: {HIGHER}, or a recogniser that knows such words")  # fmt: skip
    return Kept(results=read[count - 1 :: -1], threshold=read[count - 1].confidence, wrong=float(wrong[count - 1]))


def expected_wrong(confidences: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the expected share of wrong ones, (N,), among the first one, two, ... N of falling confidences (N,)."""
    shares: npt.NDArray[np.float64] = np.cumsum(1 - confidences) / np.arange(1, len(confidences) + 1)
    return shares


def write_pseudo_set(
    parent: Path, name: str, kept: Kept, recogniser: TextRecogniser, facts: dict[str, Any]
) -> tuple[Path, str, Entry]:
    """Write a set of pictures with pseudo-labels, and return its folder, its name in the catalogue and its entry.

    The folder is whole or not there; its name has the digest of pictures and labels, so that other ones are another
    set. In it: words/ with labels.jsonl, catalogue.yaml, a contact sheet of the least sure ones and others, and
    pseudo.json with `facts` and what is known of the labels.
    """
    own = digest([[hash_file(one.path), one.text] for one in kept.results])[:8]
    folder, called = parent / f"{name}-{own}", f"{name}_pseudo_{own}"
    entry = Entry(source=(folder / PICTURES).absolute().as_uri(), reader="label_file", labels=LABELS,
                  label_format="jsonl", samples=len(kept.results),
                  licence="that of the pictures; labels as a recogniser reads them")  # fmt: skip
    if folder.is_dir():
        return folder, called, entry
    with atomic_folder(folder) as part:
        (part / PICTURES).mkdir()
        lines = []
        for number, one in enumerate(kept.results):
            copy = f"{number:06}{one.path.suffix.lower()}"
            shutil.copyfile(one.path, part / PICTURES / copy)
            lines.append(json.dumps({"filename": copy, "text": one.text}, ensure_ascii=False))
        (part / PICTURES / LABELS).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        (part / CATALOGUE).write_text(json.dumps({called: asdict(entry)}, indent=1), encoding="utf-8")
        (part / SHEET).write_bytes(sheet_of(kept.results, recogniser))
        told = {**facts, "kept": len(kept.results), "threshold": kept.threshold, "expected_wrong": kept.wrong}
        (part / TOLD).write_text(json.dumps(told, indent=1), encoding="utf-8")
    return folder, called, entry


def sheet_of(results: Sequence[Result], recogniser: TextRecogniser) -> bytes:
    """Return a PNG of some readings' pictures, fitted, each above its text and confidence."""
    shown = [results[place] for place in np.unique(np.linspace(0, len(results) - 1, SHOWN).round().astype(int))]
    pictures = [recogniser.fit(one.path) for one in shown]
    return contact_sheet(pictures, [f"{one.text} {one.confidence:.2f}" for one in shown])
