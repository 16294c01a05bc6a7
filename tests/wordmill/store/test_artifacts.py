import json
from pathlib import Path

import pytest

from wordmill.store.artifacts import Manifest, digest, find_manifest, from_document, read_manifest, to_document
from wordmill.store.files import write_atomically
from wordmill.store.storage import Object, Store


def manifest(*objects: Object) -> Manifest:
    return Manifest(stage="shard", name="words", key="k1", inputs={"a": 1}, git_commit="c", objects=objects)


def test_a_manifest_survives_the_way_through_json(tmp_path: Path) -> None:
    one = manifest(Object(name="x", sha256="0" * 64, bytes=3))
    path = tmp_path / "manifest"
    write_atomically(path, json.dumps(to_document(one)))
    assert read_manifest(path) == one
    assert one.reference == "shard/k1"
    assert [entry.name for entry in tmp_path.iterdir()] == ["manifest"]


def test_another_schema_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="here: manifest schema is 99, this code reads 1"):
        from_document({**to_document(manifest()), "schema": 99}, "here")
    with pytest.raises(ValueError, match="none: no such manifest"):
        read_manifest(tmp_path / "none")


def test_an_object_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match=r"shard/k1: no object 'y', it has \['x'\]"):
        manifest(Object(name="x", sha256="0" * 64, bytes=3)).object("y")


def test_the_digest_depends_on_content_not_on_order() -> None:
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})


def test_a_manifest_is_found_only_while_its_objects_are_there(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"content of the artifacts test")
    entry = store.put_file(path, "x")
    one = manifest(entry)
    store.put_json(f"manifests/{one.reference}.json", to_document(one))
    assert find_manifest(store, "shard/k1") == one
    assert find_manifest(store, "shard/other") is None
    store.client.delete_object(Bucket=store.bucket, Key=f"objects/{entry.sha256[:2]}/{entry.sha256}")
    assert find_manifest(store, "shard/k1") is None
