import dataclasses
import json
from pathlib import Path

import pytest

from components import keys
from components.fresh import stage
from components.fresh.stage import changes, run
from tests.wordmill.training.tiny import DATA, MODEL, TRAIN
from wordmill.recipe.catalogue import Entry, to_text
from wordmill.recipe.parsing import to_json
from wordmill.recipe.sections import Evaluation, Export, Gate
from wordmill.store.artifacts import Manifest, read_manifest
from wordmill.store.keys import Ingredients
from wordmill.store.runs import keep_night, records_prefix
from wordmill.store.storage import Store

SECTIONS = {"data": DATA, "model": MODEL, "train": TRAIN, "evaluation": Evaluation(protocol="mindocr"),
            "gate": Gate(floor=0.0, floors={}), "export": Export(formats=("onnx",))}  # fmt: skip
TEXTS = {name: to_json(section) for name, section in SECTIONS.items()}


@pytest.fixture
def words(tmp_path: Path) -> Path:
    folder = tmp_path / "words"
    folder.mkdir()
    (folder / "labels.txt").write_text("a.png a", encoding="utf-8")
    return folder


def look(folder: Path, words: Path, **sections: str) -> tuple[str, Manifest]:
    """Run the stage and return its verdict and its manifest."""
    entry = Entry(source=f"file://{words}", reader="label_file", samples=1, licence="CC0", labels="labels.txt")
    output = str(folder / "checked")
    verdict = run(recipe="tiny", sources=to_text({"words": entry}), run_tag="r1", output=output, **TEXTS | sections)
    return verdict, read_manifest(output)


def finish(store: Store, checked: Manifest) -> None:
    keep_night(store, "tiny", "last", checked.facts["parts"])


def test_the_first_night_trains(store: Store, tmp_path: Path, words: Path) -> None:
    store.client.delete_object(Bucket=store.bucket, Key="nights/tiny.json")
    verdict, checked = look(tmp_path, words)
    assert verdict == "changed"
    assert checked.facts["reasons"] == ["no night has finished yet"]


def test_a_continued_night_forgets_what_the_one_before_recorded(store: Store, tmp_path: Path, words: Path) -> None:
    store.put_json(f"{records_prefix('r1')}train.crnn.json", {"ok": False})
    look(tmp_path, words)
    assert list(store.keys(records_prefix("r1"))) == [f"{records_prefix('r1')}fresh.tiny.json"]


def test_the_same_data_code_and_recipe_are_nothing_new(
    store: Store, tmp_path: Path, words: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finish(store, look(tmp_path, words)[1])
    verdict, checked = look(tmp_path, words)
    assert verdict == "unchanged"
    assert (checked.facts["reasons"], checked.facts["since"]) == ([], "last")
    assert "fresh tiny: nothing new since run last" in capsys.readouterr().out


def test_changed_data_and_a_changed_recipe_are_told_apart(store: Store, tmp_path: Path, words: Path) -> None:
    finish(store, look(tmp_path, words)[1])
    (words / "labels.txt").write_text("a.png b", encoding="utf-8")
    assert look(tmp_path, words)[1].facts["reasons"] == ["data set words has changed"]
    changed = to_json(dataclasses.replace(TRAIN, lr=1.0))
    reasons = look(tmp_path, words, train=changed)[1].facts["reasons"]
    assert reasons == ["data set words has changed", "section train of the recipe has changed"]


def test_the_order_of_keys_is_no_change(store: Store, tmp_path: Path, words: Path) -> None:
    one = TEXTS["train"]
    other = json.dumps(dict(reversed(json.loads(one).items())))
    assert other != one
    finish(store, look(tmp_path, words, train=one)[1])
    assert look(tmp_path, words, train=other)[0] == "unchanged"


def test_other_code_and_other_versions_are_something_new(
    store: Store, tmp_path: Path, words: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish(store, look(tmp_path, words)[1])
    with monkeypatch.context() as patch:
        patch.setattr(keys, "of_evaluate", lambda *of: Ingredients())
        patch.setattr(keys, "of_smoke", lambda kind: Ingredients())
        reasons = look(tmp_path, words)[1].facts["reasons"]
    assert reasons == ["code of evaluate has changed", "code of smoke has changed"]
    # As the images of stages have it: this one has no framework, the file says which one others have.
    house = tmp_path / "house"
    (house / "requirements").mkdir(parents=True)
    (house / "requirements" / "constraints.txt").write_text("torch==2.14.0\n")
    monkeypatch.setattr(stage, "ROOT", house)
    assert look(tmp_path, words)[1].facts["reasons"] == ["list of versions has changed"]


def test_new_and_gone_parts_are_named() -> None:
    assert changes({"a": "1", "b": "1"}, {"b": "2", "c": "1"}) == ["b has changed", "c is new", "a is gone"]


@pytest.mark.usefixtures("store")
def test_data_that_is_not_there_fails_the_night(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        look(tmp_path, tmp_path / "nowhere")
    assert "no such file or folder" in capsys.readouterr().out
