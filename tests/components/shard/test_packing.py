"""One range of samples becomes one shard: its order, and how pictures are stored."""

from pathlib import Path

import numpy as np
import pytest

from components.shard import packing
from components.shard.packing import Rules, Task, order, pack_shard
from tests.components.shard.shard_sets import drawn, labels, records, section
from tests.wordmill.pictures.test_decoder import jpeg
from wordmill.pictures.decoder import decode
from wordmill.pictures.image import fit_picture
from wordmill.recipe.catalogue import Entry
from wordmill.recipe.parsing import from_json
from wordmill.recipe.sections import Data
from wordmill.shards.sets import ShardSet
from wordmill.synth.renderer import Renderer, SynthSpec
from wordmill.text.charset import load_charset


def task(folder: Path, entry: dict[str, object], start: int, stop: int, **fields: object) -> Task:
    data = from_json(Data, section(**fields))
    rules = Rules(data=data, charset=load_charset("lower36"), training=bool(data.train))
    return Task(entry=Entry(**entry), root=folder, start=start, stop=stop, path=folder / "shard", rules=rules)


def photos(folder: Path, count: int) -> tuple[list[bytes], dict[str, object]]:
    """JPEGs of three sizes, labelled by their numbers, in an LMDB."""
    rng = np.random.default_rng(0)
    sizes = [(31, 40, 3), (31, 81, 3), (20, 30, 3)]
    files = [jpeg(rng.integers(0, 256, sizes[number % 3], dtype=np.uint8)) for number in range(count)]
    folder.mkdir()
    return files, records(folder, [(file, str(number).encode()) for number, file in enumerate(files)])


def test_a_training_set_is_shuffled_within_each_shard(tmp_path: Path) -> None:
    first, second = (order(task(tmp_path, drawn(40000), *part, train=["w"])) for part in ((0, 16384), (16384, 32768)))
    assert sorted(first) == list(range(16384))
    assert sorted(second) == list(range(16384, 32768))
    assert [number + 16384 for number in first] != second
    assert first == order(task(tmp_path, drawn(50000), 0, 16384, train=["w"]))
    # A block is a random part: the mean of 256 numbers has a standard deviation of 16384 / sqrt(12 * 256) = 296.
    means = np.array(first).reshape(64, 256).mean(axis=1)
    assert abs(means - 8191.5).max() < 4 * 296
    assert 200 < means.std() < 400
    # Neighbours are strangers: correlations of 16384 pairs have a standard deviation of 1 / 128.
    assert abs(np.corrcoef(first[:-1], first[1:])[0, 1]) < 4 / 128


def test_other_sets_keep_their_order(tmp_path: Path) -> None:
    assert order(task(tmp_path, drawn(400), 100, 300, val=["w"])) == list(range(100, 300))
    done = task(tmp_path, drawn(400), 298, 302)
    pack_shard(done)
    block = ShardSet.open([done.path]).block(0)
    renderer = Renderer(SynthSpec.parse(str(drawn(400)["source"])))
    expected = [renderer.sample(index) for index in range(298, 302)]
    assert block.labels == [label for _, label in expected]
    assert block.images is not None
    np.testing.assert_array_equal(block.images[:, :, :, 0], np.stack([image for image, _ in expected]))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("train", [[], ["words"]])
def test_decoded_shards_hold_pictures_as_each_alone_would_be(tmp_path: Path, channels: int, train: list[str]) -> None:
    files, entry = photos(tmp_path / "words", 300)
    done = task(tmp_path / "words", entry, 0, 300, channels=channels, train=train)
    pack_shard(done)
    shards = ShardSet.open([done.path])
    found = labels(shards)
    assert found == [str(number) for number in order(done)]
    images = np.concatenate([shards.block(block).images for block in range(2)])
    for label, image in zip(found, images, strict=True):
        expected = fit_picture(decode(files[int(label)], channels), done.rules.data)
        np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize(("name", "value"), [("WINDOW", 7), ("WINDOW_BYTES", 20_000)])
def test_how_many_are_fitted_at_a_time_changes_nothing(
    tmp_path: Path, name: str, value: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, entry = photos(tmp_path / "words", 100)
    done = task(tmp_path / "words", entry, 0, 100)
    pack_shard(done)
    expected = done.path.read_bytes()
    monkeypatch.setattr(packing, name, value)
    pack_shard(done)
    assert done.path.read_bytes() == expected


def test_encoded_shards_hold_the_files(tmp_path: Path) -> None:
    files, entry = photos(tmp_path / "words", 5)
    done = task(tmp_path / "words", entry, 0, 5, stored="encoded", interpolation="bicubic")
    packed = pack_shard(done)
    shards = ShardSet.open([done.path])
    assert [bytes(file) for file in shards.block(0).files] == files
    assert shards.index.picture == packed.picture
    assert packed.picture is not None
    assert packed.picture["interpolation"] == "bicubic"
    read = shards.window([0]).take(np.arange(5))
    expected = [fit_picture(decode(file, 1), done.rules.data) for file in files]
    np.testing.assert_array_equal(read, np.stack(expected))


def test_encoded_shards_hold_rendered_pictures_without_loss(tmp_path: Path) -> None:
    done = task(tmp_path, drawn(3), 0, 3, stored="encoded")
    pack_shard(done)
    read = ShardSet.open([done.path]).window([0]).take(np.arange(3))
    renderer = Renderer(SynthSpec.parse(str(drawn(3)["source"])))
    np.testing.assert_array_equal(read[:, :, :, 0], np.stack([renderer.sample(index)[0] for index in range(3)]))


def test_a_file_too_large_to_be_stored_is_put_aside(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (700, 700, 3), dtype=np.uint8)
    (tmp_path / "words").mkdir()
    entry = records(tmp_path / "words", [(jpeg(noise), b"large"), (jpeg(noise[:9, :9]), b"small")])
    stored = pack_shard(task(tmp_path / "words", entry, 0, 2, stored="encoded"))
    assert [item["reason"].partition(":")[0] for item in stored.quarantine] == ["file too large"]
    assert pack_shard(task(tmp_path / "words", entry, 0, 2)).samples == 2


def test_what_labels_need_is_measured_as_they_are_stored(tmp_path: Path) -> None:
    (tmp_path / "words").mkdir()
    samples = [(jpeg(np.zeros((9, 9, 3), dtype=np.uint8)), text) for text in (b"Book", b"it's", b"!", b"")]
    entry = records(tmp_path / "words", samples)
    characters, frames = pack_shard(task(tmp_path / "words", entry, 0, 4)).measured
    assert characters.tolist() == [4, 3, 0, 0]
    assert frames.tolist() == [5, 3, 0, 0]  # a blank between the two letters o
