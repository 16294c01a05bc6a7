import math

import numpy as np
import pytest

from components.gate.drift import compare_runs, distance_of, slices_of
from components.gate.sampling import Paired


def test_the_distance_is_the_share_that_would_have_to_be_others() -> None:
    # a 0.6 and 0.5, b 0.4 and 0.3, c 0 and 0.2
    found = distance_of({"a": 60, "b": 40}, {"a": 500, "b": 300, "c": 200})
    assert found.distance == pytest.approx(0.2)
    assert found.p == 1 / 5000
    same = distance_of({"a": 60, "b": 40}, {"a": 600, "b": 400})
    assert (same.distance, same.p) == (pytest.approx(0), 1.0)


def test_chance_makes_of_two_halves_what_the_normal_distribution_says() -> None:
    # The difference of two shares of one half of n samples each has the deviation sqrt(1 / 2n); 95 % stay below 1.96.
    found = distance_of({"a": 5000, "b": 5000}, {"a": 5000, "b": 5000})
    assert found.chance == pytest.approx(1.96 * math.sqrt(1 / 20_000), rel=0.05)
    one = round(10_000 * 2.576 * math.sqrt(1 / 20_000) / 2)  # so far 1 % get
    assert distance_of({"a": 5000 + one, "b": 5000 - one}, {"a": 5000 - one, "b": 5000 + one}).p == pytest.approx(
        0.01, abs=4 * math.sqrt(0.01 / 5000)
    )


def pair(name: str, outcomes: str, lengths: list[int], pictures: str) -> Paired:
    """Outcomes: b for a word that both read, g gained, l lost, n for neither."""
    return Paired(name=name, candidate=[c in "bg" for c in outcomes], champion=[c in "bl" for c in outcomes],
                  pictures=list(pictures), lengths=lengths)  # fmt: skip


def test_slices_count_each_picture_once() -> None:
    pairs = [pair("a", "bgln", [3, 4, 9, 30], "wxyz"), pair("b", "bg", [3, 5], "wv")]
    assert slices_of(pairs) == [
        ("words of 1 to 3 characters", 1, 1, 0, 0),
        ("words of 4 to 6 characters", 2, 0, 2, 0),
        ("words of 7 to 9 characters", 1, 0, 0, 1),
        ("words of 10 characters or more", 1, 0, 0, 0),
    ]


def test_what_has_moved_is_told_with_its_size_and_what_moved_most() -> None:
    many = {"3": 40_000, "4": 60_000}
    histograms = {
        "training, word length": ({"3": 60_000, "4": 40_000}, many),
        "validation, characters": ({"a": 500, "b": 500}, {"a": 510, "b": 490}),
        "training, brightness": ({"0": 41_500, "16": 58_500}, {"0": 40_000, "16": 60_000}),
        "validation, brightness": ({}, {"0": 9}),
    }
    pictures = "".join(map(chr, range(0x4E00, 0x4E00 + 100)))
    found = compare_runs(histograms, [pair("a", "l" * 20 + "b" * 80, [5] * 100, pictures)], "the champion, version 3")
    assert [row["verdict"] for row in found["histograms"]] == [
        "it has moved", "as before", "it has moved, too little to matter"
    ]  # fmt: skip
    assert [row["verdict"] for row in found["slices"]] == ["read worse"]
    length, words = found["moved"]
    assert length.startswith("training, word length: 20.0 % are others, where chance alone makes up to 0.4 %: it has")
    assert length.endswith("moved: 3 from 40.0 to 60.0 %, 4 from 60.0 to 40.0 %")
    assert words == ("words of 4 to 6 characters: 80.0 % of 100 are read right, 100.0 % by the champion: 0 gained, 20 "
                     "lost, McNemar p 1.9e-06: read worse")  # fmt: skip


def test_nothing_to_compare_is_nothing_moved() -> None:
    assert compare_runs({}, [], "x") == {"against": "x", "histograms": [], "slices": [], "moved": []}


def test_equal_histograms_give_equal_numbers() -> None:
    generator = np.random.default_rng(3)
    ours, theirs = ({str(i): int(n) for i, n in enumerate(generator.multinomial(500, [0.1] * 10))} for _ in range(2))
    assert distance_of(ours, theirs) == distance_of(ours, theirs)
