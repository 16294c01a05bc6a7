import errno
import hashlib
import os
from pathlib import Path

import pytest
from boto3.exceptions import S3UploadFailedError

from wordmill.store import storage
from wordmill.store.storage import PART_BYTES, Object, Store, object_key


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def fresh(store: Store, folder: Path) -> Store:
    """The same bucket behind an empty cache."""
    return Store(store.bucket, folder / "other")


def test_a_file_is_stored_under_its_digest_and_comes_back(store: Store, tmp_path: Path) -> None:
    content = os.urandom(1000)
    entry = store.put_file(write(tmp_path / "a", content), "a")
    assert entry == Object(name="a", sha256=hashlib.sha256(content).hexdigest(), bytes=1000)
    assert fresh(store, tmp_path).fetch(entry).read_bytes() == content


def test_a_large_file_goes_in_parts(store: Store, tmp_path: Path) -> None:
    content = os.urandom(PART_BYTES) * 3 + b"tail"
    entry = store.put_file(write(tmp_path / "a", content), "a")
    assert hashlib.sha256(fresh(store, tmp_path).fetch(entry).read_bytes()).hexdigest() == entry.sha256


def test_identical_content_is_not_uploaded_twice(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = os.urandom(100)
    store.put_file(write(tmp_path / "a", content), "a")
    monkeypatch.setattr(store.client, "upload_file", None)  # calling it would be a TypeError
    assert store.put_file(write(tmp_path / "b", content), "b").name == "b"


def test_damaged_bytes_are_never_served(store: Store, tmp_path: Path) -> None:
    entry = store.put_file(write(tmp_path / "a", os.urandom(100)), "a")
    store.client.put_object(Bucket=store.bucket, Key=object_key(entry), Body=os.urandom(100))
    other = fresh(store, tmp_path)
    with pytest.raises(RuntimeError, match=rf"\(a\): sha256 is .*, expected {entry.sha256}"):
        other.fetch(entry)
    assert sorted(path.name for path in other.cache.rglob("*") if path.is_file()) == ["lock", "used"]  # of the bound


def test_a_cached_file_is_looked_at_once_and_again_only_where_it_may_be_another(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    content = os.urandom(100)
    entry = store.put_file(write(tmp_path / "a", content), "a")
    other, read = fresh(store, tmp_path), list[Path]()
    hashed = storage.hash_file
    monkeypatch.setattr(storage, "hash_file", lambda path: read.append(path) or hashed(path))  # type: ignore[func-returns-value]
    place = other.fetch(entry)
    assert len(read) == 1  # as it comes
    assert (other.fetch(entry), other.find(entry), len(read)) == (place, place, 1)
    os.utime(place)  # it may have been written to
    assert (other.find(entry), other.find(entry), len(read)) == (place, place, 2)
    place.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))  # of the same size
    assert other.find(entry) is None
    told = f"warning: {place}: its sha256 is {hashlib.sha256(content[:-1] + bytes([content[-1] ^ 1])).hexdigest()}"
    assert capsys.readouterr().out == f"{told}: the damaged copy is removed\n"
    assert other.fetch(entry).read_bytes() == content


def test_what_was_stored_from_here_needs_no_other_look(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = store.put_file(write(tmp_path / "a", b"content"), "a")
    monkeypatch.setattr(storage, "hash_file", None)
    assert store.find(entry) == store.cache / object_key(entry)


def test_an_object_that_is_gone_is_named(store: Store, tmp_path: Path) -> None:
    gone = Object(name="a", sha256="0" * 64, bytes=1)
    with pytest.raises(RuntimeError, match="cannot download s3://.*/0{64} at .*: it is not there"):
        store.fetch(gone)


def test_documents(store: Store) -> None:
    assert store.get_json("documents/none.json") is None
    store.put_json("documents/a.json", {"b": [1, None]})
    assert store.get_json("documents/a.json") == {"b": [1, None]}
    assert list(store.keys("documents/")) == ["documents/a.json"]


def test_a_file_goes_under_a_plain_key_and_comes_back_whole_or_not_at_all(store: Store, tmp_path: Path) -> None:
    content = os.urandom(100)
    store.upload(write(tmp_path / "a", content), "runs/a")
    store.download("runs/a", tmp_path / "there" / "b")
    assert (tmp_path / "there" / "b").read_bytes() == content
    with pytest.raises(RuntimeError, match="cannot download s3://.*/runs/none at .*: it is not there"):
        store.download("runs/none", tmp_path / "there" / "c")
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["b"]


def test_an_unreachable_server_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(RuntimeError, match=r"cannot read s3://b/k at http://127.0.0.1:9: .*check AWS_ENDPOINT_URL"):
        Store("b", tmp_path).get_json("k")


def test_an_environment_has_one_connection_and_another_one_its_own(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Store("another", tmp_path).client is store.client
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    assert Store(store.bucket, tmp_path).client is not store.client


def test_refused_credentials_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(RuntimeError, match="refused with .*check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"):
        Store(store.bucket, tmp_path).put_json("k", 1)


def test_a_missing_bucket_is_named(tmp_path: Path, store: Store) -> None:
    with pytest.raises(RuntimeError, match="cannot write s3://nowhere/k at .*: it is not there: check WORDMILL_BUCKET"):
        Store("nowhere", tmp_path).put_json("k", 1)
    made = Store("made", tmp_path)
    made.make_bucket()
    made.put_json("k", 1)
    assert made.get_json("k") == 1


def test_no_space_left_is_told_and_leaves_nothing(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = store.put_file(write(tmp_path / "a", os.urandom(100)), "a")
    other = fresh(store, tmp_path)

    def full(bucket: str, key: str, path: str, *rest: object) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(other.client, "download_file", full)
    with pytest.raises(RuntimeError, match="No space left on device"):
        other.fetch(entry)
    assert sorted(path.name for path in other.cache.rglob("*") if path.is_file()) == ["lock", "used"]  # of the bound


def test_an_upload_that_the_server_gives_up_is_told(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What boto3 raised for an S3 server whose disk was full: neither a ClientError nor a BotoCoreError.
    def give_up(*arguments: object) -> None:
        raise S3UploadFailedError("Failed to upload a: NoSuchUpload")

    monkeypatch.setattr(store.client, "upload_file", give_up)
    with pytest.raises(RuntimeError, match="cannot write s3://.*NoSuchUpload: .*that the server runs and has room"):
        store.put_file(write(tmp_path / "a", b"content"), "a")


def test_without_a_bucket_nothing_opens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORDMILL_BUCKET", raising=False)
    with pytest.raises(RuntimeError, match="WORDMILL_BUCKET is not set"):
        Store.from_environment()
