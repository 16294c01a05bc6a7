"""Checkpoints of a training run: everything that it needs to go on, written while training does.

In a run's folder `checkpoints/` there are, for step 120:
step-00000120.json: the record, written last, which names the others with their digests and holds the counters
step-00000120.safetensors: weights, optimiser, loss scale, moving average, running statistics of every process
metrics-00000120.jsonl: the lines of metrics.jsonl up to that step
best-00000100.safetensors: the best weights up to that step, of the validation after step 100

No generator has a state that would have to be kept: whatever is drawn is drawn by seed, step and place in the global
batch. The position in the data is the step.
"""

import dataclasses
import json
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.numpy import load_file

from wordmill.models.checkpoint import Tensors, write_tensors
from wordmill.recipe.parsing import parse_section
from wordmill.recipe.sections import Data, Model, Train
from wordmill.store.artifacts import git_commit
from wordmill.store.files import is_full, write_atomically
from wordmill.store.storage import file_facts

KEPT = 3  # checkpoints, and the best weights that they name
ROOM_S, ROOM_EVERY_S = 600.0, 5.0  # on a full disk: for how long results wait for room, and how often they are tried
# The names of a checkpoint's files, and of those that are being written; others beside them are somebody else's.
WHOLE = re.compile(r"step-(\d{8,})\.(?:json|safetensors)|metrics-(\d{8,})\.jsonl|best-(\d{8,})\.safetensors")
HALF = re.compile(r"(?:step|metrics|best)-\d{8,}\.(?:\w+\.)*part|\.tmp\w{6}")  # the last are safetensors' own


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scored:
    """Weights as validation found them: the step that they are of, their accuracy and loss, a finite one."""

    step: int
    accuracy: float
    loss: float

    def merit(self, choose_by: str) -> tuple[float, float]:
        """Return what better weights have more of, by train.choose_by; the other figure decides among equals."""
        return (self.accuracy, -self.loss) if choose_by == "accuracy" else (-self.loss, self.accuracy)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunProgress:
    """How far a run is: steps done, what was skipped, the best validation, seconds of training."""

    step: int = 0
    nonfinite: int = 0  # steps left out in all
    nonfinite_in_a_row: int = 0
    scored: int = 0  # the step of the last validation; one that is due after `step` and is not it was cut short
    best: tuple[Scored, ...] = ()  # as many weights as train.keep_best says, the best first
    worse: int = 0  # validations in a row that found no better ones
    seconds: float = 0.0
    missed: int = 0  # checkpoints that could not be written
    attempts: tuple[dict[str, Any], ...] = ()  # each one's first step, processes, code and git commit


@dataclasses.dataclass(frozen=True, kw_only=True)
class State:
    """A checkpoint: tensors by name as the framework's trainer gives and takes them, and how far the run is."""

    tensors: Tensors
    progress: RunProgress
    processes: int


def best_path(folder: Path, step: int) -> Path:
    """Return the file of the best weights, of the validation after this step."""
    return folder / f"best-{step:08}.safetensors"


def write_state(folder: Path, state: State, metrics: bytes, sections: tuple[Data, Model, Train]) -> Path:
    """Write a checkpoint's files, then the record that makes them one, and return the record's path."""
    name = f"{state.progress.step:08}"
    tensors, lines = folder / f"step-{name}.safetensors", folder / f"metrics-{name}.jsonl"
    write_tensors(tensors, state.tensors)
    lines.write_bytes(metrics)
    files = [tensors, lines]
    files += [best_path(folder, scored.step) for scored in state.progress.best]
    document = {
        "processes": state.processes,
        "git_commit": git_commit(),
        "recipe": {type(section).__name__.lower(): dataclasses.asdict(section) for section in sections},
        "progress": dataclasses.asdict(state.progress),
        "files": [file_facts(path) for path in files],
    }
    record = folder / f"step-{name}.json"
    write_atomically(record, json.dumps(document, indent=1))
    return record


def read_state(record: Path) -> State:
    """Read a checkpoint by its record."""
    document = read_record(record)
    progress = parse_section(RunProgress, document["progress"], f"{record}: progress")
    tensors = load_file(record.with_suffix(".safetensors"))
    return State(tensors=tensors, progress=progress, processes=document["processes"])


def read_record(record: Path) -> dict[str, Any]:
    """Read what a record says, without the tensors; ValueError where it is not whole."""
    try:
        document: dict[str, Any] = json.loads(record.read_bytes())
        return {key: document[key] for key in ("processes", "git_commit", "recipe", "progress", "files")}
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{record}: not a checkpoint's record: {type(error).__name__}: {error}") from None


def check_state(record: Path) -> None:
    """Refuse a checkpoint of which a file is missing or has other bytes; ValueError names it."""
    for expected in read_record(record)["files"]:
        path = record.with_name(expected["name"])
        if not path.is_file():
            raise ValueError(f"{path}: it is missing")
        found = file_facts(path)
        if found != expected:
            raise ValueError(f"{path}: {found['bytes']} bytes with sha256 {found['sha256']}, "
                             f"expected {expected['bytes']} with {expected['sha256']}")  # fmt: skip


def named_step(name: str) -> int | None:
    """Return the step that a file's name says it is of; None for a name that no checkpoint's file has."""
    found = WHOLE.fullmatch(name)
    return int(next(filter(None, found.groups()))) if found else None


