import json
import os
from pathlib import Path

import cv2
import lmdb
import numpy as np
import pytest

from tests.wordmill.training.tiny import write_index
from wordmill.pictures.decoder import decode
from wordmill.pictures.image import fit_picture
from wordmill.recipe.sections import Data
from wordmill.shards.blocks import KEY, ShardWriter
from wordmill.shards.index import INDEX
from wordmill.shards.loader import chosen_batch
from wordmill.shards.sets import ShardSet, open_dataset, open_sets
from wordmill.store.artifacts import Manifest, to_document
from wordmill.store.storage import Store


def write_shard(path: Path, first: int, count: int, shape: tuple[int, int, int] = (2, 3, 1)) -> Path:
    """A shard of samples first .. first + count - 1; every pixel of sample i is i % 251, its label is `i`."""
    with ShardWriter(path, shape, count) as writer:
        for number in range(first, first + count):
            writer.add(np.full(shape, number % 251, dtype=np.uint8), str(number))
    return path


def labels(shards: ShardSet) -> list[str]:
    return [label for number in range(shards.index.blocks) for label in shards.block(number).labels]


def test_several_files_are_one_sequence(tmp_path: Path) -> None:
    paths = [write_shard(tmp_path / "a", 0, 300), write_shard(tmp_path / "b", 300, 10)]
    shards = ShardSet.open(paths)
    assert (shards.samples, shards.shape, shards.counts.tolist()) == (310, (2, 3, 1), [256, 44, 10])
    assert labels(shards) == [str(i) for i in range(310)]
    block = shards.block(1)
    assert block.images.shape == (44, 2, 3, 1)
    assert (block.images[:, 0, 0, 0] == np.arange(256, 300) % 251).all()


def test_samples_are_kept_by_a_mask(tmp_path: Path) -> None:
    shards = ShardSet.open([write_shard(tmp_path / "a", 0, 300), write_shard(tmp_path / "b", 300, 10)])
    even = shards.keep(np.arange(310) % 2 + (np.arange(310) >= 300) == 0)
    assert (even.samples, even.counts.tolist()) == (150, [128, 22, 0])
    window = even.window([1, 0])
    assert window.labels == [str(i) for i in (*range(256, 300, 2), *range(0, 256, 2))]
    assert window.take(np.array([0, 23, 22]))[:, 1, 2, 0].tolist() == [256 - 251, 2, 0]
    assert shards.samples == 310
    with pytest.raises(ValueError, match="a mask of 5 for 310 samples"):
        shards.keep(np.ones(5, dtype=np.bool_))


def test_what_was_read_outlives_its_set(tmp_path: Path) -> None:
    path = write_shard(tmp_path / "a", 0, 5)
    block, window = ShardSet.open([path]).block(0), ShardSet.open([path]).window([0])
    assert block.images[4].tolist() == [[[4]] * 3] * 2
    assert window.take(np.array([3]))[0, 0, 0, 0] == 3


def maps(path: Path) -> int:
    return Path("/proc/self/maps").read_text().count(str(path))


def test_a_set_keeps_no_file_open_and_lets_go_of_its_maps(tmp_path: Path) -> None:
    path = write_shard(tmp_path / "mapped shard", 0, 5)
    before = len(os.listdir("/proc/self/fd"))
    shards = ShardSet.open([path])
    images = shards.block(0).images
    assert (len(os.listdir("/proc/self/fd")), maps(path)) == (before, 1)
    del shards
    assert maps(path) == 1
    del images
    assert maps(path) == 0


