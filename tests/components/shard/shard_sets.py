"""Small data sets, as the shard stage gets and leaves them."""

import json
import zipfile
from pathlib import Path
from typing import Any

import cv2
import lmdb
import numpy as np

from components.fetch import stage as fetch_stage
from components.shard import stage
from wordmill.shards.sets import ShardSet
from wordmill.store.artifacts import Manifest, find_manifest, read_manifest
from wordmill.store.storage import Store


def section(**fields: Any) -> str:
    data = {"train": [], "val": [], "charset": "lower36", "height": 32, "width": 100, "channels": 1}
    return json.dumps(data | fields)


def drawn(count: int, seed: int = 7) -> dict[str, Any]:
    source = f"synth://words?seed={seed}&count={count}&fonts=train&words=train&difficulty=easy"
    return {"source": source, "reader": "synth", "samples": count, "licence": "Apache-2.0"}


def photos(path: Path, samples: dict[str, bytes | None]) -> dict[str, Any]:
    """A zip of pictures, named by their labels' numbers, with a label file; None: the picture is missing."""
    with zipfile.ZipFile(path, "w") as file:
        names = {f"{number}.png": label for number, label in enumerate(samples)}
        file.writestr("labels.txt", "".join(f"{name} {label}\n" for name, label in names.items()))
        for name, label in names.items():
            if (picture := samples[label]) is not None:
                file.writestr(name, picture)
    entry = {"source": f"file://{path}", "reader": "label_file", "labels": "labels.txt", "licence": "CC0"}
    return entry | {"samples": len(samples)}


def records(folder: Path, samples: list[tuple[bytes, bytes]]) -> dict[str, Any]:
    """An LMDB of pictures and labels, any bytes, in a folder."""
    with lmdb.open(str(folder), map_size=1 << 28) as environment, environment.begin(write=True) as transaction:
        for number, (image, label) in enumerate(samples, start=1):
            transaction.put(b"image-%09d" % number, image)
            transaction.put(b"label-%09d" % number, label)
        transaction.put(b"num-samples", str(len(samples)).encode())
    return {"source": f"file://{folder}", "reader": "lmdb", "samples": len(samples), "licence": "CC0"}


def png(value: int) -> bytes:
    return bytes(cv2.imencode(".png", np.full((20, 50, 3), value, dtype=np.uint8))[1].tobytes())


def fetched(tmp_path: Path, sources: dict[str, Any]) -> Path:
    output = tmp_path / "fetched"
    fetch_stage.run(sources=json.dumps(sources), run_tag="r1", output=str(output))
    return output


def shard(tmp_path: Path, sources: dict[str, Any], data: str) -> Manifest:
    output = tmp_path / "out" / "manifest"
    stage.run(data=data, sources=str(fetched(tmp_path, sources)), run_tag="r1", output=str(output))
    return read_manifest(output)


def one(store: Store, combined: Manifest, name: str = "words") -> Manifest:
    manifest = find_manifest(store, combined.facts["datasets"][name])
    assert manifest
    return manifest


def labels(shards: ShardSet) -> list[str]:
    return [label for block in range(len(shards.counts)) for label in shards.block(block).labels]
