import numpy as np
import pytest

from wordmill.shards.tally import COMMON, Tally, mean_levels
from wordmill.text.charset import Charset

ABC = Charset(name="abc", symbols="abc")


def test_every_sample_counts_once_in_each_histogram() -> None:
    # Of sample 0 its character 0, of sample 1 the second of two, of 3 number 3 % 2, of 4 number 4 % 3.
    labels, levels = ["ab", "bc", "??", "ac", "aca"], np.array([0, 15.9, 16, 255, 128], np.float32)
    found = Tally.of(labels, levels, ABC).histograms(ABC)
    assert found == {
        "length": {"0": 1, "2": 3, "3": 1},
        "character": {"a": 1, "c": 3},
        "brightness": {"0": 2, "16": 1, "128": 1, "240": 1},
    }


def test_parts_add_up() -> None:
    first, second = (Tally.of([label], np.array([8], np.float32), ABC) for label in ("a", "bb"))
    joined = Tally.join([first.lists(), second.lists()]).histograms(ABC)
    assert joined == {"length": {"1": 1, "2": 1}, "character": {"a": 1, "b": 1}, "brightness": {"0": 2}}


def test_rare_characters_are_counted_together() -> None:
    many = Charset(name="many", symbols="".join(map(chr, range(0x4E00, 0x4E00 + 300))))
    labels = [many.symbols[0]] * 2 + list(many.symbols[1:])
    found = Tally.of(labels, np.zeros(len(labels), np.float32), many).histograms(many)["character"]
    assert len(found) == COMMON + 1
    assert (found[many.symbols[0]], found[""], sum(found.values())) == (2, 45, 301)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_level_of_a_picture_is_the_mean_of_its_bytes(channels: int) -> None:
    pictures = np.zeros((2, 4, 10, channels), np.uint8)
    pictures[1, :2], pictures[1, 2:] = 255, 100
    assert mean_levels(pictures).tolist() == [0.0, 177.5]
