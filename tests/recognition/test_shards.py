import json
import os
import resource
from pathlib import Path

import lmdb
import numpy as np
import pytest

from components.recognition.artifacts import Manifest, to_document
from components.recognition.blocks import KEY, ShardWriter
from components.recognition.shards import Shard, ShardSet, open_dataset
from components.recognition.storage import Store


def write_shard(path: Path, first: int, count: int, shape: tuple[int, int, int] = (2, 3, 1)) -> Path:
    """A shard of samples first .. first + count - 1; every pixel of sample i is i % 251, its label is `i`."""
    with ShardWriter(path, shape, count) as writer:
        for number in range(first, first + count):
            writer.add(np.full(shape, number % 251, dtype=np.uint8), str(number))
    return path


def test_several_files_are_one_sequence(tmp_path: Path) -> None:
    paths = [write_shard(tmp_path / "a", 0, 300), write_shard(tmp_path / "b", 300, 10)]
    shards = ShardSet.open(paths)
    assert (shards.samples, shards.shape, shards.blocks) == (310, (2, 3, 1), 3)
    assert [label for index in range(3) for label in shards.block(index).labels] == [str(i) for i in range(310)]
    block = shards.block(1)
    assert block.images.shape == (44, 2, 3, 1)
    assert (block.images[:, 0, 0, 0] == np.arange(256, 300) % 251).all()


def test_samples_are_kept_by_label(tmp_path: Path) -> None:
    shards = ShardSet.open([write_shard(tmp_path / "a", 0, 300), write_shard(tmp_path / "b", 300, 10)])
    even = shards.keep(lambda label: int(label) % 2 == 0 and int(label) < 300)
    assert even.samples == 150
    assert [len(rows) for rows in even.rows] == [128, 22, 0]
    assert even.rows[1][:3].tolist() == [0, 2, 4]
    assert shards.samples == 310


def test_a_file_may_be_open_in_two_sets(tmp_path: Path) -> None:
    path = write_shard(tmp_path / "a", 0, 5)
    one, two = ShardSet.open([path]), ShardSet.open([str(path)])
    del one
    assert two.block(0).label(4) == "4"


def test_what_was_read_outlives_its_set(tmp_path: Path) -> None:
    path = write_shard(tmp_path / "a", 0, 5)
    block = ShardSet.open([path]).block(0)
    images = ShardSet.open([path]).block(0).images
    assert block.labels == ["0", "1", "2", "3", "4"]
    del block
    assert images[4].tolist() == [[[4]] * 3] * 2
    del images
    assert len(Shard.opened) == 0


def test_a_forked_child_reads_what_its_parent_opened(tmp_path: Path) -> None:
    path = write_shard(tmp_path / "a", 0, 5)
    shards = ShardSet.open([path])
    child = os.fork()
    if child == 0:
        same = shards.block(0).label(3) == "3" == ShardSet.open([path]).block(0).label(3)
        os._exit(0 if same else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_shards_of_two_shapes_do_not_go_together(tmp_path: Path) -> None:
    paths = [write_shard(tmp_path / "a", 0, 5), write_shard(tmp_path / "b", 0, 5, (2, 3, 3))]
    with pytest.raises(ValueError, match=r"b: pictures are \(2, 3, 3\), but those of .*a \(2, 3, 1\)"):
        ShardSet.open(paths)


def test_no_shards_at_all_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        ShardSet.open([])


def test_more_shards_than_a_process_may_open_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_shard(tmp_path / "a", 0, 5)
    set_to: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "setrlimit", lambda kind, limits: set_to.append(limits))
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (100, 1000))
    ShardSet.open([path])
    assert set_to == [(257, 1000)]
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (100, 256))
    with pytest.raises(RuntimeError, match="257 open files are needed, the hard limit is 256"):
        ShardSet.open([path])


def edit(path: Path, key: bytes, value: bytes | None) -> Path:
    environment = lmdb.open(str(path), subdir=False, lock=False, map_size=1 << 20)
    with environment, environment.begin(write=True) as transaction:
        if value is None:
            transaction.delete(key)
        else:
            transaction.put(key, value)
    return path


def test_another_schema_is_refused(tmp_path: Path) -> None:
    path = edit(write_shard(tmp_path / "a", 0, 5), b"meta", json.dumps({"schema": 2}).encode())
    with pytest.raises(ValueError, match="a: shard schema is 2, this code reads 1"):
        ShardSet.open([path])


@pytest.mark.parametrize("meta", [None, b"garbage", b"[1]"])
def test_a_shard_without_meta_is_refused(meta: bytes | None, tmp_path: Path) -> None:
    path = edit(write_shard(tmp_path / "a", 0, 5), b"meta", meta)
    with pytest.raises(ValueError, match="a, meta: "):
        ShardSet.open([path])


def test_missing_and_damaged_blocks_are_refused(tmp_path: Path) -> None:
    missing = ShardSet.open([edit(write_shard(tmp_path / "a", 0, 5), KEY.pack(0), None)])
    with pytest.raises(ValueError, match="a, block 0: missing"):
        missing.block(0)
    damaged = ShardSet.open([edit(write_shard(tmp_path / "b", 0, 5), KEY.pack(0), b"WMB1" + bytes(30))])
    with pytest.raises(ValueError, match="b, block 0: damaged block"):
        damaged.block(0)


def test_garbled_pages_are_refused(tmp_path: Path) -> None:
    path = write_shard(tmp_path / "a", 0, 5)
    whole = path.read_bytes()
    path.write_bytes(whole[:8192] + b"\xff" * (len(whole) - 8192))  # only LMDB's two head pages are left
    with pytest.raises(ValueError, match="a, meta: damaged"):
        ShardSet.open([path])


def test_a_data_set_comes_out_of_the_store(store: Store, tmp_path: Path) -> None:
    names = ["00000.lmdb", "00001.lmdb"]
    entries = tuple(store.put_file(write_shard(tmp_path / name, 7 * i, 7), name) for i, name in enumerate(names))
    common = {"stage": "shard", "inputs": {}, "git_commit": "unknown"}
    single = Manifest(
        name="words", key="k1", objects=entries, facts={"shards": [{"object": n} for n in names]}, **common
    )
    store.put_json(f"manifests/{single.reference}.json", to_document(single))
    combined = Manifest(
        name="datasets", key="k2", facts={"datasets": {"words": "shard/k1", "gone": "shard/k3"}}, **common
    )
    shards = open_dataset(store, combined, "words")
    assert [shards.block(i).label(0) for i in range(2)] == ["0", "7"]
    with pytest.raises(ValueError, match="data set 'other': shard/k2 has only gone, words"):
        open_dataset(store, combined, "other")
    with pytest.raises(RuntimeError, match=r"shard/k3 \(gone\) is not whole"):
        open_dataset(store, combined, "gone")
