import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.bad_wire import FATES, bad_wire, drawn
from tests.conftest import S3
from wordmill.store import wire
from wordmill.store.storage import PART_BYTES, Store


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "PAUSE_S", 0.001)


def there_and_back(store: Store, folder: Path) -> None:
    """Store a document and a file, list them, and read both."""
    store.make_bucket()
    (folder / "file").write_bytes(bytes(range(256)) * 100)
    entry = store.put_file(folder / "file", "file")
    store.put_json("documents/one.json", {"number": 1})
    assert list(store.keys("documents/")) == ["documents/one.json"]
    assert store.get_json("documents/one.json") == {"number": 1}
    assert store.get_json("documents/two.json") is None
    assert store.read_range(entry, 250, 10) == bytes([250, 251, 252, 253, 254, 255, 0, 1, 2, 3])
    assert Store(store.bucket, folder / "another cache").fetch(entry).read_bytes() == bytes(range(256)) * 100


@pytest.mark.parametrize("fate", [fate for fate in FATES if fate != "delayed"])
def test_every_request_that_goes_wrong_once_is_made_good(
    fate: str, store: Store, s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    every_second = (fate if number % 2 else "" for number in range(1000))
    with bad_wire(s3.url, every_second) as wire_:
        monkeypatch.setenv("AWS_ENDPOINT_URL", wire_.url)
        there_and_back(Store(store.bucket, tmp_path / "cache"), tmp_path)
        assert wire_.met[fate] > 3


def test_a_large_file_whose_last_answer_is_lost_is_stored(
    store: Store, s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "large").write_bytes(b"x" * (PART_BYTES + 1))
    # head of the object, begin, two parts, complete
    with bad_wire(s3.url, iter(["", "", "", "", "lost answer"])) as wire_:
        monkeypatch.setenv("AWS_ENDPOINT_URL", wire_.url)
        entry = Store(store.bucket, tmp_path / "cache").put_file(tmp_path / "large", "large")
        assert wire_.met["lost answer"] == 1
    assert store.has(entry)


@pytest.mark.parametrize("call", [
    lambda store: store.get_json("documents/one.json"), lambda store: list(store.keys("documents/")),
    lambda store: store.put_json("documents/one.json", {}),
])  # fmt: skip
def test_an_answer_that_is_never_whole_is_an_error(
    call: Callable[[Store], object], store: Store, s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put_json("documents/one.json", {"number": 1})
    with bad_wire(s3.url, iter(["cut off"] * 1000)) as wire_:
        monkeypatch.setenv("AWS_ENDPOINT_URL", wire_.url)
        with pytest.raises(RuntimeError, match=r"^cannot (read|list|write) s3://.*documents/.* at http"):
            call(Store(store.bucket, tmp_path / "cache"))
        assert wire_.met["cut off"] >= wire.ATTEMPTS


def test_a_wire_drawn_from_a_seed_is_the_same_again() -> None:
    def first(seed: int) -> list[str]:
        return [fate for fate, _ in zip(drawn(seed, 3), range(50), strict=False)]

    assert first(1) == first(1) != first(2)
    assert 5 < sum(map(bool, first(1))) < 30


def test_urllib3_tells_of_everything_but_heads_that_are_cut_off(caplog: pytest.LogCaptureFixture) -> None:
    wire.hush()
    log = logging.getLogger("urllib3.connection")
    log.warning("Failed to parse headers (url=%s): %s", "http://a", "cut off")
    log.warning("Retrying after connection broken by %s", "a reset")
    assert [record.getMessage() for record in caplog.records] == ["Retrying after connection broken by a reset"]
