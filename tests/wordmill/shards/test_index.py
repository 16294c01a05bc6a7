import time
from pathlib import Path

import numpy as np
import pytest

from tests.wordmill.text.steps import steps_needed
from wordmill.shards.blocks import BlockTable
from wordmill.shards.content import Content
from wordmill.shards.index import Index, measure_labels
from wordmill.shards.loader import EpochOrder
from wordmill.shards.sets import Files, ShardSet
from wordmill.store.storage import Object
from wordmill.text.charset import Charset, load_charset
from wordmill.text.decoding import CtcCodec
from wordmill.training.targets import fitting

LOWER = load_charset("lower36")


def part(name: str, blocks: int, shape: tuple[int, int, int] = (32, 100, 1), block: int = 4) -> Index:
    """The index of a shard that was never written, of blocks of so many samples."""
    numbers = np.arange(blocks)
    table = BlockTable(
        offsets=(numbers * 20480 + 16).astype(np.uint64),
        sizes=np.full(blocks, 16384, dtype=np.uint32),
        samples=np.full(blocks, block, dtype=np.uint32),
        digests=numbers.astype(np.uint64) + (1 << 63),
    )
    counts = (np.arange(blocks * block) % 27).astype(np.uint8)
    entry = Object(name=name, sha256=f"{name}0", bytes=99)
    return Index.of_shard(entry, shape, None, table, (counts, counts + 1), Content(value=7, samples=blocks * block))


def test_indices_join_and_come_back_from_their_file(tmp_path: Path) -> None:
    joined = Index.join([Index.join([part("a", 2), part("b", 3)]), part("c", 1)])
    joined.save(tmp_path / "index.npz")
    back = Index.load(tmp_path / "index.npz")
    assert (back.shape, back.picture, back.blocks) == ((32, 100, 1), None, 6)
    assert back.objects == tuple(Object(name=name, sha256=f"{name}0", bytes=99) for name in "abc")
    assert back.shard.tolist() == [0, 0, 1, 1, 1, 2]
    assert [back.location(block) for block in range(6)] == [("a", 0), ("a", 1), ("b", 0), ("b", 1), ("b", 2), ("c", 0)]
    assert back.table.offsets.tolist() == [16, 20496, 16, 20496, 40976, 16]
    assert (back.table.digests - (1 << 63)).tolist() == [0, 1, 0, 1, 2, 0]
    assert (back.samples, back.content) == (joined.samples, joined.content)
    assert back.samples.samples == 24
    assert back.characters.tolist() == [*range(8), *range(12), *range(4)]
    assert back.frames.tolist() == [*range(1, 9), *range(1, 13), *range(1, 5)]
    for name in ("characters", "frames", "shard"):
        assert getattr(back, name).dtype == getattr(joined, name).dtype


def test_equal_indices_have_equal_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        Index.join([part("a", 2), part("b", 3)]).save(tmp_path / name)
        time.sleep(0.01)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04" + bytes(40)])
def test_a_damaged_index_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "index.npz").write_bytes(content)
    with pytest.raises(ValueError, match="index.npz: not a readable index of shards"):
        Index.load(tmp_path / "index.npz")


def test_a_cut_index_and_one_with_a_wrong_byte_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "index.npz"
    part("a", 200).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="index.npz: not a readable index of shards"):
        Index.load(path)
    middle = len(whole) // 2
    path.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    with pytest.raises(ValueError, match="index.npz: not a readable index of shards"):
        Index.load(path)


def measured_one_by_one(labels: list[str], charset: Charset) -> list[tuple[int, int]]:
    codec = CtcCodec(charset=charset)
    return [(min(255, len(codec.encode(label))), min(255, steps_needed(codec, label))) for label in labels]


@pytest.mark.parametrize("charset", ["lower36", "english94", "chinese6623", "fsns133"])
def test_labels_measure_as_the_codec_counts_them(charset: str) -> None:
    own = load_charset(charset)
    rng = np.random.default_rng(3)
    alphabet = [*own.symbols[:60], *"aAzZ09!?é İßΣς ﬁ中文\U0001f600"]
    drawn = ["".join(rng.choice(alphabet, rng.integers(0, 12))) for _ in range(2000)]
    labels = ["", "aab", "Aa", "a!a", "ΑΣ", "İi", "a" * 254, "a" * 255, "ab" * 200, *drawn, ""]
    characters, frames = measure_labels(labels, own)
    assert (characters.dtype, frames.dtype) == (np.uint8, np.uint8)
    assert list(zip(characters.tolist(), frames.tolist(), strict=True)) == measured_one_by_one(labels, own)


def test_what_labels_need_worked_out_by_hand() -> None:
    characters, frames = measure_labels(["aab", "a-a", "", "!?", "x" * 300], LOWER)
    assert characters.tolist() == [3, 2, 0, 0, 255]
    assert frames.tolist() == [4, 3, 0, 0, 255]  # "a-a" is read as "aa"
    assert [counts.tolist() for counts in measure_labels([], LOWER)] == [[], []]


def test_an_epoch_of_millions_is_planned_without_looking_at_a_label(tmp_path: Path) -> None:
    """14.4 million samples, as MJSynth and SynthText have them, of which there is nothing but the index."""
    index = Index.join([part(f"{number:05}", 64, block=256) for number in range(879)])
    index.save(tmp_path / "index.npz")
    assert (tmp_path / "index.npz").stat().st_size < 32_000_000
    index = Index.load(tmp_path / "index.npz")
    shards = fitting(ShardSet(index, Files(index, [None] * 879), None), CtcCodec(charset=LOWER), 24)
    assert len(index.characters) == 14_401_536
    # A shard's labels have 0 .. 26 characters in turn, 606 times, and then 0 .. 21; of these 1 to 23 fit into 24 steps.
    assert shards.samples == 879 * (606 * 23 + 21)
    order = EpochOrder(shards, 0, 1, seed=1, epoch=0)
    assert len(order.windows) == 879
    assert sorted(np.concatenate(order.windows).tolist()) == list(range(879 * 64))