def is_record(name: str) -> bool:
    """Tell whether a checkpoint's record is called so."""
    return name.endswith(".json") and named_step(name) is not None


def records(folder: Path) -> list[Path]:
    """Return the records of a folder's checkpoints, the newest first."""
    return sorted((path for path in folder.glob("step-*.json") if is_record(path.name)), reverse=True)


def files_by_step(folder: Path) -> list[tuple[int, Path]]:
    """Return the files of a folder's checkpoints, each behind its step, a step's record before its others."""
    found = [(step, path) for path in folder.iterdir() if (step := named_step(path.name)) is not None]
    return sorted(found, key=lambda item: (item[0], not is_record(item[1].name)))


def trim(folder: Path, keep: int = 0) -> None:
    """Remove all checkpoints but the newest ones, so many or KEPT, records first, and what no record names."""
    kept: list[dict[str, Any]] = []
    for record in records(folder):
        try:
            kept.append(read_record(record))
        except ValueError:  # whoever looks for a checkpoint would only be told so again
            record.unlink(missing_ok=True)
        if len(kept) > (keep or KEPT):
            kept.pop()
            record.unlink(missing_ok=True)
    named = {entry["name"] for document in kept for entry in document["files"]}
    newest = kept[0]["progress"]["step"] if kept else -1
    for step, path in files_by_step(folder):
        # Best weights that are newer than the newest checkpoint belong to the next one.
        if not is_record(path.name) and path.name not in named and step <= newest:
            path.unlink(missing_ok=True)


def undo(folder: Path, step: int) -> None:
    """Remove what another attempt left of later steps, which are done again, and what it left half-written."""
    later = [path for done, path in files_by_step(folder) if done > step]
    later.sort(key=lambda path: not is_record(path.name))  # records first
    for path in [*later, *(path for path in folder.iterdir() if HALF.fullmatch(path.name))]:
        path.unlink(missing_ok=True)


def clear(folder: Path) -> list[Path]:
    """Remove a folder's checkpoints, and it where nothing else is in it; return what else there is."""
    undo(folder, -1)
    others = sorted(folder.iterdir())
    if not others:
        folder.rmdir()
    return others


def warn(text: str) -> None:
    """Print a warning."""
    print(f"warning: {text}", flush=True)


def with_room(write: Callable[[], object], folder: Path, tell: Callable[[str], None]) -> None:
    """Write what results need, on a full disk in the place of all checkpoints but the newest, or when there is room.

    RuntimeError where it stays full; that it waits is told.
    """
    began, freed = time.monotonic(), False
    while True:
        try:
            write()
            return
        except (OSError, SafetensorError) as error:
            if not is_full(error):
                raise
            waited_s, told = time.monotonic() - began, f"results wait for room on the disk of {folder}: {error}"
        if waited_s > ROOM_S:
            raise RuntimeError(f"no room for {ROOM_S / 60:.0f} minutes: {told}: make room and run again")
        if freed:
            tell(told)
            time.sleep(ROOM_EVERY_S)
        trim(folder, 1)
        freed = True


class Saver:
    """Writes checkpoints in a thread, one at a time; one that cannot be written is counted, and told."""

    def __init__(
        self, folder: Path, every_s: float, sections: tuple[Data, Model, Train],
        tell: Callable[[str], None] = warn, missed: int = 0,
    ) -> None:  # fmt: skip
        self.folder, self.every_s, self.sections, self.tell, self.missed = folder, every_s, sections, tell, missed
        self.begun = time.monotonic()
        self.thread: threading.Thread | None = None
        folder.mkdir(parents=True, exist_ok=True)

    def due(self) -> bool:
        """Tell whether it is time for another checkpoint and the last one is written."""
        writes = self.thread is not None and self.thread.is_alive()
        return not writes and time.monotonic() - self.begun >= self.every_s

    def save(self, state: State, metrics: bytes) -> None:
        """Begin to write a checkpoint, after the last one is written; `metrics` are the lines up to its step."""
        self.wait()
        self.begun = time.monotonic()
        self.thread = threading.Thread(target=self._save, args=(state, metrics))
        self.thread.start()

    def wait(self) -> None:
        """Wait until the last checkpoint is written."""
        if self.thread is not None:
            self.thread.join()

    def _save(self, state: State, metrics: bytes) -> None:
        try:
            self._write(state, metrics, trims=True)
        except (OSError, SafetensorError) as error:
            self.missed += 1
            step = state.progress.step
            self.tell(f"no checkpoint of step {step:,} in {self.folder}: {error}, {self.missed:,} missed so far")
        else:
            trim(self.folder)

    def _write(self, state: State, metrics: bytes, trims: bool) -> None:
        """Write a checkpoint, on a full disk in the place of all but the newest; what cannot be is not left in part."""
        try:
            write_state(self.folder, state, metrics, self.sections)
        except (OSError, SafetensorError) as error:
            for step, path in files_by_step(self.folder):
                if step == state.progress.step and not path.name.startswith("best-"):
                    path.unlink(missing_ok=True)
            if not (trims and is_full(error)):
                raise
            trim(self.folder, 1)
            self._write(state, metrics, trims=False)
