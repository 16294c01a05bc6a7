"""Manifests: the small JSON documents that stages hand on, and the digests that identify finished work."""

import dataclasses
import hashlib
import json
import os
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from wordmill.store.storage import Object, Store

SCHEMA = 1
LOOKS = 16  # objects that are looked for at a time
RENEW_S = 43200.0  # a manifest so old is renewed when it is found, so that no sweep takes it for forgotten
ROOT = Path(__file__).resolve().parents[2]  # the folder of wordmill/ and components/


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a stage made: identity, objects in storage, and facts for people and later stages.

    `key` is the digest of everything that went in; `metrics` are single numbers and `curves` are
    (step, value, unix time in s) by name, both as MLflow shows them. `made_by` are the digests of the code that made
    it, several where one went on with the work of another. `reused` says of what it is or holds, by name, that other
    code than that of this run has made it.
    """

    stage: str
    name: str
    key: str
    inputs: dict[str, Any]
    git_commit: str
    objects: tuple[Object, ...] = ()
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)
    metrics: dict[str, float] = dataclasses.field(default_factory=dict)
    curves: dict[str, list[tuple[int, float, float]]] = dataclasses.field(default_factory=dict)
    seconds: float = 0.0
    made_by: tuple[str, ...] = ()
    reused: dict[str, str] = dataclasses.field(default_factory=dict)
    schema: int = SCHEMA

    def object(self, name: str) -> Object:
        """Return the object of this name; ValueError names the manifest."""
        for entry in self.objects:
            if entry.name == name:
                return entry
        raise ValueError(f"{self.reference}: no object '{name}', it has {[entry.name for entry in self.objects]}")

    @property
    def reference(self) -> str:
        """The manifest's place below `manifests/` in the store: `<stage>/<key>`."""
        return f"{self.stage}/{self.key}"


def to_document(manifest: Manifest) -> dict[str, Any]:
    """Return the manifest as a JSON document."""
    return dataclasses.asdict(manifest)


def from_document(document: dict[str, Any], where: str) -> Manifest:
    """Read a manifest from its JSON document; ValueError for another schema."""
    if document.get("schema") != SCHEMA:
        raise ValueError(f"{where}: manifest schema is {document.get('schema')!r}, this code reads {SCHEMA}")
    objects = tuple(Object(**entry) for entry in document["objects"])
    return Manifest(**{**document, "objects": objects, "made_by": tuple(document.get("made_by", ()))})


def read_manifest(path: str | Path) -> Manifest:
    """Read a manifest from a local file, the form in which a pipeline hands it to a stage."""
    file = Path(path)
    if not file.is_file():
        raise ValueError(f"{file}: no such manifest")
    return from_document(json.loads(file.read_text(encoding="utf-8")), str(file))


def find_manifest(store: Store, reference: str) -> Manifest | None:
    """Return the manifest `<stage>/<key>` if it is stored and every object of it is there, else None.

    One that is old is written anew: what names its objects is in use.
    """
    place = f"manifests/{reference}.json"
    if (found := store.get_dated(place)) is None:
        return None
    document, at = json.loads(found[0]), found[1]
    manifest = from_document(document, reference)
    with ThreadPoolExecutor(LOOKS) as pool:  # a large data set has hundreds of objects
        if not all(pool.map(store.has, manifest.objects)):
            return None
    if time.time() - at > RENEW_S:
        with suppress(RuntimeError):  # whoever may only read
            store.put_json(place, document)
    return manifest


def stored_manifest(store: Store, reference: str, why: str = "") -> Manifest:
    """Return the manifest `<stage>/<key>`, whatever is there of its objects; RuntimeError where it is missing."""
    document = store.get_json(f"manifests/{reference}.json")
    if document is None:
        raise RuntimeError(f"manifests/{reference}.json is missing in bucket '{store.bucket}'{why}")
    return from_document(document, reference)


def whole_manifest(store: Store, reference: str, name: str = "") -> Manifest:
    """Return the manifest `<stage>/<key>` of what is called `name`; RuntimeError where any of it is not stored."""
    found = find_manifest(store, reference)
    if found is None:
        what, stage = f"{reference} ({name})" if name else reference, reference.split("/")[0]
        raise RuntimeError(f"{what} is not whole in bucket '{store.bucket}' any more: run the {stage} stage again")
    return found


def record_manifest(
    store: Store, *, stage: str, name: str, key: str, inputs: dict[str, Any], facts: dict[str, Any], seconds: float
) -> Manifest:
    """Store and return the manifest of work that is a run's own: it has no objects and is never found by digest."""
    manifest = Manifest(stage=stage, name=name, key=key, inputs=inputs, git_commit=git_commit(), facts=facts,
                        seconds=round(seconds, 3))  # fmt: skip
    store.put_json(f"manifests/{manifest.reference}.json", to_document(manifest))
    return manifest


def digest(document: Any) -> str:
    """Return 32 hexadecimal digits of the sha256 over a document's canonical JSON."""
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:32]


def figures(path: str) -> dict[str, float]:
    """Return the metrics of the manifest in a file as an engine's page shows them: four digits behind the point."""
    return {name: round(value, 4) for name, value in read_manifest(path).metrics.items()}


@cache
def git_commit() -> str:
    """Return this code's commit, `-dirty` behind it where files differ; WORDMILL_COMMIT where there is no git."""
    if commit := os.environ.get("WORDMILL_COMMIT"):
        return commit
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
