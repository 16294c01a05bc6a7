"""A release of several data sets, fetched once in each of its forms, becomes the shards of each of them."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import cv2
import lmdb
import numpy as np
import pytest

from components.fetch.stage import run as fetch
from components.shard.stage import run as shard
from wordmill.recipe.catalogue import Entry, redirect, to_text
from wordmill.store.artifacts import find_manifest, read_manifest
from wordmill.store.storage import Store

SETS = {"mj": ("training/MJ/MJ_train", "MJ/MJ_train", 7), "SVT": ("evaluation/SVT", "SVT", 5)}
DATA = {"train": ["mj"], "val": ["SVT"], "charset": "lower36", "height": 32, "width": 100, "channels": 1}


def write_lmdb(folder: Path, samples: int) -> None:
    folder.mkdir(parents=True)
    with lmdb.open(str(folder), map_size=1 << 24) as environment, environment.begin(write=True) as transaction:
        for number in range(1, samples + 1):
            picture = cv2.imencode(".jpg", np.full((31, 80), 20 * number, np.uint8))[1].tobytes()
            transaction.put(b"image-%09d" % number, picture)
            transaction.put(b"label-%09d" % number, b"word%d" % number)
        transaction.put(b"num-samples", b"%d" % samples)


def as_folder(release: Path) -> Path:
    return release


def as_zip(release: Path) -> Path:
    archive = release.with_suffix(".zip")
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for path in release.rglob("*.mdb"):
            file.write(path, Path(release.name, path.relative_to(release)))
    return archive


def as_zip_of_zips(release: Path) -> Path:
    outer = release.with_name("outer.zip")
    with zipfile.ZipFile(outer, "w") as file:
        for part in release.iterdir():
            file.write(as_zip(part), f"{part.name}.zip")
    return outer


@pytest.mark.parametrize("form", [as_folder, as_zip, as_zip_of_zips])
def test_each_data_set_is_found_in_the_release(form: Callable[[Path], Path], store: Store, tmp_path: Path) -> None:
    for folder, _, samples in SETS.values():
        write_lmdb(tmp_path / "release" / folder, samples)
    entries = {
        name: Entry(source="manual:all.zip", inside=inside, reader="lmdb", samples=samples, licence="x")
        for name, (_, inside, samples) in SETS.items()
    }
    sources = to_text(redirect(entries, [f"all.zip={form(tmp_path / 'release')}"]))
    fetch(sources=sources, run_tag="r1", output=str(tmp_path / "fetched"))
    shard(data=json.dumps(DATA), sources=str(tmp_path / "fetched"), run_tag="r1", output=str(tmp_path / "sharded"))
    packed = read_manifest(tmp_path / "sharded").facts["datasets"]
    counts = {name: manifest.facts["samples"] for name in packed if (manifest := find_manifest(store, packed[name]))}
    assert counts == {"mj": 7, "SVT": 5}