def test_a_forked_child_reads_what_its_parent_opened(tmp_path: Path) -> None:
    path = write_shard(tmp_path / "a", 0, 5)
    shards = ShardSet.open([path])
    shards.block(0)
    child = os.fork()
    if child == 0:
        same = shards.block(0).labels[3] == "3" == ShardSet.open([path]).block(0).labels[3]
        os._exit(0 if same else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_encoded_pictures_are_decoded_and_fitted_when_they_are_taken(tmp_path: Path) -> None:
    data = Data(train=(), val=(), charset="lower36", height=4, width=12, channels=3, fit="pad_grey")
    rng = np.random.default_rng(0)
    files = [cv2.imencode(".png", rng.integers(0, 256, (5, 7, 3), dtype=np.uint8))[1].tobytes() for _ in range(3)]
    with ShardWriter(tmp_path / "a", (4, 12, 3), 3, data) as writer:
        for number, file in enumerate(files):
            writer.add(file, str(number))
    batch = chosen_batch(ShardSet.open([tmp_path / "a"]), np.array([2, 0, 2]))
    assert batch.labels == ["2", "0", "2"]
    expected = [fit_picture(decode(files[number], 3), data) for number in (2, 0, 2)]
    assert (batch.images == np.stack(expected)).all()


def test_shards_of_two_shapes_do_not_go_together(tmp_path: Path) -> None:
    paths = [write_shard(tmp_path / "a", 0, 5), write_shard(tmp_path / "b", 0, 5, (2, 3, 3))]
    with pytest.raises(ValueError, match=r"b: pictures are \(2, 3, 3\), but those of .*a \(2, 3, 1\)"):
        ShardSet.open(paths)


def test_no_shards_at_all_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        ShardSet.open([])


def edit(path: Path, key: bytes, value: bytes | None) -> Path:
    environment = lmdb.open(str(path), subdir=False, lock=False, map_size=1 << 20)
    with environment, environment.begin(write=True) as transaction:
        if value is None:
            transaction.delete(key)
        else:
            transaction.put(key, value)
    return path


def test_another_schema_is_refused(tmp_path: Path) -> None:
    path = edit(write_shard(tmp_path / "a", 0, 5), b"meta", json.dumps({"schema": 1}).encode())
    with pytest.raises(ValueError, match="a: shard schema is 1, this code reads 2"):
        ShardSet.open([path])


@pytest.mark.parametrize("meta", [None, b"garbage", b"[1]"])
def test_a_shard_without_meta_is_refused(meta: bytes | None, tmp_path: Path) -> None:
    path = edit(write_shard(tmp_path / "a", 0, 5), b"meta", meta)
    with pytest.raises(ValueError, match="a, meta: "):
        ShardSet.open([path])


def test_missing_and_damaged_blocks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a, block 0: missing"):
        ShardSet.open([edit(write_shard(tmp_path / "a", 0, 5), KEY.pack(0), None)])
    with pytest.raises(ValueError, match="b, block 0: damaged block"):
        ShardSet.open([edit(write_shard(tmp_path / "b", 0, 5), KEY.pack(0), b"WMB2" + bytes(30))])
    damaged = ShardSet.open([edit(write_shard(tmp_path / "c", 0, 5), KEY.pack(0), b"WMB2" + bytes(20_000))])
    with pytest.raises(ValueError, match="c, block 0: damaged block: its bytes have another digest than recorded"):
        damaged.block(0)


def test_one_wrong_byte_of_a_picture_is_found(tmp_path: Path) -> None:
    path = write_shard(tmp_path / "a", 0, 300)
    index = write_index(path)
    content = bytearray(path.read_bytes())
    start = int(ShardSet.open([path]).index.table.offsets[1])
    content[start + 100] ^= 1
    path.write_bytes(content)
    for shards in (ShardSet.open([path]), open_sets([index])):
        assert shards.block(0).labels[0] == "0"
        for _ in range(2):
            with pytest.raises(ValueError, match="a, block 1: damaged block"):
                shards.block(1)


def test_a_file_that_was_cut_behind_its_index_is_refused(tmp_path: Path) -> None:
    path = write_shard(tmp_path / "a", 0, 5000)
    index = write_index(path)
    os.truncate(path, path.stat().st_size // 2)
    shards = open_sets([index])
    assert shards.block(0).labels[3] == "3"
    shards.prefetch([19])
    with pytest.raises(ValueError, match="a, block 19: damaged block"):
        shards.block(19)


def test_garbled_pages_are_refused(tmp_path: Path) -> None:
    path = write_shard(tmp_path / "a", 0, 5)
    whole = path.read_bytes()
    path.write_bytes(whole[:8192] + b"\xff" * (len(whole) - 8192))  # only LMDB's two head pages are left
    with pytest.raises(ValueError, match="a, meta: damaged"):
        ShardSet.open([path])


def test_a_data_set_comes_out_of_the_store(store: Store, tmp_path: Path) -> None:
    path = write_shard(tmp_path / "00000.lmdb", 7, 7)
    shard = store.put_file(path, path.name)
    index = store.put_file(write_index(path), INDEX)
    common = {"stage": "shard", "inputs": {}, "git_commit": "unknown"}
    single = Manifest(name="words", key="k1", objects=(shard, index), **common)
    store.put_json(f"manifests/{single.reference}.json", to_document(single))
    combined = Manifest(
        name="datasets", key="k2", facts={"datasets": {"words": "shard/k1", "gone": "shard/k3"}}, **common
    )
    shards = open_dataset(store, combined, "words")
    assert labels(shards) == [str(i) for i in range(7, 14)]
    assert shards.files.has(0)  # the cache has the shard whole
    with pytest.raises(ValueError, match="data set 'other': shard/k2 has only gone, words"):
        open_dataset(store, combined, "other")
    with pytest.raises(RuntimeError, match=r"shard/k3 \(gone\) is not whole"):
        open_dataset(store, combined, "gone")
