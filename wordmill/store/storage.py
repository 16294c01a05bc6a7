"""Object storage (any S3): content-addressed bulk bytes, small JSON documents, and a local cache of both."""

import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wordmill.store.answers import WAITS_S, Refusal, no_answer
from wordmill.store.cache import ObjectCache
from wordmill.store.files import CHUNK, atomic_file, is_full

if TYPE_CHECKING:
    from boto3.s3.transfer import TransferConfig
    from mypy_boto3_s3 import S3Client

SWEPT_LIST = "sweep/listed.json"  # the keys of objects that nothing names, and since when that is known: sweeping.py
LIST_S = 600.0  # so long that list is taken for the newest
PART_BYTES = 8 << 20  # bytes: the size of a part of a multipart transfer


@dataclass(frozen=True, kw_only=True)
class Object:
    """A stored file: its name among its siblings, its content's sha256, its size in bytes."""

    name: str
    sha256: str
    bytes: int


def hash_file(path: Path) -> str:
    """Return the sha256 of a file's content as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def file_facts(path: Path) -> dict[str, Any]:
    """Return a file's name, digest and size, as a card lists them."""
    return {"name": path.name, "sha256": hash_file(path), "bytes": path.stat().st_size}


class Store:
    """One bucket of an S3 server, reached with the settings that every AWS tool reads (AWS_ENDPOINT_URL ...)."""

    def __init__(self, bucket: str, cache: Path) -> None:
        self.bucket = bucket
        self.cache = cache
        self.objects = ObjectCache(cache)
        self.endpoint = endpoint_url() or "AWS"
        self.put_before: set[str] = set()
        self.list, self.list_read = dict[str, Any](), -math.inf  # of what may be swept, and when, monotonic time in s

    @cached_property
    def client(self) -> "S3Client":
        """The connection to the server, made when it is first needed: whoever finds all in the cache needs no boto3."""
        from wordmill.store.wire import client_of

        return client_of(frozenset((name, value) for name, value in os.environ.items() if name.startswith("AWS_")))

    @cached_property
    def transfer(self) -> "TransferConfig":
        """How large files are cut into parts."""
        from boto3.s3.transfer import TransferConfig

        return TransferConfig(multipart_threshold=PART_BYTES, multipart_chunksize=PART_BYTES)

    @classmethod
    def from_environment(cls) -> "Store":
        """Open the bucket named by WORDMILL_BUCKET, caching below WORDMILL_CACHE (default ~/.cache/wordmill)."""
        bucket = os.environ.get("WORDMILL_BUCKET")
        if not bucket:
            raise RuntimeError("WORDMILL_BUCKET is not set: it names the S3 bucket that holds data, models and "
                               "manifests")  # fmt: skip
        cache = Path(os.environ.get("WORDMILL_CACHE") or Path.home() / ".cache" / "wordmill")
        return cls(bucket, cache)

    def put_file(self, path: Path, name: str, sha256: str = "") -> Object:
        """Store a file under its content's digest, unless it is there already, and keep a copy in the cache.

        `sha256` is the digest where whoever stores it has found it.
        """
        state = path.stat()
        entry = Object(name=name, sha256=sha256 or hash_file(path), bytes=state.st_size)
        if not self.has(entry) or self._is_listed(object_key(entry)):
            self.upload(path, object_key(entry))
        self.objects.keep(path, entry.sha256, state)
        return entry

    def find(self, entry: Object) -> Path | None:
        """Return the cache's copy of an object, if it has a whole one; a file's bytes are looked at once.

        It stays for as long as this store is used. A damaged one is removed, and said.
        """
        cached, state = self.objects.path(entry.sha256), self.objects.take(entry.sha256)
        if state is None or state.st_size != entry.bytes:
            return None
        if self.objects.is_noted(entry.sha256, state):
            return cached
        if (found := hash_file(cached)) != entry.sha256:
            print(f"warning: {cached}: its sha256 is {found}: the damaged copy is removed\n", end="", flush=True)
            self.objects.remove(entry.sha256)
            return None
        self.objects.note(entry.sha256, state)
        return cached

    def read_range(self, entry: Object, start: int, size: int) -> bytes:
        """Read `size` bytes of an object from byte `start` on."""

        span = f"bytes={start}-{start + size - 1}"
        body, _ = self._ask("download", object_key(entry), self._read, Key=object_key(entry), Range=span)
        return bytes(body)

    def fetch(self, entry: Object) -> Path:
        """Return a local file with the object's bytes, verified; it stays for as long as this store is used."""
        if whole := self.find(entry):
            return whole
        key = object_key(entry)
        with self.objects.filling(entry.sha256, entry.bytes) as temporary:
            self._download(key, temporary)
            if (found := hash_file(temporary)) != entry.sha256:
                damaged = f"sha256 is {found}, expected {entry.sha256}: the stored object is damaged"
                raise RuntimeError(f"s3://{self.bucket}/{key} ({entry.name}): {damaged}, delete it and run again")
        return self.objects.path(entry.sha256)

    def has(self, entry: Object) -> bool:
        """Tell whether the object is stored with its full size."""
        key = object_key(entry)
        head = self._ask("look for", key, self.client.head_object, Bucket=self.bucket, Key=key)
        return head is not None and head["ContentLength"] == entry.bytes

    def upload(self, path: Path, key: str) -> None:
        """Write a file under a key, in parts where it is large; S3 replaces the whole object or nothing."""
        from wordmill.store.wire import upload_whole

        self._ask("write", key, upload_whole, self.client, path, self.bucket, key, self.transfer)

    def download(self, key: str, path: Path) -> None:
        """Read what is stored under a key into a file, which is whole or not there; whoever knows its digest checks."""
        with atomic_file(path) as temporary:
            self._download(key, temporary)

    def put_bytes(self, key: str, body: bytes, kind: str) -> None:
        """Write a small document of this content type; S3 replaces the whole object or nothing."""
        self._ask("write", key, self.client.put_object, Bucket=self.bucket, Key=key, Body=body, ContentType=kind)

    def get_bytes(self, key: str) -> bytes | None:
        """Read a small document; None where there is none."""
        found = self.get_dated(key)
        return None if found is None else found[0]

    def get_dated(self, key: str) -> tuple[bytes, float] | None:
        """Read a small document and when it was written, unix time in s; None where there is none."""
        found: tuple[bytes, dict[str, Any]] | None = self._ask("read", key, self._read, Key=key)
        return None if found is None else (found[0], found[1]["LastModified"].timestamp())

    def put_json(self, key: str, document: Any) -> None:
        """Write a small JSON document."""
        self.put_bytes(key, json.dumps(document, indent=1, sort_keys=True).encode(), "application/json")

    def put_once(self, key: str, document: Callable[[], Any]) -> None:
        """Write what the key alone decides on, once in a process: all pieces of a data set have the same."""
        if key not in self.put_before:
            self.put_json(key, document())
            self.put_before.add(key)

    def get_json(self, key: str) -> dict[str, Any] | None:
        """Read a JSON document that is a mapping; None where there is none."""
        body = self.get_bytes(key)
        return None if body is None else json.loads(body)

    def delete(self, key: str) -> None:
        """Delete what is stored under a key, if anything is."""
        self._ask("delete", key, self.client.delete_object, Bucket=self.bucket, Key=key)

    def keys(self, prefix: str) -> Iterator[str]:
        """List the keys below a prefix, in order."""
        yield from self.modified(prefix)

    def modified(self, prefix: str) -> dict[str, float]:
        """Return of each key below a prefix, in order, when it was written: unix time in s, by the store's clock."""
        return {key: at for key, (_, at) in self.stored(prefix).items()}

    def stored(self, prefix: str) -> dict[str, tuple[int, float]]:
        """Return of each key below a prefix, in order, its bytes, and when it was written: unix time in s."""
        pages = self._ask("list", prefix, list, self._pages(prefix))
        items = (item for page in pages for item in page.get("Contents", []))
        return {item["Key"]: (item["Size"], item["LastModified"].timestamp()) for item in items}

    def _pages(self, prefix: str) -> Any:
        return self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)

    def _is_listed(self, key: str) -> bool:
        """Tell whether a sweep has listed an object, as of some minutes ago: nothing listed goes for a day."""
        if time.monotonic() - self.list_read > LIST_S:
            self.list, self.list_read = self.get_json(SWEPT_LIST) or {}, time.monotonic()
        return key in self.list

    def make_bucket(self) -> None:
        """Create the bucket where it does not exist yet."""
        if self._ask("look for", "", self.client.head_bucket, Bucket=self.bucket) is None:
            self._ask("create", "", self.client.create_bucket, Bucket=self.bucket)

    def _read(self, **asked: str) -> tuple[bytes, dict[str, Any]]:
        """Return what a request for an object gives, whole, and what is said of it."""
        from wordmill.store.wire import read_whole

        return read_whole(lambda: self.client.get_object(Bucket=self.bucket, **asked))  # type: ignore[arg-type]

    def _download(self, key: str, path: Path) -> None:
        self._ask("download", key, self.client.download_file, self.bucket, key, str(path), None, None, self.transfer)

    def _ask(self, verb: str, key: str, call: Any, *args: Any, **kwargs: Any) -> Any:
        """Make one S3 call, with patience where the server is busy.

        None for what is absent, RuntimeError that says what to check for the rest.
        """
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError

        where = f"cannot {verb} s3://{self.bucket}/{key} at {self.endpoint}"
        waits = iter(WAITS_S)
        while True:
            try:
                return call(*args, **kwargs)
            except (ClientError, Boto3Error) as error:
                # boto3 tells of a refused upload in words alone.
                told = error if isinstance(error, ClientError) else error.__context__
                if not isinstance(told, ClientError):
                    raise RuntimeError(f"{where}: {error}: {no_answer(error)}") from error
                refusal = Refusal.of(dict(told.response))
            except BotoCoreError as error:
                raise RuntimeError(f"{where}: {error}: {no_answer(error)}") from error
            except OSError as error:
                advice = f"make room for {self.cache}" if is_full(error) else no_answer(error)
                raise RuntimeError(f"{where}: {error}: {advice}") from error
            if refusal.absent and verb in ("read", "look for"):
                return None
            if refusal.absent:
                advice = "check WORDMILL_BUCKET, and that nothing deletes objects"
                raise RuntimeError(f"{where}: it is not there: {advice}")
            if not refusal.busy or (wait_s := next(waits, None)) is None:
                raise RuntimeError(f"{where}: {refusal.text}")
            if wait_s == WAITS_S[0]:
                print(f"warning: {where}: {refusal.code}: the server is busy, this waits\n", end="", flush=True)
            time.sleep(wait_s)


def endpoint_url() -> str:
    """Return the S3 server's address as boto3 reads it from the environment, "" for AWS itself."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""


def object_key(entry: Object) -> str:
    """Return the key of an object in the bucket, and its place in the cache: its content's digest."""
    return f"objects/{entry.sha256[:2]}/{entry.sha256}"
