"""What finished workers leave, and how it gets into the store however long that is away."""

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

from components.train.checkpoints import codes_of
from components.train.folder import join_logs
from components.train.mirror import AWAY_S, NONFINITE, RETRY_S
from components.train.watch import curves
from wordmill.store.stages import StageResult
from wordmill.store.storage import Object, Store
from wordmill.training.job import Job
from wordmill.training.loop import TRACE, best_name


def collect(job: Job) -> StageResult:
    """Return what finished workers left in their folder."""
    folder = job.folder
    facts: dict[str, Any] = json.loads((folder / "outcome.json").read_text(encoding="utf-8"))
    if facts["stopped_early"]:
        best = facts["best"][0]
        print(f"train: ended after step {facts['steps']:,}: {job.train.patience} validations in a row found no better "
              f"weights than those of step {best['step']:,}, by {job.train.choose_by}", flush=True)  # fmt: skip
    files = {
        "model.safetensors": folder / "best.safetensors",
        "last.safetensors": folder / "last.safetensors",
        "reference.npz": folder / "reference.npz",
        "log.txt": join_logs(folder),
    }
    files |= {name: folder / name for name in (best_name(place) for place in range(2, len(facts["best"]) + 1))}
    for kind in (NONFINITE, TRACE):
        found = sorted(path for path in (folder / kind).rglob("*") if path.is_file())
        files |= {path.relative_to(folder).as_posix(): path for path in found}
    made_by = codes_of(facts["attempts"])
    return StageResult(files=files, facts=facts, curves=curves(folder), made_by=made_by)


def store_results(store: Store, made: StageResult) -> StageResult:
    """Store the files of finished work; RuntimeError that names them where the store stays away for too long."""
    stored = tuple(_store(store, path, name) for name, path in made.files.items())
    return dataclasses.replace(made, files={}, stored=stored)


def _store(store: Store, path: Path, name: str) -> Object:
    away_since = None
    while True:
        try:
            return store.put_file(path, name)
        except RuntimeError as error:
            if away_since is None:
                away_since = time.monotonic()
                print(f"warning: training has ended, its results wait for the store: {error}", flush=True)
            if time.monotonic() - away_since > AWAY_S:
                raise RuntimeError(f"{error}\ntraining has ended, its results are in {path.parent}: run it again on "
                                   "this machine when the store answers") from None  # fmt: skip
            time.sleep(RETRY_S)
