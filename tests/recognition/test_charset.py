from pathlib import Path

import numpy as np
import pytest

from components.recognition.charset import ctc_frames_needed, load_charset

LOWER36 = load_charset("lower36")


def test_lower36_has_digits_first_and_the_blank_as_class_0() -> None:
    assert LOWER36.classes == 37
    assert LOWER36.encode("0a9Z") == [1, 11, 10, 36]


@pytest.mark.parametrize(
    ("label", "clean"),
    [("IT'S", "its"), ("$5.00", "500"), ("New York", "newyork"), ("Café", "caf"), ("!!!", ""), ("", "")],
)
def test_characters_outside_the_charset_are_deleted(label: str, clean: str) -> None:
    assert LOWER36.clean(label) == clean


def path_logits(rows: list[list[int]], classes: int = 37) -> np.ndarray:
    """Return logits (N, T, C) whose best path is the given classes, with a lead of ln(3) over each other class."""
    logits = np.zeros((len(rows), len(rows[0]), classes), np.float32)
    for n, row in enumerate(rows):
        for t, best in enumerate(row):
            logits[n, t, best] = np.log(3.0)
    return logits


def test_best_path_drops_repeats_and_blanks() -> None:
    # a a - a b b -> "aab"; all blank -> ""
    texts, confidences = LOWER36.decode_ctc(path_logits([[11, 11, 0, 11, 12, 12], [0, 0, 0, 0, 0, 0]]))
    assert texts == ["aab", ""]
    # A lead of ln 3 over 36 others is a probability of 3 / (3 + 36).
    assert confidences == pytest.approx([3 / 39, 0.0])


def test_frames_needed_count_a_blank_between_equal_neighbours() -> None:
    assert ctc_frames_needed(LOWER36.encode("book")) == 5
    assert ctc_frames_needed(LOWER36.encode("aaa")) == 5
    assert ctc_frames_needed([]) == 0


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="charset 'lower63': did you mean 'lower36'"):
        load_charset("lower63")


def test_an_own_file_has_one_character_per_line(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("a\nB\n", encoding="utf-8")
    mine = load_charset(str(path))
    assert (mine.symbols, mine.folds_case) == ("aB", False)
    assert mine.clean("abB") == "aB"
    path.write_text("a\nbc\n", encoding="utf-8")
    with pytest.raises(ValueError, match="line 2: expected one character, found 'bc'"):
        load_charset(str(path))
    path.write_text("a\nb\na\n", encoding="utf-8")
    with pytest.raises(ValueError, match="line 3: 'a' stands on line 1 already"):
        load_charset(str(path))
    with pytest.raises(ValueError, match="no such file"):
        load_charset(str(tmp_path / "none.txt"))
