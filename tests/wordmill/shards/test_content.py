from pathlib import Path

import numpy as np
import xxhash

from wordmill.shards.blocks import ShardWriter
from wordmill.shards.content import BASE, PRIME, Content
from wordmill.shards.index import Index
from wordmill.shards.sets import read_index

SAMPLES = [(bytes([number] * 6), f"label {number}") for number in range(7)]


def content(samples: list[tuple[bytes, str]]) -> Content:
    found = Content()
    for picture, label in samples:
        found.add(picture, label)
    return found


def test_the_digest_is_a_polynomial_over_those_of_the_samples() -> None:
    one, other = (
        xxhash.xxh3_128_intdigest(picture, seed=xxhash.xxh3_64_intdigest(label.encode())) + 1
        for picture, label in SAMPLES[:2]
    )
    assert content(SAMPLES[:2]) == Content(value=(one * BASE + other) % PRIME, samples=2)
    assert content([]) == Content(value=0, samples=0)


def test_it_is_the_same_however_the_samples_are_cut() -> None:
    whole = content(SAMPLES)
    for cut in range(len(SAMPLES) + 1):
        assert content(SAMPLES[:cut]).join(content(SAMPLES[cut:])) == whole
    assert Content().join(whole) == whole


def test_any_other_sample_label_or_order_is_another_one() -> None:
    (picture, label), *rest = SAMPLES
    others = [
        rest, SAMPLES[::-1], [*SAMPLES, SAMPLES[0]], [(picture, "Label 0"), *rest],
        [(b"\x00" * 5 + b"\x01", label), *rest],
        [(rest[0][0], label), (picture, rest[0][1]), *rest[1:]], [(b"", ""), *SAMPLES],
    ]  # fmt: skip
    found = {content(samples).value for samples in others}
    assert len(found) == len(others)
    assert content(SAMPLES).value not in found


def written(path: Path, pictures: list[np.ndarray[tuple[int, ...], np.dtype[np.uint8]]], block: int) -> Index:
    """Return the index of shards of so many samples each."""
    parts = []
    for start in range(0, len(pictures), block):
        part = pictures[start : start + block]
        with ShardWriter(path / f"{block}.{start}", (2, 3, 1), len(part)) as writer:
            for number, picture in enumerate(part, start=start):
                writer.add(picture, f"label {number}")
        read = read_index(writer.path)
        counts = np.zeros(len(part), np.uint8)
        parts.append(Index.of_shard(read.objects[0], read.shape, None, read.table, (counts, counts), writer.content))
    return Index.join(parts)


def test_an_index_tells_samples_by_what_they_are(tmp_path: Path) -> None:
    pictures = [np.full((2, 3, 1), number, np.uint8) for number in range(7)]
    one, other = written(tmp_path, pictures, 7), written(tmp_path, pictures, 3)
    assert (len(one.objects), len(other.objects)) == (1, 3)
    assert one.samples == other.samples == content(SAMPLES)
    assert one.content == other.content
    assert len(one.content) == 32
