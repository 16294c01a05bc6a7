"""A run's checkpoints in the store, kept there while training runs, however long the store is away."""

import json
import re
import threading
import time
from pathlib import Path
from typing import Any

from components.train.checkpoints import prefix_of, stored_files
from wordmill.store.progress import duration
from wordmill.store.storage import Store
from wordmill.training.state import KEPT, is_record, read_record, records

LOOK_EVERY_S = 2.0
RETRY_S = 5.0
TELL_EVERY_S = 60.0
AWAY_S = 600.0  # training goes on for so long without the store
NONFINITE = "nonfinite"  # the folder of batches that were left out, in the run's folder and below its place
LEFT_OUT = re.compile(r"step-\d{8,}\.rank-\d+\.npz")  # how they are called


class StoreAwayError(RuntimeError):
    """The store has been away for too long."""


class Mirror:
    """A thread that stores what is new below checkpoints/<place>/, the record last, and removes what is old."""

    def __init__(self, store: Store, folder: Path, place: str) -> None:
        self.store, self.folder, self.place, self.prefix = store, folder, place, prefix_of(place)
        self.kept: dict[str, dict[str, Any]] = {}  # stored records by name
        self.stored: dict[str, str] = {}  # sha256 of stored files by name, "" where it is not known
        self.looked = False
        self.away_since: float | None = None
        self.trouble, self.told_s = "", 0.0
        self.ending, self.wanted = threading.Event(), True
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def check(self) -> None:
        """Raise StoreAwayError where the store has been away for too long; say every minute since when it is."""
        if (since := self.away_since) is None:
            return
        if (away_s := time.monotonic() - since) > AWAY_S:
            raise StoreAwayError(f"the store has been away for {AWAY_S / 60:.0f} minutes: {self.trouble}")
        if away_s - self.told_s > TELL_EVERY_S:
            self.told_s = away_s
            last = max(tuple(self.kept), default="none").removesuffix(".json")
            print(f"warning: the store has been away for {duration(away_s)}, its last checkpoint is {last}", flush=True)

    def finish(self, within_s: float) -> bool:
        """Store what is not stored yet and end; False where that takes longer, with the rest on this disk alone."""
        self.ending.set()
        self.thread.join(max(within_s, 0.0))
        return not self.thread.is_alive()

    def drop(self) -> None:
        """End without storing more."""
        self.wanted = False
        self.ending.set()
        self.thread.join()

    def _run(self) -> None:
        while True:
            last = self.ending.wait(LOOK_EVERY_S if self.away_since is None else RETRY_S)
            if not self.wanted or (self._attempt() and last):
                return
            if last:
                time.sleep(min(RETRY_S, 1.0))

    def _attempt(self) -> bool:
        """Bring the store up to date; where it is away that is told once."""
        try:
            self._sync()
        except Exception as error:  # of any kind: a thread that has ended stores nothing
            self.trouble = str(error)
            if self.away_since is None:
                self.away_since, self.told_s = time.monotonic(), 0.0
                print(f"warning: checkpoints stay in {self.folder} until the store takes them: {error}", flush=True)
            return False
        if self.away_since is not None:
            self.away_since = None
            print("train: the store has all checkpoints again", flush=True)
        return True

    def _sync(self) -> None:
        if not self.looked:
            self._look()
        for record in records(self.folder / "checkpoints"):
            self._store_checkpoint(record)
        for path in left_out_batches(self.folder):
            self._store_file(path, f"{NONFINITE}/{path.name}", path.name)
        self._trim()

    def _look(self) -> None:
        """Take in what an earlier attempt has stored."""
        names = [name for _, name in stored_files(self.store, self.place)]
        kept = {name: document for name in filter(is_record, names) if (document := self._read(name))}
        self.stored = dict.fromkeys((name for name in names if not is_record(name)), "")
        self.stored |= {entry["name"]: entry["sha256"] for document in kept.values() for entry in document["files"]}
        self.kept, self.looked = kept, True

    def _read(self, name: str) -> dict[str, Any]:
        """Read a stored record; one that cannot be read is removed, and empty."""
        try:
            document: dict[str, Any] = json.loads(self.store.get_bytes(self.prefix + name) or b"")
            return document if document["files"] else {}
        except (KeyError, TypeError, ValueError):
            self.store.delete(self.prefix + name)
            return {}

    def _store_checkpoint(self, record: Path) -> None:
        try:
            document = read_record(record)
        except ValueError:
            return  # a newer one has just replaced it
        if self.kept.get(record.name) == document:
            return
        files = [(record.with_name(entry["name"]), entry["sha256"]) for entry in document["files"]]
        if all(self._store_file(path, path.name, sha256) for path, sha256 in files):
            self.store.put_json(self.prefix + record.name, document)
            self.kept[record.name] = document

    def _store_file(self, path: Path, name: str, content: str) -> bool:
        """Store a file unless its content is stored under its name; False where it is not there any more."""
        if self.stored.get(name) == content:
            return True
        try:
            self.store.upload(path, self.prefix + name)
        except RuntimeError:
            if path.exists():
                raise
            return False  # training has replaced the checkpoint by a newer one meanwhile
        self.stored[name] = content
        return True

    def _trim(self) -> None:
        """Remove all but the newest checkpoints, records first, and what no record names."""
        for name in sorted(self.kept)[:-KEPT]:
            self.store.delete(self.prefix + name)
            del self.kept[name]
        named = {entry["name"] for document in self.kept.values() for entry in document["files"]}
        for name in self.stored.keys() - named:
            if not name.startswith(NONFINITE):
                self.store.delete(self.prefix + name)
                del self.stored[name]


def left_out_batches(folder: Path) -> list[Path]:
    """Return the files of the batches that a run has left out, by its folder."""
    return sorted(path for path in (folder / NONFINITE).glob("*.npz") if LEFT_OUT.fullmatch(path.name))


def forget(store: Store, place: str) -> None:
    """Remove a finished run's checkpoints from the store, records first, and no other file there."""
    prefix = prefix_of(place)
    try:
        names = sorted((name for _, name in stored_files(store, place)), key=is_record, reverse=True)
        batches = [key for key in store.keys(f"{prefix}{NONFINITE}/") if LEFT_OUT.fullmatch(Path(key).name)]
        for address in [*(prefix + name for name in names), *batches]:
            store.delete(address)
    except RuntimeError as error:  # the run itself is stored
        print(f"warning: {prefix} of bucket '{store.bucket}' stays: {error}", flush=True)
