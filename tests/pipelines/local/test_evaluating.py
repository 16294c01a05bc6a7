from pathlib import Path

import cv2
import lmdb
import numpy as np
import pytest

from pipelines.cli import command_line
from pipelines.local import services
from pipelines.local.evaluating import data_set, named_model
from tests.mlflow_server import mlflow_uri  # noqa: F401 (a fixture)
from wordmill.models.pretrained import WEIGHTS
from wordmill.recipe.catalogue import Entry


def entry(*words: str) -> tuple[str, Entry]:
    return data_set(command_line().parse_args(["evaluate", *words]))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two pictures and their labels, in a folder whose name no data set may have."""
    place = tmp_path / "my words"
    place.mkdir()
    for name in ("1.png", "2.png"):
        cv2.imwrite(str(place / name), np.zeros((8, 16), np.uint8))
    (place / "gt.txt").write_text('1.png, "One"\n2.png, "Two"\n', encoding="utf-8")
    return place


def test_a_folder_is_a_data_set_of_its_name_with_as_many_samples_as_it_has(folder: Path) -> None:
    name, found = entry(str(folder), "--label-format", "icdar")
    assert (name, found.reader, found.labels, found.samples) == ("my_words", "label_file", "gt.txt", 2)
    assert found.source == folder.as_uri()


def test_which_file_has_the_labels_is_asked_where_there_are_several_or_none(folder: Path) -> None:
    (folder / "._gt.txt").touch()  # which macOS has left
    assert entry(str(folder))[1].labels == "gt.txt"
    (folder / "more.txt").touch()
    with pytest.raises(ValueError, match="my words: found gt.txt, more.txt: name the file of labels"):
        entry(str(folder))
    for named in ("gt.txt", str(folder / "gt.txt")):
        assert entry(str(folder), "--labels", named)[1].labels == "gt.txt"
    for path in folder.glob("*.txt"):
        path.unlink()
    with pytest.raises(ValueError, match=r"found no \.txt file"):
        entry(str(folder))


def test_an_lmdb_may_be_one_file(tmp_path: Path) -> None:
    with (
        lmdb.open(str(tmp_path / "words.lmdb"), subdir=False, map_size=1 << 20) as made,
        made.begin(write=True) as kept,
    ):
        kept.put(b"num-samples", b"3")
    found = entry(str(tmp_path))[1]
    assert (found.reader, found.samples) == ("lmdb", 3)


def test_a_name_is_the_catalogues(tmp_path: Path) -> None:
    assert entry("SVT", "--from", f"SVT={tmp_path}")[1].source == tmp_path.as_uri()
    with pytest.raises(ValueError, match="unknown data set 'SVTT': did you mean 'SVT'"):
        entry("SVTT")


def test_what_looks_like_a_path_is_refused_as_one(folder: Path) -> None:
    for path in ("/nonexistent", "words/nonexistent"):
        with pytest.raises(ValueError, match=f"^{path}: no such folder, expected a folder, an LMDB or "):
            entry(path)
    with pytest.raises(ValueError, match=r"gt\.txt: a file, expected a folder, an LMDB or "):
        entry(str(folder / "gt.txt"))


def test_a_model_is_a_file_or_a_folder_that_is_there(tmp_path: Path) -> None:
    assert named_model(str(tmp_path), "quickstart") == tmp_path
    for path in ("model.onnx", "/nonexistent", "./model", "~/model", "runs/a/model"):
        with pytest.raises(ValueError, match=f"^{path}: no such file or folder$"):
            named_model(path, "quickstart")


def test_what_comes_with_the_project_stands_in_for_a_champion_that_is_not_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(services, "STATE", tmp_path)  # no server has ever been started: none is, to look
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert named_model("champion", "quickstart") == WEIGHTS
    assert capsys.readouterr().out.startswith("recipe 'quickstart' has no champion yet: small, which comes with the")
    assert named_model("small", "crnn_r34") == WEIGHTS
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("mlflow_uri")
def test_a_registry_without_a_champion_is_asked_first(capsys: pytest.CaptureFixture[str]) -> None:
    assert named_model("champion", "small") == WEIGHTS
    assert "has no champion yet" in capsys.readouterr().out
    with pytest.raises(ValueError, match="has no model 'wordmill-crnn_r34' with the alias 'champion'"):
        named_model("champion", "crnn_r34")
