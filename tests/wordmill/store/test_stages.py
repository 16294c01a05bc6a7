import json
import subprocess
import sys
from pathlib import Path

import pytest

from wordmill.store import stages
from wordmill.store.artifacts import Manifest, from_document, read_manifest
from wordmill.store.keys import Ingredients
from wordmill.store.stages import (
    OTHER_CODE,
    StageResult,
    StoppedError,
    code_changes,
    find_or_make,
    main,
    run_stage,
    work_folder,
)
from wordmill.store.storage import Store

CALLS: list[int] = []


def make(folder: Path) -> StageResult:
    CALLS.append(1)
    (folder / "x").write_bytes(b"made by the stages test")
    return StageResult(files={"x": folder / "x"}, facts={"n": 3}, metrics={"m": 0.5})


@pytest.fixture(autouse=True)
def _no_calls() -> None:
    CALLS.clear()


def test_finished_work_is_found_by_its_inputs(store: Store) -> None:
    first, found = find_or_make(store, "shard", "words", {"test": "find"}, make)
    again, found_again = find_or_make(store, "shard", "words", {"test": "find"}, make)
    assert (found, found_again, len(CALLS)) == (False, True, 1)
    assert again == first
    assert (first.facts, first.metrics, first.object("x").bytes) == ({"n": 3}, {"m": 0.5}, 23)
    find_or_make(store, "shard", "words", {"test": "another"}, make)
    assert len(CALLS) == 2


def test_no_name_of_an_input_takes_the_place_of_what_the_key_has_itself(store: Store) -> None:
    first, _ = find_or_make(store, "shard", "words", {"a": 1}, make)
    for name, value in {"stage": "fetch", "name": "others", "code": "of another"}.items():
        one, found = find_or_make(store, "shard", "words", {"a": 1, name: value}, make)
        assert (found, one.key != first.key) == (False, True)
    # What would be the same work, were inputs and the rest of a key one mapping.
    same, found = find_or_make(store, "shard", "others", {"a": 1, "name": "words"}, make)
    assert not found
    assert same.key != first.key


