"""The fetch stage: brings data sets into object storage, each verified and moved at most once."""

import dataclasses
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from components.recognition.artifacts import Manifest
from components.recognition.catalogue import Entry, from_text
from components.recognition.sources import Located, check_source, locate
from components.recognition.stages import Made, find_or_make, run_stage
from components.recognition.storage import Store, hash_file

PARALLEL = 4  # data sets at a time


def run(*, sources: str, run_tag: str, output: str) -> str:
    """Bring data sets into object storage.

    sources: JSON of catalogue entries by data set name. output: where this stage's manifest goes.
    """

    def work(store: Store) -> tuple[Manifest, bool]:
        entries = from_text(sources)
        for name, entry in entries.items():
            check_source(name, entry)
        with ThreadPoolExecutor(PARALLEL) as pool:
            fetched = list(pool.map(_outcome, [partial(_fetch, store, *item) for item in entries.items()]))
        _raise_together([outcome for outcome in fetched if isinstance(outcome, Exception)])
        manifests = [outcome[0] for outcome in fetched if not isinstance(outcome, Exception)]
        facts = {
            "datasets": {manifest.name: manifest.reference for manifest in manifests},
            "entries": {name: dataclasses.asdict(entry) for name, entry in entries.items()},
        }
        combined, _ = find_or_make(store, "fetch", "datasets", facts, lambda folder: Made(files={}, facts=facts))
        return combined, all(outcome[1] for outcome in fetched if not isinstance(outcome, Exception))

    return run_stage("fetch", "datasets", run_tag, output, work)


def _fetch(store: Store, name: str, entry: Entry) -> tuple[Manifest, bool]:
    located = locate(store, name, entry)
    inputs = {"content": located.identity, "sha256": entry.sha256}
    return find_or_make(store, "fetch", name, inputs, partial(_make, name, entry, located))


def _make(name: str, entry: Entry, located: Located, folder: Path) -> Made:
    facts: dict[str, Any] = {"source": entry.source, "licence": entry.licence, "file": located.file}
    if located.bring is None:
        return Made(files={}, facts=facts)
    archive = folder / "archive"
    located.bring(archive)
    found = hash_file(archive)
    if entry.sha256 and found != entry.sha256:
        raise ValueError(f"data set '{name}': {entry.source} has sha256 {found}, expected {entry.sha256}: it changed, "
                         "or was damaged on its way")  # fmt: skip
    return Made(files={"archive": archive}, facts=facts | {"sha256": found, "bytes": archive.stat().st_size})


def _outcome(work: Callable[[], tuple[Manifest, bool]]) -> tuple[Manifest, bool] | Exception:
    """Return what the work returns or raises, so that one data set's failure does not stop the others."""
    try:
        return work()
    except (ValueError, RuntimeError, OSError) as error:
        return error


def _raise_together(errors: list[Exception]) -> None:
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise RuntimeError(f"{len(errors)} data sets could not be fetched: " + "; ".join(map(str, errors)))
