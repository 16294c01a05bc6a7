"""What readers yield: samples as their source has them."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol

from wordmill.pictures.image import Picture


class Sample(NamedTuple):
    """One sample as its source has it: encoded or rendered picture, label, and what is wrong where something is."""

    where: str
    image: bytes | Picture
    label: str
    problem: str = ""


class Reader(Protocol):
    """A data set's samples, numbered from 0."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What is unusual about their form, for people."""

    def __len__(self) -> int: ...

    def read(self, indices: Iterable[int]) -> Iterator[Sample]:
        """Yield the samples of these numbers in this order, one for each, whatever is wrong with it.

        Any order will do; neighbours that are asked for close together are cheaper.
        """
