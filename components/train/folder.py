"""The folder of a training run, which outlives a killed stage: one process works in it at a time."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from components.train.checkpoints import step_of
from wordmill.store.files import locked, sweep_abandoned
from wordmill.training.records import METRICS
from wordmill.training.state import clear

LEFT_DAYS = 14.0  # a dead run's folder is kept for so long
KEPT = {"checkpoints", "nonfinite", "trace", "log.txt"}  # what another attempt finds
LAUNCHER_LOG, WORKER_LOGS, LOG = "launcher.log", "msrun", "log.txt"


@contextmanager
def run_folder(cache: Path, name: str) -> Iterator[Path]:
    """Give the folder training/<name> of the cache to one process at a time; it stays unless it is removed within."""
    parent = cache / "training"
    sweep_abandoned(parent, LEFT_DAYS, name, remove_folder)
    lock, folder = parent / f"{name}.lock", parent / name
    with locked(lock, waiting=f"train: another process does the same work in {folder}: this one waits"):
        os.utime(lock)
        folder.mkdir(exist_ok=True)
        try:
            yield folder
        finally:
            if not folder.exists():
                lock.unlink(missing_ok=True)


def remove_folder(folder: Path) -> list[Path]:
    """Remove a run's folder, but for what others have put among its checkpoints, which is returned."""
    checkpoints = folder / "checkpoints"
    others = clear(checkpoints) if checkpoints.is_dir() else []
    if not others:
        shutil.rmtree(folder, ignore_errors=True)
    for path in folder.iterdir() if others else ():
        if path.is_dir() and path != checkpoints:
            shutil.rmtree(path, ignore_errors=True)
        elif path != checkpoints:
            path.unlink()
    return others


def finish_folder(folder: Path) -> None:
    """Remove the folder of a run whose results are stored, and say what of others stays there."""
    if others := remove_folder(folder):
        names = ", ".join(path.name for path in others)
        print(f"train: {others[0].parent} stays, it holds what is not this run's: {names}", flush=True)


def prepare_folder(folder: Path, resume: Path | None) -> None:
    """Make a run's folder ready for an attempt that goes on from this record, or begins: undone steps leave nothing."""
    join_logs(folder)
    for path in folder.iterdir():
        if path.is_dir() and path.name not in KEPT:
            shutil.rmtree(path)
        elif path.name not in KEPT:
            path.unlink()
    if resume is not None:
        shutil.copyfile(resume.with_name(f"metrics-{step_of(resume):08}.jsonl"), folder / METRICS)


def join_logs(folder: Path) -> Path:
    """Add to log.txt what the launcher has printed and the logs that msrun writes for its workers, and remove those."""
    path = folder / LOG
    with path.open("ab") as joined:
        for log in (folder / LAUNCHER_LOG, *sorted((folder / WORKER_LOGS).glob("*.log"))):
            if log.exists():
                joined.write(f"--- {log.name}\n".encode() + log.read_bytes())
                log.unlink()
    return path
