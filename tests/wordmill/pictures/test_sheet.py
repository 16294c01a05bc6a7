import itertools
from pathlib import Path

import cv2
import numpy as np
import pytest

from wordmill.pictures.sheet import contact_sheet, main


def test_contact_sheet_has_two_rows_of_pictures_at_twice_their_size() -> None:
    images = [np.full((32, 100), 10, np.uint8), np.full((30, 90, 3), (200, 0, 0), np.uint8), np.full((32, 100), 170)]
    sheet = cv2.imdecode(np.frombuffer(contact_sheet(images, ["a", "b", "c"], columns=2), np.uint8), cv2.IMREAD_COLOR)
    assert sheet is not None
    assert sheet.shape == (2 * (64 + 16), 2 * (200 + 6), 3)
    centres = [sheet[32 + 80 * row, 100 + 206 * column] for row, column in itertools.product((0, 1), (0, 1))]
    assert [centre.tolist() for centre in centres] == [[10] * 3, [0, 0, 200], [170] * 3, [255] * 3]  # blue, green, red
    assert sheet[62, 206 + 100].tolist() == [255] * 3  # below the lower picture


def test_contact_sheet_needs_a_label_for_each_picture() -> None:
    with pytest.raises(ValueError, match="1 pictures and 0 labels"):
        contact_sheet([np.zeros((32, 100), np.uint8)], [])


def test_a_sheet_of_any_set_is_drawn_for_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "sheet.png"
    main(["synth://signs?seed=1&count=3&words=train&difficulty=easy", "--sheet", str(path)])
    sheet = cv2.imread(str(path))
    assert sheet is not None
    assert sheet.shape == (2 * (300 + 16), 2 * (1200 + 6), 3)
    assert "3 pictures" in capsys.readouterr().out
