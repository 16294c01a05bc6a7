from collections.abc import Iterable, Iterator

import pytest

from wordmill.readers.holdout import HeldOut, part_numbers
from wordmill.readers.sample import Sample


class Lettered:
    """Forty samples whose labels are their numbers."""

    notes = ("told",)

    def __len__(self) -> int:
        return 40

    def read(self, indices: Iterable[int]) -> Iterator[Sample]:
        return (Sample(f"index {index}", b"", str(index)) for index in indices)


def test_parts_share_no_sample_and_lack_none() -> None:
    parts = [part_numbers(40, part) for part in ("train", "val", "test")]
    assert [len(part) for part in parts] == [28, 4, 8]
    assert sorted(number for part in parts for number in part) == list(range(40))
    assert all(part == sorted(part) for part in parts)
    assert parts == [part_numbers(40, part) for part in ("train", "val", "test")]
    assert parts[2] != list(range(32, 40))  # drawn, not the last ones
    assert [len(part_numbers(301, part)) for part in ("train", "val", "test")] == [211, 30, 60]


def test_too_few_samples_are_not_parted() -> None:
    assert len(part_numbers(30, "val")) == 3
    with pytest.raises(ValueError, match="29 samples are too few to hold some out: expected at least 30"):
        part_numbers(29, "test")


def test_a_part_is_read_as_a_set_of_its_own() -> None:
    reader, numbers = HeldOut(Lettered(), "test"), part_numbers(40, "test")
    assert (len(reader), reader.notes) == (8, ("told",))
    assert [sample.label for sample in reader.read([7, 0])] == [str(numbers[7]), str(numbers[0])]
