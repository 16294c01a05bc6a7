import multiprocessing
import os
import signal
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tests.waiting import LIMIT_S
from tests.wordmill.training.tiny import write_index
from wordmill.shards import cache as block_cache
from wordmill.shards.blocks import ShardWriter
from wordmill.shards.cache import BlockCache
from wordmill.shards.index import Index
from wordmill.shards.loader import ordered_batches, training_batches
from wordmill.shards.sets import ShardSet, open_sets
from wordmill.store.cache import VARIABLE
from wordmill.store.storage import Store

SAMPLES, BLOCKS, BLOCK = 2560, 10, 256 * 160  # of 8 x 20 gray pixels; a record has some bytes more


@pytest.fixture
def index(store: Store, tmp_path: Path) -> Path:
    """The index of a shard that is in the store alone."""
    shard = tmp_path / "words.lmdb"
    rng = np.random.default_rng(0)
    with ShardWriter(shard, (8, 20, 1), SAMPLES) as writer:
        for number in range(SAMPLES):
            writer.add(rng.integers(0, 256, (8, 20, 1), dtype=np.uint8), str(number))
    entry = store.put_file(shard, shard.name)
    path = write_index(shard)
    found = store.find(entry)
    assert found
    found.unlink()
    shard.rename(tmp_path / "original")
    return path


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Counter[int]:
    """How often each byte position was asked of the store."""
    counts: Counter[int] = Counter()
    read = Store.read_range

    def counted(self: Store, entry: object, start: int, size: int) -> bytes:
        counts[start] += 1
        return read(self, entry, start, size)  # type: ignore[arg-type]

    monkeypatch.setattr(Store, "read_range", counted)
    return counts


def cached(store: Store) -> list[Path]:
    return sorted(path for path in (store.cache / "blocks").glob("??/*"))


def labels(shards: ShardSet) -> list[str]:
    return [label for batch in ordered_batches(shards, 256) for label in batch.labels]


def test_a_set_streams_out_of_the_store_once(store: Store, index: Path, tmp_path: Path, asked: Counter[int]) -> None:
    whole = ShardSet.open([tmp_path / "original"])
    for _ in range(2):
        shards = open_sets([index])
        for streamed, local in zip(ordered_batches(shards, 300), ordered_batches(whole, 300), strict=True):
            assert streamed.labels == local.labels
            assert (streamed.images == local.images).all()
    assert len(asked) == BLOCKS == len(cached(store))
    assert set(asked.values()) == {1}