def test_work_of_other_code_is_not_found_unless_it_is_asked_for(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(OTHER_CODE, raising=False)
    old, new = (Ingredients(data=(f"requirements/{name}.txt",)) for name in ("torch", "mindspore"))
    first, _ = find_or_make(store, "train", "crnn", {"test": "other"}, make, old)
    assert (first.made_by, first.reused) == ((old.digest(),), {})
    monkeypatch.setenv(OTHER_CODE, "reuse")
    taken, found = find_or_make(store, "train", "crnn", {"test": "other"}, make, new)
    told = f"reused: made by code {old.digest()}, this code is {new.digest()}"
    assert (found, taken.reference, taken.reused) == (True, first.reference, {"train crnn": told})
    assert told in capsys.readouterr().out
    assert find_or_make(store, "train", "crnn", {"test": "other"}, make, old)[0].reused == {}
    monkeypatch.setenv(OTHER_CODE, "afresh")
    second, found = find_or_make(store, "train", "crnn", {"test": "other"}, make, new)
    assert (found, second.key != first.key, second.reused) == (False, True, {})
    assert (
        code_changes(store, old.digest(), new) == "what differs is requirements/mindspore.txt, requirements/torch.txt"
    )
    assert code_changes(store, "0" * 32, new) == "what differs is not known"


def test_work_whose_maker_was_killed_before_other_code_could_find_it_is_found_by_it_once_it_was_found_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = (Ingredients(data=(f"requirements/{name}.txt",)) for name in ("torch", "mindspore"))
    first, _ = find_or_make(store, "train", "crnn", {"test": "killed"}, make, old)
    (latest,) = store.keys("made/train/")
    store.delete(latest)  # which a killed maker had not come to
    assert find_or_make(store, "train", "crnn", {"test": "killed"}, make, old)[1]
    assert store.get_json(latest) == {"manifest": first.reference}
    monkeypatch.setenv(OTHER_CODE, "reuse")
    assert find_or_make(store, "train", "crnn", {"test": "killed"}, make, new)[0].reference == first.reference


def test_work_that_holds_parts_of_other_code_says_so_and_is_not_taken_for_pure(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mixed(folder: Path) -> StageResult:
        return StageResult(files={}, facts={}, made_by=("x" * 32, code.digest()))

    code = Ingredients(data=("requirements/torch.txt",))
    made, _ = find_or_make(store, "train", "crnn", {"test": "mixed"}, mixed, code)
    told = {"train crnn": f"reused: made by code {'x' * 32}, {code.digest()}, this code is {code.digest()}"}
    assert (made.made_by, made.reused) == (("x" * 32, code.digest()), told)
    assert from_document(store.get_json(f"manifests/{made.reference}.json"), "") == made
    monkeypatch.setenv(OTHER_CODE, "reuse")
    again, found = find_or_make(store, "train", "crnn", {"test": "mixed"}, mixed, code)
    assert (found, again) == (True, made)
    monkeypatch.delenv(OTHER_CODE)
    pure, found = find_or_make(store, "train", "crnn", {"test": "mixed"}, make, code)
    assert (found, pure.key != made.key, pure.reused) == (False, True, {})


def test_work_that_fails_is_not_found_and_leaves_no_folder(store: Store) -> None:
    def fail(folder: Path) -> StageResult:
        (folder / "half").touch()
        raise ValueError("bad input")

    with pytest.raises(ValueError, match="bad input"):
        find_or_make(store, "shard", "words", {"test": "fails"}, fail)
    assert list((store.cache / "work").iterdir()) == []
    _, found = find_or_make(store, "shard", "words", {"test": "fails"}, make)
    assert not found


def test_a_stage_hands_on_its_manifest_and_records_itself(store: Store, tmp_path: Path) -> None:
    def work(inner: Store) -> tuple[Manifest, bool]:
        return find_or_make(inner, "shard", "words", {"test": "run"}, make)

    reference = run_stage("shard", "words", "tag-1", str(tmp_path / "out"), work)
    assert read_manifest(tmp_path / "out").reference == reference
    record = store.get_json("runs/tag-1/stages/shard.words.json")
    assert (record["ok"], record["found"], record["manifest"]) == (True, False, reference)
    assert record["seconds"] >= 0


@pytest.mark.parametrize("error", [ValueError("x.yaml: bad key"), RuntimeError("no space"), KeyError("bug")])
def test_a_failure_is_one_line_a_file_and_a_record(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    def work(inner: Store) -> tuple[Manifest, bool]:
        raise error

    with pytest.raises(SystemExit) as end:
        run_stage("shard", "words", "tag-2", str(tmp_path / "out"), work)
    assert end.value.code == 1
    assert f"error: shard words: {error if not isinstance(error, KeyError) else 'KeyError'}" in capsys.readouterr().out
    assert json.loads((tmp_path / "error.json").read_text())["ok"] is False
    assert store.get_json("runs/tag-2/stages/shard.words.json")["ok"] is False
    assert not (tmp_path / "out").exists()


def test_a_failure_leaves_its_sentence_where_kubernetes_shows_it(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(inner: Store) -> tuple[Manifest, bool]:
        raise ValueError("x.yaml: bad key\n" + "é" * 2000)

    path = tmp_path / "termination-log"
    monkeypatch.setattr(stages, "TERMINATION", path)
    for there in (False, True):
        if there:
            path.touch()  # as the kubelet does before a container starts
        with pytest.raises(SystemExit):
            run_stage("shard", "words", "tag-2", str(tmp_path / "out"), work)
        assert path.exists() == there
    assert path.read_text(encoding="utf-8", errors="ignore").startswith("shard words: x.yaml: bad key\néé")
    assert path.stat().st_size == 2048


def test_work_that_was_stopped_asks_to_be_run_again(store: Store, tmp_path: Path) -> None:
    def work(inner: Store) -> tuple[Manifest, bool]:
        raise StoppedError("stopped after step 3")

    with pytest.raises(SystemExit) as end:
        run_stage("train", "crnn", "tag-2", str(tmp_path / "out"), work)
    assert end.value.code == 75
    assert json.loads((tmp_path / "error.json").read_text())["error"] == "stopped after step 3"


def test_a_failure_without_storage_is_still_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("WORDMILL_BUCKET", raising=False)
    with pytest.raises(SystemExit):
        run_stage("shard", "words", "tag-3", str(tmp_path / "out"), lambda store: pytest.fail("not reached"))
    assert "WORDMILL_BUCKET is not set" in capsys.readouterr().out


def stage(*, name: str, count: int) -> str:
    """Do something."""
    return f"{name} {count + 1}"


def test_a_stage_is_a_program(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["stage", "--name", "a", "--count", "2"])
    main(stage)
    assert capsys.readouterr().out == "a 3\n"
    monkeypatch.setattr("sys.argv", ["stage", "--help"])
    with pytest.raises(SystemExit):
        main(stage)
    assert "Do something." in capsys.readouterr().out


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_has_is_not(store: Store) -> None:
    code = (
        "import sys, time; from pathlib import Path; from wordmill.store.stages import work_folder\n"
        "from types import SimpleNamespace\n"
        "with work_folder(SimpleNamespace(cache=Path(sys.argv[1])), 'shard-x') as folder:\n"
        "    print(folder, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(store.cache)], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        left = Path(owner.stdout.readline().strip())
        with work_folder(store, "shard-x") as folder:
            assert left.is_dir()
            assert folder != left
        owner.kill()
        owner.wait()
    with work_folder(store, "shard-y") as folder:
        assert [path.name for path in (store.cache / "work").iterdir() if path.is_dir()] == [folder.name]
    assert not any((store.cache / "work").iterdir())


def test_what_decides_is_stored_once_for_the_pieces_of_a_set(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    put: list[str] = []
    put_json = store.put_json
    monkeypatch.setattr(store, "put_json", lambda key, document: [put.append(key), put_json(key, document)])
    ingredients = Ingredients(distributions=("numpy",))
    for piece in range(3):
        find_or_make(store, "shard", "words", {"test": "once", "piece": piece}, make, ingredients)
    assert [key for key in put if key.startswith("codes/")] == [f"codes/{ingredients.digest()}.json"]
    assert store.get_json(f"codes/{ingredients.digest()}.json") == ingredients.found()
    assert sum(key.startswith("manifests/") for key in put) == 3
