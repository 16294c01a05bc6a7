from pathlib import Path

import cv2
import numpy as np
import pytest

from components.shard.leaks import join_prints
from tests.components.shard.shard_sets import labels, photos, section, shard
from wordmill.shards.sets import open_dataset
from wordmill.store.artifacts import find_manifest
from wordmill.store.storage import Store


def word(seed: int) -> np.ndarray:
    """Smooth random squares, as different as words are: (40, 120)."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 18), dtype=np.uint8)
    return cv2.resize(coarse, (120, 40), interpolation=cv2.INTER_CUBIC)


def encoded(image: np.ndarray, ending: str = ".png") -> bytes:
    return bytes(cv2.imencode(ending, image)[1].tobytes())


def test_training_pictures_that_are_a_benchmarks_are_counted_and_shown(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    smaller = cv2.resize(word(3), (90, 30), interpolation=cv2.INTER_AREA)
    train = {"one": encoded(word(1)), "two": encoded(word(2), ".jpg"), "three": encoded(smaller, ".jpg"),
             "four": encoded(word(4)), "five": encoded(word(5)[2:, 2:])}  # fmt: skip
    sources = {
        "train": photos(tmp_path / "t.zip", dict(train)),
        "val": photos(tmp_path / "v.zip", {"one": encoded(word(1))}),
        "signs": photos(tmp_path / "s.zip", {"zwei": encoded(word(2)), "other": encoded(word(9))}),
        "words": photos(tmp_path / "w.zip", {"drei": encoded(word(3)), "fuenf": encoded(word(5))}),
    }
    combined = shard(tmp_path, sources, section(train=["train"], val=["val"]))
    leaks = combined.facts["leaks"]
    assert (leaks["sets"]["train"]["found"], leaks["sets"]["train"]["of"]) == (3, {"signs": 1, "words": 2})
    assert "shard train: 3 pictures are a benchmark's: 1 of signs, 2 of words" in capsys.readouterr().out
    made = find_manifest(store, leaks["manifest"])
    assert made is not None
    assert made.object("train.npy").sha256 == leaks["sets"]["train"]["digest"]
    stored = labels(open_dataset(store, combined, "train"))
    left_out = np.load(store.fetch(made.object("train.npy"))).tolist()
    assert sorted(stored[number] for number in left_out) == ["five", "three", "two"]
    sheet = cv2.imdecode(np.frombuffer(store.fetch(made.object("leaks.png")).read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    assert sheet.shape == (80, 8 * 206, 3)  # one row: three pairs


def test_without_benchmarks_or_without_leaks_nothing_is_shown(store: Store, tmp_path: Path) -> None:
    train, other = (photos(tmp_path / f"{n}.zip", {"word": encoded(word(n))}) for n in (1, 2))
    alone = shard(tmp_path, {"train": train, "val": other}, section(train=["train"], val=["val"]))
    assert alone.facts["leaks"] is None
    clean = shard(tmp_path, {"train": train, "signs": other}, section(train=["train"])).facts["leaks"]
    assert (clean["sets"]["train"]["found"], clean["sets"]["train"]["of"]) == (0, {})
    made = find_manifest(store, clean["manifest"])
    assert made is not None
    assert [entry.name for entry in made.objects] == ["train.npy"]


def test_numbers_of_what_is_sought_go_on_from_shard_to_shard(tmp_path: Path) -> None:
    parts = []
    for number, samples in enumerate((2, 3)):
        rows = np.array([[7, 8, 9, own] for own in range(samples)], np.uint64)
        np.save(tmp_path / f"{number}.npy", rows)
        parts.append((tmp_path / f"{number}.npy", samples))
    join_prints(parts, tmp_path / "all.npy")
    assert np.load(tmp_path / "all.npy")[:, 3].tolist() == [0, 1, 2, 3, 4]
    np.save(tmp_path / "0.npy", np.ones((4, 3), np.uint64))
    join_prints([parts[0], parts[0]], tmp_path / "all.npy")
    assert np.load(tmp_path / "all.npy").shape == (8, 3)
