import argparse
from collections.abc import Callable

import pytest

from wordmill.recipe.arguments import days, from_nought, from_one, minutes, seconds


def test_numbers_are_taken_as_they_are_written() -> None:
    assert (from_nought("0"), from_nought("12"), from_one("1")) == (0, 12, 1)
    assert (seconds("2.5"), minutes("0.5"), days("30")) == (2.5, 0.5, 30.0)


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        (from_nought, "-1", "a whole number from 0 on"),
        (from_nought, "1.5", "a whole number from 0 on"),
        (from_nought, "²", "a whole number from 0 on"),
        (from_one, "0", "a whole number from 1 on"),
        (from_one, "two", "a whole number from 1 on"),
        (seconds, "0", "seconds, more than 0"),
        (seconds, "nan", "seconds, more than 0"),
        (seconds, "soon", "seconds, more than 0"),
        (minutes, "-1", "minutes, more than 0"),
        (days, "-30", "days, more than 0"),
    ],
)
def test_others_are_refused_by_name(kind: Callable[[str], float], text: str, expected: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=f"^found '{text}', expected {expected}$"):
        kind(text)
