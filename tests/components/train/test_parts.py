"""The parts of a batch: the recipe's, a half-done run's, or as many as memory asks for."""

import dataclasses
import json
import uuid

import pytest

from components.train.checkpoints import prefix_of
from components.train.memory import Machine
from components.train.parts import in_parts
from tests.wordmill.training.tiny import DATA, MODEL, TRAIN
from wordmill.recipe.memory import MIB, NEED, SHARE
from wordmill.store.storage import Store

PROCESS_MIB, PIXEL_KIB = NEED["pytorch"]["crnn/compact"]
PICTURE = 32 * 100 * PIXEL_KIB * 1024


def has_room_for(pictures: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the machine have room for one process with so many pictures."""
    there = (PROCESS_MIB * MIB + pictures * PICTURE) / SHARE
    monkeypatch.setattr(Machine, "memory_bytes", lambda machine: round(there) + 8)


def parts(
    store: Store, accumulation: int = 0, device: str = "cpu", several_nodes: bool = False, key: str = "none"
) -> int:
    train = dataclasses.replace(TRAIN, accumulation=accumulation)  # 16 pictures a batch
    return in_parts(store, key, (DATA, MODEL, train), device, 1, several_nodes).accumulation


@pytest.mark.parametrize(("room", "expected"), [(16, 1), (15, 2), (8, 2), (4, 4), (3, 8), (1, 8)])
def test_memory_asks_for_parts(
    room: int, expected: int, store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    has_room_for(room, monkeypatch)
    assert parts(store) == expected
    said = capsys.readouterr().out
    assert (f"goes in {expected} parts of {16 // expected} pictures" in said) == (expected > 1)


def test_a_recipe_fixes_them(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    has_room_for(1, monkeypatch)
    assert parts(store, accumulation=2) == 2


def test_where_need_or_memory_is_not_known_a_batch_is_one_part(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    has_room_for(1, monkeypatch)
    assert (parts(store, device="cuda"), parts(store, several_nodes=True)) == (1, 1)


def test_a_half_done_run_keeps_its_own(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    has_room_for(16, monkeypatch)
    key = uuid.uuid4().hex

    def record(accumulation: int) -> dict[str, object]:
        recipe = {"data": {}, "model": {}, "train": {"accumulation": accumulation}}
        return {"processes": 1, "git_commit": "", "recipe": recipe, "progress": {}, "files": []}

    store.put_json(f"{prefix_of(key)}step-00000002.json", record(8))
    store.put_json(f"{prefix_of(key)}step-00000004.json", record(4))
    assert parts(store, key=key) == 4
    folder = store.cache / "training" / key / "checkpoints"
    folder.mkdir(parents=True)
    (folder / "step-00000006.json").write_text(json.dumps(record(2)))
    assert parts(store, key=key) == 2
    (folder / "step-00000008.json").write_text("{")  # cut short
    assert parts(store, key=key) == 2
