"""What the shard stage tells of a data set: how many samples came to what end, and pictures of some of them."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from components.shard.packing import picture
from wordmill.pictures.image import Picture, fit_picture, to_channels
from wordmill.pictures.sheet import contact_sheet
from wordmill.readers.sample import Reader
from wordmill.recipe.sections import Data
from wordmill.shards.sets import ShardSet
from wordmill.shards.tally import Tally
from wordmill.store.artifacts import Manifest
from wordmill.text.charset import Charset

CONTACTS = 64  # pictures on the contact sheet
NAMED = 8  # characters outside the charset in a message
LISTED = 50  # quarantined samples that the manifest lists and a sheet shows; the object quarantine.json has them all
TOLERATED = 0.5  # share of a data set that may be quarantined
BLANK = 224  # gray level of a sample that has no picture
LETTER = 8  # pixels that a letter takes below a picture

Item = dict[str, Any]


class Summary:
    """Adds up the shards of a data set of `read` samples; quarantined ones go to a file at once."""

    def __init__(self, quarantine: Path, read: int, charset: Charset) -> None:
        self.read, self.samples, self.charset = read, 0, charset
        self.tallies: list[dict[str, list[int]]] = []
        self.shards: list[dict[str, Any]] = []
        self.dropped, self.changed, self.reasons = Counter[str](), Counter[str](), Counter[str]()
        self.outside = Counter[str]()
        self.first: list[Item] = []
        self.file = quarantine.open("w", encoding="utf-8")

    def __enter__(self) -> "Summary":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.write("\n]\n" if self.first else "[]\n")
        self.file.close()

    @property
    def quarantined(self) -> int:
        """How many samples were put aside."""
        return self.reasons.total()

    def add(self, piece: Manifest) -> None:
        """Add a shard by its manifest; ValueError once too many samples are unusable."""
        facts = piece.facts
        for item in facts["quarantine"]:
            self.file.write(f"{',' if self.first else '['}\n{json.dumps(item, ensure_ascii=False)}")
            self.reasons[item["reason"].partition(":")[0]] += 1
            self.first += [item] if len(self.first) < LISTED else []
        if self.quarantined > TOLERATED * self.read:
            first = f"{self.first[0]['where']}: {self.first[0]['reason']}"
            raise ValueError(f"{self.quarantined} of {self.read} samples are unusable, the first is {first}: "
                             "is it the right data?")  # fmt: skip
        self.dropped.update(facts["dropped"])
        self.changed.update(facts["changed"])
        self.outside.update(facts["outside"])
        self.samples += facts["samples"]
        self.tallies.append(facts["tally"])
        if facts["samples"]:
            name = piece.objects[0].name
            self.shards.append({"object": name, "samples": facts["samples"], "blocks": facts["blocks"]})

    def facts(self) -> dict[str, Any]:
        """Return what the data set's manifest says; ValueError where nothing is left of the set."""
        if not self.samples:
            raise ValueError(f"none of {self.read} samples is left: dropped {dict(self.dropped)}: check data.charset")
        return {"samples": self.samples, "read": self.read, "shards": self.shards, "dropped": dict(self.dropped),
                "changed": dict(self.changed), "quarantined": self.quarantined, "reasons": dict(self.reasons),
                "quarantine": self.first, "outside": dict(self.outside.most_common(LISTED)),
                "histograms": Tally.join(self.tallies).histograms(self.charset)}  # fmt: skip

    def outside_text(self, name: str, charset: str) -> str:
        """Say how many labels of a data set have characters that its charset lacks, and what adds them; "" for none."""
        labels = self.outside[""]
        first = ", ".join(f"{c!r} {n:,}" for c, n in self.outside.most_common(NAMED + 1) if c)
        more = ", ..." if len(self.outside) > NAMED + 1 else ""
        return f"{labels:,} labels have characters that charset {charset} lacks: {first}{more}; to add them: " \
               f"the verb charset, `make charset DATA={name}`" if labels else ""  # fmt: skip


def samples_sheet(shards: ShardSet) -> bytes:
    """Draw samples that lie evenly over a data set, with their labels, as PNG."""
    count = min(CONTACTS, shards.samples)
    images, labels = [], []
    for place in np.arange(count) * shards.samples // count:
        block = int(np.searchsorted(shards.starts, place, side="right")) - 1
        window, row = shards.window([block]), place - shards.starts[block]
        images.append(_gray(window.take(np.array([row]))[0]))
        labels.append(window.labels[row])
    return contact_sheet(images, labels)


def quarantine_sheet(items: Sequence[Item], reader: Reader, data: Data) -> bytes:
    """Draw what can be decoded of quarantined samples, empty tiles for the others, with the reasons, as PNG."""
    images = []
    for sample in reader.read([item["index"] for item in items]):
        try:
            images.append(_gray(fit_picture(picture(sample._replace(label=""), data), data)))
        except ValueError:
            images.append(np.full((data.height, data.width), BLANK, dtype=np.uint8))
    return contact_sheet(images, [item["reason"][: 2 * data.width // LETTER] for item in items])


def _gray(image: Picture) -> Picture:
    return to_channels(image, 1)[:, :, 0]
