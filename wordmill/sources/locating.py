"""Where data sets come from: local files, web servers, S3 and the renderer; what each is known by, and how it comes."""

import re
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from wordmill.recipe.catalogue import Entry, local_path
from wordmill.sources.archives import folder_files, inside_folder, pack_tar
from wordmill.sources.download import CONNECTIONS, download
from wordmill.sources.leftovers import is_leftover
from wordmill.sources.patience import patiently
from wordmill.sources.remote import Remote, s3_file, s3_folder, web_file
from wordmill.store.artifacts import ROOT, digest
from wordmill.store.files import copy_file, require_space
from wordmill.store.keys import Ingredients
from wordmill.store.storage import Store, hash_file
from wordmill.synth.renderer import DATA, SynthSpec

FEW, FEW_SMALL = 1000, 16  # local files that are stored one by one, of small ones; more become a tar
SMALL = 1 << 20  # bytes, on average
# All that rendered pictures depend on: code, atlases and word lists.
RENDERER = Ingredients(code=("wordmill.synth",), data=tuple(path.relative_to(ROOT).as_posix() for path in DATA))
NUMBERS = re.compile(r"\{(\d+)\.\.(\d+)\}")

Bring = Callable[[Path, threading.Event], dict[str, Path]]  # a folder to put them into, how to stop -> files by name


@dataclass(frozen=True, kw_only=True)
class Located:
    """A source that was found: what its content is known by, how to bring its files, and where they then lie.

    What lies in `downloads` is of use until all is stored, in later runs too. `sha256s` are the digests of the files by
    name, as far as whoever brings them holds the files to them.
    """

    identity: dict[str, Any]
    bring: Callable[[threading.Event], dict[str, Path]]
    downloads: Path
    sha256s: dict[str, str]


def check_sources(entries: dict[str, Entry]) -> None:
    """Refuse, before anything is moved, what cannot be fetched: data to be got by hand, a wrong rendering."""
    missing: dict[tuple[str, str], list[str]] = {}
    for name, entry in entries.items():
        if entry.source.startswith("manual:"):
            steps = entry.steps or f"get it from {entry.homepage or 'its authors'}"
            missing.setdefault((entry.archive, steps), []).append(name)
        if entry.reader == "synth" and SynthSpec.parse(entry.source).count != entry.samples:
            raise ValueError(f"data set '{name}': expected {entry.samples} samples, its source renders another count")
    if missing:
        raise ValueError("a person must get some data: " + "; ".join(_to_do(*item) for item in missing.items()))


def _to_do(what: tuple[str, str], names: list[str]) -> str:
    archive, steps = what
    place = f"--from {archive or names[0]}=PLACE"
    return f"{', '.join(names)}: {steps}, then run with {place}, a path or s3://bucket/key"


def origin(entry: Entry) -> str:
    """Return what is fetched for an entry: its source, or of a local folder the part `source#inside`."""
    local = urlsplit(entry.source).scheme == "file"
    partial_folder = entry.inside and local and local_path(entry.source).is_dir()
    return f"{entry.source}#{entry.inside}" if partial_folder else entry.source


def locate(store: Store, name: str, entry: Entry, stop: threading.Event) -> Located:
    """Find a source and what identifies its content, without moving it; `name` is for messages."""
    scheme, sha256s = urlsplit(entry.source).scheme, dict[str, str]()
    if scheme == "synth":
        identity: dict[str, Any] = {"source": entry.source, "renderer": RENDERER.digest()}
        bring: Bring = _bring_nothing
    elif scheme == "file":
        identity, bring, sha256s = _locate_local(name, entry)
    else:
        identity, bring = _locate_remote(store, name, entry, stop)
    downloads = store.cache / "downloads" / digest(identity)
    return Located(identity=identity, bring=partial(bring, downloads), downloads=downloads, sha256s=sha256s)


def _bring_nothing(folder: Path, stop: threading.Event) -> dict[str, Path]:
    return {}  # what is rendered has no files


