"""What nothing names is listed, and goes a day later at the earliest; what anybody works with stays."""

import json
from pathlib import Path

import pytest

from wordmill.store import artifacts, sweeping
from wordmill.store.artifacts import Manifest, find_manifest, to_document
from wordmill.store.runs import judged_key
from wordmill.store.storage import SWEPT_LIST, Object, Store, object_key
from wordmill.store.sweeping import Swept, sweep

DAY_S = 86400.0


class Night:
    """A store whose clock is moved on: what lies there gets older."""

    def __init__(self, store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.store, self.folder, self.passed_s = store, folder, 0.0
        self.written: dict[str, float] = {}  # by how much the clock had been moved on when a key was written
        stored, put_bytes, upload = store.stored, store.put_bytes, store.upload

        def moved(prefix: str) -> dict[str, tuple[int, float]]:
            return {key: (size, at + self.written.get(key, 0.0)) for key, (size, at) in stored(prefix).items()}

        def put(key: str, body: bytes, kind: str) -> None:
            put_bytes(key, body, kind)
            self.written[key] = self.passed_s

        def uploaded(path: Path, key: str) -> None:
            upload(path, key)
            self.written[key] = self.passed_s

        for name, call in (("stored", moved), ("put_bytes", put), ("upload", uploaded)):
            monkeypatch.setattr(store, name, call)

    def put(self, name: str, content: bytes) -> Object:
        path = self.folder / name
        path.write_bytes(content)
        return self.store.put_file(path, name)

    def manifest(self, stage: str, key: str, *objects: Object, **facts: str) -> Manifest:
        made = Manifest(stage=stage, name="x", key=key * 32, inputs={}, git_commit="", objects=objects, facts=facts)
        self.store.put_json(f"manifests/{made.reference}.json", to_document(made))
        return made

    def sweep(self, *registered: str, delete: bool = False) -> Swept:
        return sweep(self.store, 30, registered, delete)


@pytest.fixture
def night(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Night:
    return Night(store, tmp_path, monkeypatch)


def test_what_recent_or_registered_work_names_stays_and_the_rest_goes_a_day_after_it_was_listed(night: Night) -> None:
    names = ("old", "champion", "data", "read", "start", "new", "unnamed")
    objects = {name: night.put(name, name.encode() * 3) for name in names}
    night.manifest("train", "a", objects["old"])
    data = night.manifest("shard", "d", objects["data"])
    champion = night.manifest("train", "c", objects["champion"], dataset=data.reference)
    measured = night.manifest("evaluate", "e", objects["read"])
    night.store.put_json(judged_key(champion.reference), {"evaluations": [measured.reference]})
    night.passed_s += 31 * DAY_S
    night.manifest("train", "b", objects["new"])
    night.store.put_json("jobs/k/job.json", {"start": {"sha256": objects["start"].sha256}})
    gone = {object_key(objects[name]): 3 * len(name) for name in ("old", "unnamed")}
    first = night.sweep("5.1", champion.reference, delete=True)
    assert (first.unnamed, first.ripe, first.deleted) == (gone, [], 0)
    night.passed_s += 1.1 * DAY_S
    assert night.sweep(champion.reference) == Swept(unnamed=gone, ripe=sorted(gone), deleted=0)
    assert night.sweep(champion.reference, delete=True).deleted == 2
    left = set(night.store.keys("objects/"))
    assert left == {object_key(objects[name]) for name in ("champion", "data", "read", "start", "new")}
    assert night.sweep(champion.reference) == Swept(unnamed={}, ripe=[], deleted=0)


def test_what_is_stored_again_while_it_is_listed_is_young_again(night: Night) -> None:
    entry = night.put("a", b"content")
    night.passed_s += 40 * DAY_S
    assert object_key(entry) in night.sweep().unnamed
    assert object_key(entry) in (night.store.get_json(SWEPT_LIST) or {})
    night.passed_s += 1.1 * DAY_S
    night.put("b", b"content")  # by a run whose manifest comes later
    assert night.sweep(delete=True) == Swept(unnamed={}, ripe=[], deleted=0)
    assert night.store.has(entry)


def test_a_run_that_finds_old_work_keeps_it(night: Night, monkeypatch: pytest.MonkeyPatch) -> None:
    made = night.manifest("shard", "a", night.put("a", b"content"))
    night.passed_s += 40 * DAY_S
    monkeypatch.setattr(artifacts, "RENEW_S", -1.0)
    assert find_manifest(night.store, made.reference) == made
    assert night.sweep().unnamed == {}


def test_what_is_named_between_the_look_and_the_deletion_stays(night: Night, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = night.put("a", b"content")
    night.passed_s += 40 * DAY_S
    night.sweep()
    night.passed_s += 1.1 * DAY_S
    remove = sweeping.remove

    def late(store: Store, times: dict[str, float], now: float) -> int:
        assert list(times) == [object_key(entry)]
        night.manifest("train", "b", entry)
        return remove(store, times, now)

    monkeypatch.setattr(sweeping, "remove", late)
    assert night.sweep(delete=True).deleted == 0
    assert night.store.has(entry)


def test_the_list_is_a_small_document_that_people_can_read(night: Night) -> None:
    entry = night.put("a", b"content")
    night.passed_s += 40 * DAY_S
    night.sweep()
    assert list(json.loads(night.store.get_bytes(SWEPT_LIST) or b"")) == [object_key(entry)]


def test_one_look_lists_the_objects_once_and_the_list_is_read_once_for_many_objects(
    night: Night, monkeypatch: pytest.MonkeyPatch
) -> None:
    night.put("a", b"content")
    asked = list[str]()
    stored, get_json = night.store.stored, night.store.get_json
    monkeypatch.setattr(night.store, "stored", lambda prefix: asked.append(prefix) or stored(prefix))  # type: ignore[func-returns-value]
    monkeypatch.setattr(night.store, "get_json", lambda key: asked.append(key) or get_json(key))  # type: ignore[func-returns-value]
    night.sweep(delete=True)
    assert asked.count("objects/") == 1
    asked.clear()
    for name in ("b", "c"):
        night.put(name, b"content")
    assert asked == [SWEPT_LIST]
    monkeypatch.setattr("wordmill.store.storage.LIST_S", -1.0)
    night.put("d", b"content")
    assert asked == [SWEPT_LIST, SWEPT_LIST]
