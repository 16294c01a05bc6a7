"""The fetch stage: brings data sets into object storage, each verified and moved at most once."""

import dataclasses
import hashlib
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path
from threading import Event
from typing import Any

from components.fetch.lock import hold
from wordmill.recipe.catalogue import Entry, from_text
from wordmill.sources.locating import Located, check_sources, locate, origin
from wordmill.store.artifacts import Manifest, digest
from wordmill.store.files import locked, sweep_abandoned
from wordmill.store.runs import begin_run
from wordmill.store.stages import StageResult, find_or_make, run_stage
from wordmill.store.storage import Object, Store, hash_file

PARALLEL = 4  # sources at a time
LEFT_DAYS = 14.0  # what is half downloaded is kept for so long, for a later run to go on with

Fetched = tuple[Manifest, bool]
Fetchable = tuple[str, tuple[Object, ...]]


def run(*, sources: str, run_tag: str, output: str) -> str:
    """Bring data sets into object storage.

    sources: JSON of catalogue entries by data set name. output: where this stage's manifest goes.
    """

    def work(store: Store) -> Fetched:
        begin_run(store, run_tag, keep="fresh.")
        entries = from_text(sources)
        check_sources(entries)
        sweep_abandoned(store.cache / "downloads", LEFT_DAYS)
        calls = [partial(_fetch, store, names, entries[names[0]], run_tag) for names in _by_origin(entries)]
        fetched = _all(calls)
        manifests = {manifest.name: manifest for manifest, _ in fetched}
        facts = {"datasets": {name: manifests[name].reference for name in entries},
                 "entries": {name: dataclasses.asdict(entry) for name, entry in entries.items()}}  # fmt: skip
        combined, _ = find_or_make(store, "fetch", "datasets", facts, lambda folder: StageResult(files={}, facts=facts))
        return combined, all(found for _, found in fetched)

    return run_stage("fetch", "datasets", run_tag, output, work)


def _by_origin(entries: dict[str, Entry]) -> list[list[str]]:
    """Group the names of data sets that come from the same files."""
    groups: dict[tuple[str, str], list[str]] = {}
    for name, entry in entries.items():
        groups.setdefault((origin(entry), entry.sha256), []).append(name)
    return list(groups.values())


def _fetch(store: Store, names: list[str], entry: Entry, run_tag: str, stop: Event) -> list[Fetched]:
    """Fetch a source for the data sets that come from it."""
    label = names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
    located = locate(store, label, entry, stop)
    inputs = {"content": located.identity, "sha256": entry.sha256}
    lock = located.downloads.with_suffix(".lock")
    with locked(lock, waiting=f"{lock}: waiting, the same is fetched elsewhere", remove=True):
        bring = cache(partial(_content, store, label, entry, located, stop))
        made = [find_or_make(store, "fetch", name, inputs, partial(_make, entry, bring)) for name in names]
        shutil.rmtree(located.downloads, ignore_errors=True)
    if not entry.sha256 and entry.reader != "synth":
        hold(store, origin(entry), made[0][0].facts["sha256"], names, run_tag)
    return made


def _make(entry: Entry, bring: Callable[[], Fetchable], folder: Path) -> StageResult:
    facts: dict[str, Any] = {"source": entry.source, "licence": entry.licence}
    if entry.reader == "synth":
        return StageResult(files={}, facts=facts)
    sha256, objects = bring()
    size = sum(entry.bytes for entry in objects)
    return StageResult(files={}, stored=objects, facts=facts | {"sha256": sha256, "bytes": size})


def _content(store: Store, label: str, entry: Entry, located: Located, stop: Event) -> Fetchable:
    """Return a source's sha256 and its objects in the store, which are brought there where it has not got them yet.

    What came of a source is recorded by the source's identity alone: neither another data set of the same archive nor
    another version of this code brings it again.
    """
    key = f"contents/{digest(located.identity)}.json"
    record = store.get_json(key) or {"sha256": "", "objects": []}
    objects = tuple(Object(**item) for item in record["objects"])
    if objects and all(map(store.has, objects)):
        _check_sha256(label, entry, record["sha256"])
        return record["sha256"], objects
    files = located.bring(stop)
    sha256s = located.sha256s or {name: hash_file(path) for name, path in files.items()}
    found = _sha256(sha256s)
    _check_sha256(label, entry, found)
    objects = tuple(store.put_file(path, name, sha256s[name]) for name, path in files.items())
    store.put_json(key, {"sha256": found, "objects": [dataclasses.asdict(item) for item in objects]})
    return found, objects


def _check_sha256(label: str, entry: Entry, found: str) -> None:
    if entry.sha256 and found != entry.sha256:
        raise ValueError(f"data set '{label}': {entry.source} has sha256 {found}, expected {entry.sha256}: it changed, "
                         "or was damaged on its way")  # fmt: skip


def _sha256(sha256s: dict[str, str]) -> str:
    """Return the sha256 of a file, or that of the lines that sha256sum prints for several, by those of the files."""
    if len(sha256s) == 1:
        return next(iter(sha256s.values()))
    lines = "".join(f"{sha256}  {name}\n" for name, sha256 in sha256s.items())
    return hashlib.sha256(lines.encode()).hexdigest()


def _all(calls: Sequence[Callable[[Event], list[Fetched]]]) -> list[Fetched]:
    """Make calls that run at once; the failure of one does not stop the others, that of this process does."""
    stops = [Event() for _ in calls]
    with ThreadPoolExecutor(PARALLEL) as pool:
        try:
            outcomes = list(pool.map(_outcome, calls, stops))
        except BaseException:
            for stop in stops:
                stop.set()
            pool.shutdown(cancel_futures=True)
            raise
    errors = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
    if len(errors) > 1:
        raise RuntimeError(f"{len(errors)} sources could not be fetched: " + "; ".join(map(str, errors)))
    if errors:
        raise errors[0]
    return [made for outcome in outcomes if not isinstance(outcome, Exception) for made in outcome]


def _outcome(call: Callable[[Event], list[Fetched]], stop: Event) -> list[Fetched] | Exception:
    try:
        return call(stop)
    except (ValueError, RuntimeError, OSError) as error:
        return error
