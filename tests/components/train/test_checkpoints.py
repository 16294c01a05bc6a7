"""Where a run goes on, what is left out of that and said, and what lies in the store."""

import dataclasses
import json
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from components.train import mirror
from components.train.checkpoints import described, kept_parts, newest, place_in_store, step_of
from components.train.mirror import Mirror, forget
from tests.waiting import LIMIT_S
from tests.wordmill.training.tiny import DATA, MODEL, best_of
from tests.wordmill.training.tiny import TRAIN as PLAIN
from wordmill.recipe.sections import Data, Model, Train
from wordmill.store.storage import Store
from wordmill.training.state import RunProgress, State, best_path, clear, read_record, records, trim, undo, write_state

# Lists and mappings among the keys, as a record's JSON has them otherwise than a section.
TRAIN = dataclasses.replace(PLAIN, piece_epochs=(0.5,), piece_lrs=(1e-4,), freeze={"neck": 3})
SECTIONS = (DATA, MODEL, TRAIN)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror, "LOOK_EVERY_S", 0.02)
    monkeypatch.setattr(mirror, "RETRY_S", 0.02)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "run" / "checkpoints"
    path.mkdir(parents=True)
    return path


def write(folder: Path, step: int, best: int, ago_s: float = 0.0, processes: int = 2, code: str = "") -> Path:
    if not best_path(folder, best).exists():
        best_path(folder, best).write_bytes(f"best of {best}".encode())
    progress = RunProgress(step=step, best=best_of(best), attempts=({"step": 0, "code": code},) if code else ())
    state = State(tensors={"model/w": np.full(3, step, np.float32)}, progress=progress, processes=processes)
    line = {"step": step, "steps": 4000, "images": 1, "time": time.time() - ago_s, "metrics": {}}
    return write_state(folder, state, json.dumps(line).encode(), SECTIONS)


def mirrored(store: Store, folder: Path) -> list[str]:
    """Bring the store up to date and return what it has."""
    assert Mirror(store, folder.parent, "k").finish(LIMIT_S)
    return [key.removeprefix("checkpoints/k/") for key in store.keys("checkpoints/k/")]


def find(store: Store, folder: Path, afresh: bool = True, train: Train = TRAIN, model: Model = MODEL,
         data: Data = DATA) -> Path | None:  # fmt: skip
    return newest(store, "k", folder, (data, model, train), afresh)


