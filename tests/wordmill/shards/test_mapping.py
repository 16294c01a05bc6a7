from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wordmill.shards.mapping import Gatherer, address_of, map_file, read_ahead


def test_a_mapped_file_is_its_bytes_and_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"some bytes")
    found = map_file(tmp_path / "file")
    assert found.tobytes() == b"some bytes"
    assert not found.flags.writeable
    (tmp_path / "file").unlink()
    assert found[5:].tobytes() == b"bytes"
    assert address_of(found[5:]) == address_of(found) + 5


def test_an_empty_file_is_an_empty_array_and_an_absent_one_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert map_file(tmp_path / "empty").shape == (0,)
    with pytest.raises(FileNotFoundError, match="absent"):
        map_file(tmp_path / "absent")


def test_what_cannot_be_mapped_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="(map|Is a directory).*"):
        map_file(tmp_path)


def test_reading_ahead_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(range(256)) * 100)
    found = map_file(tmp_path / "file")
    read_ahead(found[5000:20_000])
    read_ahead(found[30_000:])  # there is nothing
    assert found.tobytes() == bytes(range(256)) * 100


@given(
    counts=st.lists(st.integers(0, 9), min_size=1, max_size=12).filter(lambda counts: sum(counts) > 0),
    shape=st.tuples(st.integers(1, 5), st.integers(1, 7)),
    data=st.data(),
)
def test_items_of_many_arrays_are_gathered_as_if_they_were_one(
    counts: list[int], shape: tuple[int, int], data: st.DataObject
) -> None:
    rng = np.random.default_rng(sum(counts))
    arrays = [rng.integers(0, 256, (count, *shape), dtype=np.uint8) for count in counts]
    order = data.draw(st.permutations(range(len(arrays))))
    arrays = [arrays[number] for number in order]
    places = np.array(data.draw(st.lists(st.integers(0, sum(counts) - 1), max_size=40)), dtype=np.int64)
    found = Gatherer(arrays).take(places)
    assert (found == np.concatenate(arrays).reshape(sum(counts), -1)[places]).all()
    found[:] = 0  # a copy: it may be written
