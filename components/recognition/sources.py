"""Where data sets come from: local files, web servers, S3 and the renderer; moved at most once, resumed."""

import errno
import http.client
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, TypeVar
from urllib.parse import unquote, urlsplit

from botocore.exceptions import BotoCoreError, ClientError

from components.recognition.archives import folder_files, pack_folder
from components.recognition.artifacts import digest
from components.recognition.catalogue import Entry
from components.recognition.progress import Progress
from components.recognition.storage import Store, hash_file
from components.recognition.synth import SynthSpec, atlas_digest

CHUNK = 1 << 20  # bytes
TIMEOUT_S = 30
ATTEMPTS = 6  # in a row without a byte
BACKOFF_S = 1.0  # after the first failure; twice as long after each further one
RESERVE = 64 << 20  # bytes of disk left free
PASSING = {408, 425, 429}  # refusals of a web server that another attempt may not meet

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Located:
    """A source that was found: what its content is known by, its file's name, and how to bring it to a path."""

    identity: dict[str, Any]
    file: str
    bring: Callable[[Path], None] | None  # None: rendered, there is nothing to bring


def check_source(name: str, entry: Entry) -> None:
    """Refuse, before anything is moved, what cannot be fetched: data to be got by hand, a wrong rendering."""
    if entry.source == "manual:":
        raise ValueError(
            f"data set '{name}' cannot be downloaded by a program: get it from {entry.homepage or 'its authors'}, then "
            f"give its place in a catalogue of your own, `{name}: {{source: file:///...}}` or `s3://bucket/key`"
        )
    if entry.reader == "synth" and SynthSpec.parse(entry.source).count != entry.samples:
        raise ValueError(f"data set '{name}': expected {entry.samples} samples, its source renders another count")


def locate(store: Store, name: str, entry: Entry) -> Located:
    """Find a source and what identifies its content, without moving it."""
    address = urlsplit(entry.source)
    file = Path(unquote(address.path)).name
    if address.scheme == "synth":
        return Located(identity={"source": entry.source, "atlas": atlas_digest()}, file="", bring=None)
    if address.scheme == "file":
        return _locate_file(name, Path(unquote(address.path)))
    remote = _s3_remote(store, entry.source) if address.scheme == "s3" else _http_remote(entry.source, entry.sha256)
    identity = {"source": entry.source, "version": entry.sha256 or remote.version}
    part = store.cache / "downloads" / f"{digest([name, identity])}.part"
    return Located(identity=identity, file=file, bring=partial(_download, name, remote, part))


def _locate_file(name: str, path: Path) -> Located:
    if path.is_dir():
        files = [(file.relative_to(path).as_posix(), hash_file(file)) for file in folder_files(path)]
        if not files:
            raise ValueError(f"data set '{name}': {path} holds no file")
        size = sum(file.stat().st_size for file in folder_files(path))
        return Located(identity={"files": files}, file=f"{path.name}.tar", bring=partial(_pack, name, path, size))
    if not path.is_file():
        raise ValueError(f"data set '{name}': {path}: no such file or folder")
    return Located(identity={"sha256": hash_file(path)}, file=path.name, bring=partial(_copy, name, path))


def _pack(name: str, folder: Path, size: int, target: Path) -> None:
    with _room(name, target.parent, size):
        pack_folder(folder, target)


def _copy(name: str, path: Path, target: Path) -> None:
    with _room(name, target.parent, path.stat().st_size):
        shutil.copyfile(path, target)


@dataclass(frozen=True, kw_only=True)
class _Remote:
    """A file on a server: its version, its size in bytes where that is known, and a way to read it."""

    address: str
    version: str
    size: int | None
    open_at: Callable[[int], tuple[IO[bytes], int]]  # an offset -> the content and the offset at which it begins


def _s3_remote(store: Store, address: str) -> _Remote:
    parts = urlsplit(address)
    bucket, key = parts.netloc, unquote(parts.path).lstrip("/")
    head = _patiently(address, lambda: store.client.head_object(Bucket=bucket, Key=key), lambda: 0)

    def open_at(offset: int) -> tuple[IO[bytes], int]:
        reply = store.client.get_object(Bucket=bucket, Key=key, Range=f"bytes={offset}-", IfMatch=head["ETag"])
        return reply["Body"], offset  # type: ignore[return-value]  # it reads like a file

    return _Remote(address=address, version=head["ETag"], size=head["ContentLength"], open_at=open_at)


