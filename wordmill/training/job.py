"""What a training process is told, and the file that tells it."""

import dataclasses
import json
from pathlib import Path

from wordmill.models.characters import Start, start_from
from wordmill.models.checkpoint import load
from wordmill.recipe.parsing import parse_section, to_json
from wordmill.recipe.sections import Data, Model, Train
from wordmill.store.files import write_atomically


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """What a training process is told: the recipe's sections, data sets, where to run and where to write."""

    data: Data
    model: Model
    train: Train
    train_sets: tuple[Path, ...]  # index files
    val_sets: tuple[Path, ...]
    start: Path | None  # the checkpoint whose weights training starts from; None: fresh ones
    device: str
    processes: int
    folder: Path  # its own: what another attempt at the same training left there is gone on with
    code: str = ""  # the digest of what trains, which checkpoints carry
    resume: Path | None = None  # the record of the checkpoint that training goes on from
    left_out: tuple[Path, ...] = ()  # files with the numbers of samples, of each training set, that go without
    rendered: str = ""  # the address of the training set where it is drawn while training


def write_job(path: Path, job: Job) -> None:
    """Write a job as JSON."""
    write_atomically(path, to_json(job))


def read_job(path: Path) -> Job:
    """Read what `write_job` wrote."""
    return parse_section(Job, json.loads(path.read_bytes()), str(path))


def start_of(job: Job) -> Start | None:
    """Return the weights that a job starts from, fitted to its characters; None: fresh ones."""
    if job.start is None:
        return None
    where = f"train.start_from {job.train.start_from}, file {job.start}"
    return start_from(load(job.start), job.model, job.data, job.train.start_charset, where)
