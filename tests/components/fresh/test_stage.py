import json
from pathlib import Path

import pytest

from components.fresh.stage import changes, run
from wordmill.recipe.catalogue import Entry, to_text
from wordmill.store.artifacts import Manifest, read_manifest
from wordmill.store.nights import keep_night
from wordmill.store.storage import Store

TEXTS = {name: json.dumps({"of": name}) for name in ("data", "model", "evaluation", "gate", "export")}
TEXTS |= {"train": json.dumps({"framework": "pytorch"})}


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
    changed = json.dumps({"framework": "pytorch", "lr": 1.0})
    reasons = look(tmp_path, words, train=changed)[1].facts["reasons"]
    assert reasons == ["data set words has changed", "section train of the recipe has changed"]


def test_the_order_of_keys_is_no_change(store: Store, tmp_path: Path, words: Path) -> None:
    one, other = '{"framework": "pytorch", "lr": 1}', '{"lr": 1, "framework": "pytorch"}'
    finish(store, look(tmp_path, words, train=one)[1])
    assert look(tmp_path, words, train=other)[0] == "unchanged"


def test_new_and_gone_parts_are_named() -> None:
    assert changes({"a": "1", "b": "1"}, {"b": "2", "c": "1"}) == ["b has changed", "c is new", "a is gone"]


@pytest.mark.usefixtures("store")
def test_data_that_is_not_there_fails_the_night(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        look(tmp_path, tmp_path / "nowhere")
    assert "no such file or folder" in capsys.readouterr().out
