import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from wordmill.inference import pseudo_labels
from wordmill.inference.pseudo_labels import expected_wrong, keep_surest, sheet_of, write_pseudo_set
from wordmill.inference.reading import Result
from wordmill.readers.opening import open_reader
from wordmill.recipe.catalogue import load_catalogue


class Fitted:
    """What is asked of a recogniser: a picture of its size."""

    def fit(self, path: Path) -> Any:
        image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        if image is None:
            raise ValueError(f"{path}: no picture")
        return cv2.resize(image, (100, 32))[:, :, np.newaxis]


RECOGNISER: Any = Fitted()


def results(folder: Path, *readings: tuple[str, float]) -> list[Result]:
    found = []
    for number, (text, confidence) in enumerate(readings):
        path = folder / f"crop {number}.PNG"
        cv2.imwrite(str(path), np.full((20, 60), 10 * number, np.uint8))
        found.append(Result(path=path, text=text, confidence=confidence))
    return found


def test_as_many_of_the_surest_are_kept_as_leave_so_few_wrong(tmp_path: Path) -> None:
    read = results(tmp_path, ("b", 0.9), ("a", 0.99), ("", 1.0), ("c", 0.95), ("d", 0.5))
    read.append(Result(path=tmp_path / "x", error="no picture"))
    # Wrong are expected of the first 0.01, of two 0.06 / 2, of three 0.16 / 3, of four 0.66 / 4.
    assert expected_wrong(np.array([0.99, 0.95, 0.9, 0.5])) == pytest.approx([0.01, 0.03, 0.16 / 3, 0.165])
    kept = keep_surest(read, 0.06)
    assert [one.text for one in kept.results] == ["b", "c", "a"]  # the least sure first
    assert (kept.threshold, kept.wrong) == (0.9, pytest.approx(0.16 / 3))
    assert [one.text for one in keep_surest(read, 0.01 + 1e-9).results] == ["a"]
    assert len(keep_surest(read, 0.5).results) == 4


def test_where_nothing_is_sure_it_is_said_how_sure_the_surest_is(tmp_path: Path) -> None:
    read = results(tmp_path, ("a", 0.7), ("b", 0.6))
    with pytest.raises(
        ValueError, match=r"of 2 pictures none .* confidence of 0\.700, expected at least 0\.980: a higher"
    ):
        keep_surest(read, 0.02)
    with pytest.raises(ValueError, match="of 1 pictures none is read surely enough: no text was read in any"):
        keep_surest(results(tmp_path, ("", 0.9)), 0.02)


def test_a_set_is_a_catalogues_and_is_found_again(tmp_path: Path) -> None:
    read = results(tmp_path, ("straße", 0.99), ('"quoted"', 0.98))
    kept = keep_surest(read, 0.02)
    folder, called, entry = write_pseudo_set(tmp_path / "pseudo", "crops", kept, RECOGNISER, {"model": "m"})
    catalogue = load_catalogue([folder / "catalogue.yaml"])
    assert catalogue == {called: entry}
    reader = open_reader(entry, folder / "words")
    samples = list(reader.read(range(len(reader))))
    assert [sample.label for sample in samples] == ['"quoted"', "straße"]
    assert [sample.problem for sample in samples] == ["", ""]
    told = json.loads((folder / "pseudo.json").read_text())
    assert told == {"model": "m", "kept": 2, "threshold": 0.98, "expected_wrong": pytest.approx(0.015)}
    before = (folder / "sheet.png").stat().st_mtime_ns
    assert write_pseudo_set(tmp_path / "pseudo", "crops", kept, RECOGNISER, {})[0] == folder
    assert (folder / "sheet.png").stat().st_mtime_ns == before
    other = keep_surest(results(tmp_path, ("strasse", 0.99), ('"quoted"', 0.98)), 0.02)
    assert write_pseudo_set(tmp_path / "pseudo", "crops", other, RECOGNISER, {})[1] != called


def test_a_set_that_cannot_be_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = keep_surest(results(tmp_path, ("a", 0.99)), 0.02)

    def fail(*_: Any) -> bytes:
        raise ValueError("no room")

    monkeypatch.setattr(pseudo_labels, "contact_sheet", fail)
    with pytest.raises(ValueError, match="no room"):
        write_pseudo_set(tmp_path / "pseudo", "crops", kept, RECOGNISER, {})
    assert list((tmp_path / "pseudo").iterdir()) == []


def test_the_sheet_shows_the_least_sure_and_others_at_equal_distances(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = []
    monkeypatch.setattr(pseudo_labels, "SHOWN", 3)
    monkeypatch.setattr(pseudo_labels, "contact_sheet", lambda pictures, labels: shown.extend(labels) or b"")
    sheet_of(results(tmp_path, *((f"w{n}", 0.9 + n / 100) for n in range(5))), RECOGNISER)
    assert shown == ["w0 0.90", "w2 0.92", "w4 0.94"]