def test_a_run_without_checkpoints_begins_and_nothing_is_said(
    store: Store, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert find(store, folder) is None
    assert step_of(None) == 0
    assert capsys.readouterr().out == ""


def test_the_store_has_the_newest_three_and_the_best_weights_that_they_name(store: Store, folder: Path) -> None:
    for step in (10, 20, 30):
        write(folder, step, best=10 if step < 30 else 30)
    first = mirrored(store, folder)
    assert first == ["best-00000010.safetensors", "best-00000030.safetensors", "metrics-00000010.jsonl",
                     "metrics-00000020.jsonl", "metrics-00000030.jsonl", "step-00000010.json",
                     "step-00000010.safetensors", "step-00000020.json", "step-00000020.safetensors",
                     "step-00000030.json", "step-00000030.safetensors"]  # fmt: skip
    shutil.rmtree(folder)  # on another machine
    found = find(store, folder)
    assert found == folder / "step-00000030.json"
    for step in (40, 50):
        write(folder, step, best=30)
    store.client.put_object(Bucket=store.bucket, Key="checkpoints/k/step-00000035.safetensors", Body=b"of a killed one")
    names = mirrored(store, folder)
    assert [name for name in names if name.endswith(".json")] == [f"step-000000{step}.json" for step in (30, 40, 50)]
    assert [name for name in names if name.startswith("best")] == ["best-00000030.safetensors"]
    assert len(names) == 3 * 3 + 1
    forget(store, "k")
    assert list(store.keys("checkpoints/")) == []


STRANGERS = ("before-lunch.safetensors", "step-best.json", "step-00000010.json.bak", "metrics-00000010.jsonl.txt",
             "step-7.json", "notes.part")  # fmt: skip


def test_other_files_among_checkpoints_are_left_alone_here_and_in_the_store(
    store: Store, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in STRANGERS:
        (folder / name).write_text("a person's")
        store.put_bytes(f"checkpoints/k/{name}", b"a person's", "text/plain")
    store.put_bytes("checkpoints/k/nonfinite/mine.npz", b"a person's", "text/plain")
    others = sorted([*STRANGERS, "nonfinite/mine.npz"])
    assert find(store, folder) is None  # where there is nothing else
    assert capsys.readouterr().out == ""
    for step in (10, 20, 30, 40):
        write(folder, step, best=10)
    assert set(others) < set(mirrored(store, folder))
    trim(folder)
    undo(folder, 30)
    assert find(store, folder) == folder / "step-00000040.json"  # of the store
    assert kept_parts(store, "k", folder) == 0
    assert {path.name for path in folder.iterdir()} > set(STRANGERS)
    forget(store, "k")
    assert [key.removeprefix("checkpoints/k/") for key in store.keys("checkpoints/")] == others
    assert [path.name for path in clear(folder)] == sorted(STRANGERS)


def test_runs_of_one_identity_that_live_at_once_touch_nothing_of_each_others(store: Store, tmp_path: Path) -> None:
    """Two machines: other code, or another number of processes, goes by another place below the same identity."""
    mine, theirs = place_in_store("r", "a" * 32, 2), place_in_store("r", "b" * 32, 2)
    assert (mine, place_in_store("r", "a" * 32, 4)) == (f"r/{'a' * 16}.2", f"r/{'a' * 16}.4")
    folders = {place: tmp_path / place.replace("/", "-") / "checkpoints" for place in (mine, theirs)}
    for place, folder in folders.items():
        folder.mkdir(parents=True)
        for step in (10, 20, 30, 40) if place == mine else (10, 20):
            write(folder, step, best=10, code=place[2:3] * 32)
        assert Mirror(store, folder.parent, place).finish(LIMIT_S)
    kept = {Path(key).name for key in store.keys(f"checkpoints/{theirs}/") if key.endswith(".json")}
    assert kept == {"step-00000010.json", "step-00000020.json"}
    forget(store, mine)  # which has ended
    shutil.rmtree(folders[theirs])
    assert newest(store, theirs, folders[theirs], SECTIONS, True) == folders[theirs] / "step-00000020.json"


def test_a_run_goes_on_from_its_own_codes_checkpoints_before_newer_ones_of_other_code(
    store: Store, folder: Path
) -> None:
    found = {}
    for code, processes, step in (("a", 2, 10), ("a", 4, 20), ("b", 2, 30)):
        made = folder.parent / f"{code}{processes}" / "checkpoints"
        made.mkdir(parents=True)
        write(made, step, best=10, code=code * 32)
        assert Mirror(store, made.parent, place_in_store("r", code * 32, processes)).finish(LIMIT_S)
        for path in folder.iterdir():
            path.unlink()
        found[step] = step_of(newest(store, place_in_store("r", "a" * 32, 2), folder, SECTIONS, True))
    assert list(found.values()) == [10, 20, 20]
    forget(store, place_in_store("r", "a" * 32, 2))
    forget(store, place_in_store("r", "a" * 32, 4))
    for path in folder.iterdir():
        path.unlink()
    # Other code's: whoever takes it says so.
    assert step_of(newest(store, place_in_store("r", "a" * 32, 2), folder, SECTIONS, True)) == 30


def test_what_is_stored_already_is_not_stored_again_and_what_has_changed_is(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def note(path: Path, key: str) -> None:
        uploaded.append(path.name)
        upload(path, key)

    uploaded: list[str] = []
    upload = store.upload
    write(folder, 10, best=10)
    mirrored(store, folder)
    monkeypatch.setattr(store, "upload", note)
    mirrored(store, folder)
    assert uploaded == []
    write(folder, 10, best=10, ago_s=7.0)
    mirrored(store, folder)
    assert uploaded == ["metrics-00000010.jsonl"]
    assert store.get_json("checkpoints/k/step-00000010.json") == read_record(folder / "step-00000010.json")


def test_a_damaged_checkpoint_is_left_out_for_the_one_before_and_told(
    store: Store, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for step in (10, 20, 30):
        write(folder, step, best=10)
    damaged = folder / "step-00000030.safetensors"
    data = bytearray(damaged.read_bytes())
    data[-1] ^= 1
    damaged.write_bytes(data)
    (folder / "metrics-00000020.jsonl").unlink()
    assert find(store, folder) == folder / "step-00000010.json"
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(f"warning: this checkpoint is left out, training goes on from the one before: {damaged}: ")
    assert f"{len(data)} bytes with sha256 " in first
    assert ", expected " in first
    assert f"{folder / 'metrics-00000020.jsonl'}: it is missing" in second
    assert [record.name for record in records(folder)] == ["step-00000010.json"]


def test_what_is_damaged_here_is_whole_in_the_store(store: Store, folder: Path) -> None:
    write(folder, 10, best=10)
    mirrored(store, folder)
    whole = (folder / "step-00000010.safetensors").read_bytes()
    (folder / "step-00000010.safetensors").write_bytes(b"?")
    assert find(store, folder, afresh=False) == folder / "step-00000010.json"
    assert (folder / "step-00000010.safetensors").read_bytes() == whole


def test_what_is_damaged_in_the_store_is_left_out_too_and_goes(
    store: Store, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for step in (10, 20):
        write(folder, step, best=10)
    mirrored(store, folder)
    shutil.rmtree(folder)
    store.client.put_object(Bucket=store.bucket, Key="checkpoints/k/step-00000020.safetensors", Body=b"?")
    assert find(store, folder) == folder / "step-00000010.json"
    assert "step-00000020.safetensors: 1 bytes with sha256 " in capsys.readouterr().out
    names = mirrored(store, folder)
    assert not [name for name in names if "20" in name]


def test_where_none_is_whole_training_begins_and_that_is_said(
    store: Store, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(folder, 10, best=10).write_text("{")
    assert find(store, folder) is None
    assert "warning: no checkpoint is whole: training begins from the start" in capsys.readouterr().out


def test_a_store_that_is_away_hinders_no_attempt_that_goes_on_here(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(_: str) -> None:
        raise RuntimeError("away")

    monkeypatch.setattr(store, "keys", away)
    assert find(store, folder, afresh=False) is None
    write(folder, 10, best=10)
    assert find(store, folder, afresh=False) == folder / "step-00000010.json"
    with pytest.raises(RuntimeError, match="away"):  # or what is there would be done again
        find(store, folder)


def test_a_checkpoint_of_another_training_is_refused(store: Store, folder: Path) -> None:
    record = write(folder, 10, best=10)
    message = rf"^{record}: recipe: train.lr: found 0.002, expected 0.5: it is of another training$"
    with pytest.raises(ValueError, match=message):
        find(store, folder, train=dataclasses.replace(TRAIN, lr=0.5))
    with pytest.raises(ValueError, match=r"recipe: model.hidden: found 16, expected 17"):
        find(store, folder, model=dataclasses.replace(MODEL, hidden=17))
    with pytest.raises(ValueError, match=r"recipe: data.width: found 100, expected 96"):
        find(store, folder, data=dataclasses.replace(DATA, width=96))
    free = dataclasses.replace(TRAIN, checkpoint_minutes=1.0, step_timeout_minutes=1.0)
    assert find(store, folder, train=free, data=dataclasses.replace(DATA, train=("another name",))) == record


@pytest.mark.parametrize(
    ("ago_s", "processes", "told"),
    [
        (1.5, 1, "1 second ago, made with 1 process"),
        (250.0, 2, "4 minutes ago, made with 2 processes"),
        (3700.0, 8, "1 hour ago, made with 8 processes"),
        (3 * 86400.0 + 5, 2, "3 days ago, made with 2 processes"),
    ],
)
def test_where_it_goes_on_is_said_in_words(ago_s: float, processes: int, told: str, folder: Path) -> None:
    record = write(folder, 1200, best=10, ago_s=ago_s, processes=processes)
    assert described(record) == f"step 1,200 of 4,000 (checkpoint of {told})"


def test_a_store_that_comes_back_gets_what_it_has_missed(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def away(*_: object) -> None:
        raise RuntimeError("cannot write s3://bucket/k")

    kept = Mirror(store, folder.parent, "k")
    with monkeypatch.context() as gone:
        gone.setattr(store, "upload", away)
        for step in (10, 20):
            write(folder, step, best=10)
        while kept.away_since is None:
            time.sleep(0.01)
        kept.check()  # not for long yet
        monkeypatch.setattr(mirror, "AWAY_S", 0.05)
        time.sleep(0.1)
        with pytest.raises(mirror.StoreAwayError, match="cannot write s3://bucket/k"):
            kept.check()
    assert kept.finish(LIMIT_S)
    kept.check()
    assert {"checkpoints/k/step-00000010.json", "checkpoints/k/step-00000020.json"} <= set(store.keys("checkpoints/k/"))
    printed = capsys.readouterr().out
    assert printed.count("until the store takes them: cannot write s3://bucket/k") == 1
    assert printed.count("train: the store has all checkpoints again") == 1


def test_a_checkpoint_that_is_replaced_while_it_is_stored_is_no_trouble(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    upload = store.upload

    def slow(path: Path, key: str) -> None:
        if "0010" in path.name:
            for gone in folder.glob("*0010*"):
                gone.unlink(missing_ok=True)
        upload(path, key)

    monkeypatch.setattr(store, "upload", slow)
    write(folder, 10, best=10)
    write(folder, 20, best=20)
    names = mirrored(store, folder)
    assert [name for name in names if name.endswith(".json")] == ["step-00000020.json"]
    assert "warning" not in capsys.readouterr().out