def _http_remote(address: str, sha256: str) -> _Remote:
    if sha256:  # no question beforehand: some servers answer GET alone
        return _Remote(address=address, version=sha256, size=None, open_at=partial(_http_open, address, ""))
    headers = _patiently(address, lambda: _http_head(address), lambda: 0)
    size, tag = headers["Content-Length"], headers["ETag"] or headers["Last-Modified"] or ""
    if not size and not tag:
        raise ValueError(
            f"{address}: the server tells neither size nor version: add the file's sha256 to the catalogue"
        )
    open_at = partial(_http_open, address, tag)
    return _Remote(address=address, version=f"{tag} {size}", size=int(size) if size else None, open_at=open_at)


def _http_head(address: str) -> http.client.HTTPMessage:
    request = urllib.request.Request(address, method="HEAD")  # noqa: S310 (the catalogue lets http and https through)
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as reply:  # noqa: S310
        headers: http.client.HTTPMessage = reply.headers
        return headers


def _http_open(address: str, tag: str, offset: int) -> tuple[IO[bytes], int]:
    headers = {"Range": f"bytes={offset}-"} if offset else {}
    if offset and tag and not tag.startswith("W/"):  # a file that has changed is sent anew, from its start
        headers["If-Range"] = tag
    request = urllib.request.Request(address, headers=headers)  # noqa: S310 (as above)
    reply = urllib.request.urlopen(request, timeout=TIMEOUT_S)  # noqa: S310
    return reply, offset if reply.status == 206 else 0


def _download(name: str, remote: _Remote, part: Path, target: Path) -> None:
    """Download to a file in the cache that outlives a break, then move it to the target."""
    part.parent.mkdir(parents=True, exist_ok=True)

    def size() -> int:
        return part.stat().st_size if part.exists() else 0

    if remote.size is not None and size() > remote.size:
        part.unlink()
    try:
        _patiently(remote.address, lambda: _append(name, remote, part, size()), size)
    except RuntimeError:
        if shutil.disk_usage(part.parent).free < RESERVE:  # a full disk stops everything else, too
            part.unlink(missing_ok=True)
        raise
    part.replace(target)


def _append(name: str, remote: _Remote, part: Path, have: int) -> None:
    """Read the rest of a remote file into `part`; ConnectionError if it ends too early."""
    if have and have == remote.size:
        return
    try:
        content, begin = remote.open_at(have)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        part.unlink()
        raise ConnectionError(f"{have} bytes are here already, more than the server has") from None
    with content, part.open("r+b" if have else "wb") as file:
        length = getattr(content, "length", None)  # an HTTP reply's own count of what is to come
        total = begin + length if remote.size is None and length is not None else remote.size
        file.truncate(begin)
        file.seek(begin)
        with _room(name, part.parent, (total or begin) - begin):
            _copy_stream(name, content, file, total)
        if total is not None and file.tell() != total:
            raise ConnectionError(f"the connection ended after {file.tell()} of {total} bytes")


def _copy_stream(name: str, content: IO[bytes], file: IO[bytes], total: int | None) -> None:
    begin = file.tell()
    progress = Progress(f"fetch {name}", ((total or begin) - begin) >> 20, "MB")
    while chunk := content.read(CHUNK):
        file.write(chunk)
        progress.update((file.tell() - begin) >> 20)


def _patiently(address: str, work: Callable[[], Result], done: Callable[[], int]) -> Result:
    """Repeat work that a network may break until it succeeds, or fails several times without getting further."""
    failures, before = 0, done()
    while True:
        try:
            return work()
        except (OSError, http.client.HTTPException, BotoCoreError, ClientError) as error:
            _raise_if_final(address, error)
            failures = failures + 1 if done() == before else 1
            before = done()
            if failures == ATTEMPTS:
                raise RuntimeError(
                    f"{address}: gave up after {ATTEMPTS} attempts: {error}: check the network"
                ) from error
            pause_s = BACKOFF_S * 2 ** (failures - 1)
            print(f"{address}: {error}: again in {pause_s:.0f} s, from {before:,} bytes on", flush=True)
            time.sleep(pause_s)


def _raise_if_final(address: str, error: Exception) -> None:
    if isinstance(error, ClientError):
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    else:
        status = error.code if isinstance(error, urllib.error.HTTPError) else 0
    if 400 <= status < 500 and status not in PASSING:
        raise ValueError(f"{address}: refused with {status}: check the address in the catalogue and who may read it")


@contextmanager
def _room(name: str, folder: Path, needed: int) -> Iterator[None]:
    """Refuse to start without room for `needed` bytes, and say it clearly when it runs out all the same."""
    free = shutil.disk_usage(folder).free
    if needed + RESERVE > free:
        raise RuntimeError(f"data set '{name}': {needed:,} bytes do not fit on {folder}, {free:,} are free: make room")
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise RuntimeError(f"data set '{name}': no space left on {folder}: make room and run again") from None
