"""Samples that nobody should trust end in quarantine with a reason, or the set is refused; none stops the others."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from components.shard.packing import Packed, Rules, Task, pack_shard
from tests.components.shard.shard_sets import labels, one, records, section, shard
from tests.wordmill.pictures.test_decoder import BROKEN, GOOD_JPEG, GOOD_PNG
from tests.wordmill.pictures.test_image import GRAY, png
from wordmill.recipe.catalogue import Entry
from wordmill.recipe.parsing import from_json
from wordmill.recipe.sections import Data
from wordmill.shards.sets import open_dataset
from wordmill.store.storage import Store
from wordmill.text.charset import load_charset

WIDE = png(60_000, 31, 1, GRAY, bytes(31 * (1 + 7500)))
HOSTILE: dict[str, tuple[bytes, bytes, str]] = {
    **{name: (image, b"word", "") for name, image in BROKEN.items()},
    "60,000 pixels wide": (WIDE, b"word", "more than 67108864 pixels, or than 16384 wide or high"),
    "a label of 10 MB": (GOOD_PNG, b"x" * 10_000_000, "label too long: 10000000 bytes, expected at most 4096"),
    "a long label in another script": (GOOD_PNG, "字".encode() * 1366, "label too long: 4098 bytes"),
    "a label with NUL": (GOOD_PNG, b"wo\0rd", "label with a NUL character"),
    "a label that is not UTF-8": (GOOD_PNG, b"caf\xe9", "unreadable label: "),
}
GOOD = [(GOOD_JPEG, b"good"), (GOOD_PNG, b"fine")] * 20


def packed(folder: Path, samples: list[tuple[bytes, bytes]], **fields: object) -> Packed:
    folder.mkdir()
    data = from_json(Data, section(**fields))
    rules = Rules(data=data, charset=load_charset("lower36"), training=bool(data.train))
    task = Task(entry=Entry(**records(folder, samples)), root=folder, start=0, stop=len(samples),
                path=folder / "shard", rules=rules)  # fmt: skip
    return pack_shard(task)


@pytest.mark.parametrize("stored", ["decoded", "encoded"])
@pytest.mark.parametrize("train", [[], ["words"]])
def test_each_is_put_aside_with_its_reason_and_the_others_are_kept(
    tmp_path: Path, stored: str, train: list[str]
) -> None:
    bad = [(image, label) for image, label, _ in HOSTILE.values()]
    done = packed(tmp_path / "words", [*bad, *GOOD], stored=stored, train=train)
    assert [item["index"] for item in done.quarantine] == list(range(len(bad)))
    for item, (name, (_, _, reason)) in zip(done.quarantine, HOSTILE.items(), strict=True):
        assert item["where"].startswith("data.mdb"), name
        assert item["reason"].startswith(reason), name
        assert 0 < len(item["reason"]) < 200, name
    assert done.samples == len(GOOD)
    assert done.measured[0].tolist() == [4] * len(GOOD)


def test_a_stage_tells_how_many_by_reason_and_shows_them(store: Store, tmp_path: Path) -> None:
    (tmp_path / "words").mkdir()
    bad = [(image, label) for image, label, _ in HOSTILE.values()]
    entry = records(tmp_path / "words", [*GOOD, *bad])
    combined = shard(tmp_path, {"words": entry}, section())
    manifest = one(store, combined)
    assert sum(manifest.facts["reasons"].values()) == manifest.facts["quarantined"] == len(HOSTILE)
    assert manifest.facts["reasons"]["label too long"] == 2
    assert [item["index"] for item in manifest.facts["quarantine"]] == list(range(40, 40 + len(HOSTILE)))
    assert labels(open_dataset(store, combined, "words")) == ["good", "fine"] * 20
    sheet = np.frombuffer(store.fetch(manifest.object("quarantine.png")).read_bytes(), dtype=np.uint8)
    assert cv2.imdecode(sheet, cv2.IMREAD_GRAYSCALE).shape == (4 * 80, 8 * 206)  # 27 tiles, 8 in a line


def test_more_than_half_bad_is_refused(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "words").mkdir()
    entry = records(tmp_path / "words", [(b"x", b"bad")] * 11 + GOOD[:10])
    with pytest.raises(SystemExit):
        shard(tmp_path, {"words": entry}, section())
    out = capsys.readouterr().out
    assert (
        "words): 11 of 21 samples are unusable, the first is data.mdb: 000000001: not a whole picture: 1 bytes" in out
    )
    assert store.get_json("runs/r1/stages/shard.datasets.json")["ok"] is False


def test_half_bad_is_not(store: Store, tmp_path: Path) -> None:
    (tmp_path / "words").mkdir()
    entry = records(tmp_path / "words", [(b"x", b"bad")] * 10 + GOOD[:10])
    assert one(store, shard(tmp_path, {"words": entry}, section())).facts["samples"] == 10