def test_training_starts_with_the_first_windows_blocks(
    index: Path, asked: Counter[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wordmill.shards.loader.RANGES", 2)
    shards = open_sets([index])
    batches = training_batches(shards, batch=64, rank=0, ranks=1, seed=1, epoch=0)
    found = next(batches).labels
    assert len(asked) <= 4  # two windows of two blocks
    for batch in batches:
        found += batch.labels
    assert sorted(found) == sorted(map(str, range(SAMPLES)))
    assert set(asked.values()) == {1}


def test_a_damaged_or_cut_block_in_the_cache_is_fetched_anew(store: Store, index: Path, asked: Counter[int]) -> None:
    expected = labels(open_sets([index]))
    one, two = cached(store)[3], cached(store)[7]
    whole = one.read_bytes()
    one.write_bytes(whole[:1000] + b"?" + whole[1001:])
    os.truncate(two, 20_000)
    assert labels(open_sets([index])) == expected
    assert sorted(asked.values()) == [1] * 8 + [2, 2]
    assert one.read_bytes() == whole


def test_a_damaged_copy_of_a_whole_shard_is_not_used(store: Store, index: Path, tmp_path: Path) -> None:
    entry = Index.load(index).objects[0]
    shards = open_sets([index])
    expected = labels(shards)
    copy = store.fetch(entry)
    content = bytearray(copy.read_bytes())
    content[int(shards.index.table.offsets[4]) + 500] ^= 255
    before = copy.stat()
    copy.write_bytes(content)
    os.utime(copy, ns=(before.st_atime_ns, before.st_mtime_ns))  # or it would be verified again, and not be opened
    shards = open_sets([index])
    assert shards.files.has(0)
    assert labels(shards) == expected
    assert not shards.files.has(0)


@pytest.mark.parametrize("ahead", [True, False])
def test_a_damaged_stored_block_is_an_error_that_names_it(
    ahead: bool, store: Store, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(block_cache, "PAUSE_S", 0.0)
    known = Index.load(index)
    entry, start = known.objects[0], int(known.table.offsets[5])
    key = f"objects/{entry.sha256[:2]}/{entry.sha256}"
    content = bytearray(store.get_bytes(key) or b"")
    content[start + 500] ^= 255
    store.put_bytes(key, bytes(content), "application/octet-stream")
    shards = open_sets([index])
    assert shards.block(4).labels[0] == str(4 * 256)
    if ahead:
        shards.prefetch([5])
    with pytest.raises(RuntimeError, match=rf"{key} \(words.lmdb\), block 5: its bytes have another digest"):
        shards.block(5)
    assert len(cached(store)) == 1


def test_a_shard_that_the_store_has_no_more_is_an_error(
    store: Store, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(block_cache, "PAUSE_S", 0.0)
    entry = Index.load(index).objects[0]
    store.client.delete_object(Bucket=store.bucket, Key=f"objects/{entry.sha256[:2]}/{entry.sha256}")
    with pytest.raises(RuntimeError, match=f"{entry.sha256}.*it is not there"):
        open_sets([index]).block(0)


def test_one_reading_that_fails_does_not_end_training(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_cache, "PAUSE_S", 0.0)
    read, turns = Store.read_range, ["lost", "cut", "whole"]

    def flaky(self: Store, entry: object, start: int, size: int) -> bytes:
        turn = turns.pop(0)
        if turn == "lost":
            raise RuntimeError("connection lost")
        return read(self, entry, start, size)[: size - (turn == "cut")]  # type: ignore[arg-type]

    monkeypatch.setattr(Store, "read_range", flaky)
    assert open_sets([index]).block(2).labels[0] == "512"
    assert turns == []


def test_the_cache_keeps_to_its_bound_and_what_was_used_last(
    store: Store, index: Path, asked: Counter[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = 5 * (BLOCK + 4096)
    monkeypatch.setenv(VARIABLE, str(limit))
    shards = open_sets([index])
    for block in (0, 1, 2, 3, 0, 4, 5):
        assert shards.block(block).labels[0] == str(256 * block)
        assert sum(path.stat().st_size for path in cached(store)) <= limit
    asked.clear()
    shards.block(0)
    shards.block(5)
    assert not asked
    shards.block(1)
    assert asked
    held = shards.block(0).images
    before = held.copy()
    assert sorted(labels(shards)) == sorted(map(str, range(SAMPLES)))
    assert (held == before).all()  # its file is gone


def test_threads_and_processes_fetch_a_block_once(
    store: Store, index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Store.read_range

    def slow(self: Store, entry: object, start: int, size: int) -> bytes:
        with (tmp_path / "asked").open("a") as file:
            file.write(f"{start}\n")
        time.sleep(0.1)
        return read(self, entry, start, size)  # type: ignore[arg-type]

    monkeypatch.setattr(Store, "read_range", slow)

    def work() -> None:
        cache = BlockCache(Store.from_environment(), Index.load(index))
        cache.prefetch(range(6))
        for block in range(6):
            cache.record(block)

    children = [multiprocessing.get_context("fork").Process(target=work) for _ in range(2)]
    threads = [threading.Thread(target=work) for _ in range(2)]
    for runner in (*children, *threads):
        runner.start()
    for runner in (*children, *threads):
        runner.join(LIMIT_S)
    assert [child.exitcode for child in children] == [0, 0]
    starts = (tmp_path / "asked").read_text().split()
    assert len(starts) == len(set(starts)) == 6


def test_a_process_that_is_killed_while_it_fetches_leaves_nothing_in_the_way(
    store: Store, index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stuck(descriptor: int) -> None:
        (tmp_path / "stuck").touch()
        threading.Event().wait()

    def work() -> None:
        monkeypatch.setattr(os, "fsync", stuck)
        BlockCache(Store.from_environment(), Index.load(index)).record(1)

    child = multiprocessing.get_context("fork").Process(target=work)
    child.start()
    while not (tmp_path / "stuck").exists():
        time.sleep(0.01)
    os.kill(child.pid or 0, signal.SIGKILL)
    child.join()
    assert [path.suffix for path in cached(store)] == [".part"]
    assert open_sets([index]).block(1).labels[0] == "256"


@pytest.mark.parametrize("text", ["1000", "32G", "-1"])
def test_a_bound_that_makes_no_sense_is_refused(text: str, index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, text)
    with pytest.raises(ValueError, match=f"WORDMILL_CACHE_BYTES: found '{text}', expected a number of bytes"):
        open_sets([index])