def _locate_local(name: str, entry: Entry) -> tuple[dict[str, Any], Bring, dict[str, str]]:
    path = local_path(entry.source)
    if path.is_file():
        sha256s = {path.name: hash_file(path)}
        return {"sha256": sha256s[path.name]}, partial(_copy, name, {path.name: path}, sha256s), sha256s
    if not path.is_dir():
        raise ValueError(f"data set '{name}': {path}: no such file or folder")
    root = inside_folder(path, entry.inside) if entry.inside else path
    files = {file.relative_to(path).as_posix(): file for file in folder_files(root)}
    if not files:
        raise ValueError(f"data set '{name}': {root} holds no file")
    sha256s = {file: hash_file(place) for file, place in files.items()}
    size = sum(place.stat().st_size for place in files.values())
    small = len(files) > FEW_SMALL and size < len(files) * SMALL
    identity = {"files": list(sha256s.items())}
    if small or len(files) > FEW:
        return identity, partial(_pack, name, files), {}
    return identity, partial(_copy, name, files, sha256s), sha256s


def _copy(
    name: str, files: dict[str, Path], sha256s: dict[str, str], folder: Path, stop: threading.Event
) -> dict[str, Path]:
    """Copy files, so that they stay as they are until they are stored; ValueError where one is not as it was found."""
    copies = {file: folder / f"{number:05}" for number, file in enumerate(files)}
    with _fresh(name, folder, files.values()):
        for file, place in files.items():
            if (found := copy_file(place, copies[file])) != sha256s[file]:
                raise ValueError(f"data set '{name}': {place} changed while it was read: its sha256 is {found}, it was "
                                 f"{sha256s[file]}: run again")  # fmt: skip
    return copies


def _pack(name: str, files: dict[str, Path], folder: Path, stop: threading.Event) -> dict[str, Path]:
    with _fresh(name, folder, files.values()):
        pack_tar(files, folder / "tar")
    return {"folder.tar": folder / "tar"}


@contextmanager
def _fresh(name: str, folder: Path, files: Iterable[Path]) -> Iterator[None]:
    """Make an empty folder with room for local files."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with require_space(f"data set '{name}'", folder, sum(file.stat().st_size for file in files)):
        yield


def _locate_remote(store: Store, name: str, entry: Entry, stop: threading.Event) -> tuple[dict[str, Any], Bring]:
    """Files with a known digest are not asked for until they are to come: what is stored already is not looked for."""

    def bring(folder: Path, stop: threading.Event) -> dict[str, Path]:
        return download(f"fetch {name}", remotes or _ask(store, entry.source, stop), folder, stop)

    if entry.sha256:
        remotes: dict[str, Remote] = {}
        return {"sha256": entry.sha256}, bring
    remotes = _ask(store, entry.source, stop)
    for remote in remotes.values():
        if not remote.version and remote.size is None:
            raise ValueError(f"{remote.address}: the server tells neither size nor version: add the file's sha256 to "
                             "the catalogue")  # fmt: skip
    files = [[file, remote.version, remote.size] for file, remote in remotes.items()]
    return {"source": entry.source, "files": files}, bring


def _ask(store: Store, source: str, stop: threading.Event) -> dict[str, Remote]:
    """Ask the server about each file of a source, several at once."""
    if source.startswith("s3://") and source.endswith("/"):
        listed = patiently(source, stop, partial(s3_folder, store, *_bucket_and_key(source)))
        found = {name: remote for name, remote in listed.items() if not is_leftover(PurePosixPath(name))}
        if not found:
            raise ValueError(f"{source}: no object's key begins so")
        return found
    addresses = numbered(source)
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        remotes = list(pool.map(partial(_ask_one, store, stop), addresses))
    return {PurePosixPath(_path_of(remote.address)).name: remote for remote in remotes}


def _path_of(address: str) -> str:
    """Return the path of an address, in which `#` and `?` are characters of an object's key."""
    return _bucket_and_key(address)[1] if address.startswith("s3://") else unquote(urlsplit(address).path)


def _bucket_and_key(address: str) -> tuple[str, str]:
    bucket, _, key = address.removeprefix("s3://").partition("/")
    return bucket, unquote(key).lstrip("/")


def _ask_one(store: Store, stop: threading.Event, address: str) -> Remote:
    if address.startswith("s3://"):
        return patiently(address, stop, partial(s3_file, store, *_bucket_and_key(address)))
    return patiently(address, stop, partial(web_file, address))


def numbered(source: str) -> list[str]:
    """Return the addresses that `{00..99}` in a source stands for, with leading zeros as the first has them."""
    match = NUMBERS.search(source)
    if not match:
        return [source]
    first, last = match[1], match[2]
    return [f"{source[: match.start()]}{number:0{len(first)}}{source[match.end() :]}"
            for number in range(int(first), int(last) + 1)]  # fmt: skip
