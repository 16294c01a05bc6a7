"""What a training process is told, and the file that tells it."""

import dataclasses
import json
from pathlib import Path

from wordmill.recipe.parsing import from_json, to_json
from wordmill.recipe.sections import Data, Model, Train
from wordmill.store.artifacts import write_atomically


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
    resume: Path | None = None  # the record of the checkpoint that training goes on from
    rendered: str = ""  # the address of the training set where it is drawn while training


def write_job(path: Path, job: Job) -> None:
    """Write a job as JSON; its sections are JSON texts."""
    sections = {name: to_json(getattr(job, name)) for name in ("data", "model", "train")}
    sets = {name: [str(index) for index in getattr(job, name)] for name in ("train_sets", "val_sets")}
    rest = {
        "start": job.start and str(job.start),
        "resume": job.resume and str(job.resume),
        "rendered": job.rendered,
        "device": job.device,
        "processes": job.processes,
        "folder": str(job.folder),
    }
    write_atomically(path, json.dumps(sections | sets | rest, indent=1))


def read_job(path: Path) -> Job:
    """Read what `write_job` wrote."""
    document = json.loads(path.read_text(encoding="utf-8"))
    return Job(
        data=from_json(Data, document["data"]),
        model=from_json(Model, document["model"]),
        train=from_json(Train, document["train"]),
        train_sets=tuple(Path(index) for index in document["train_sets"]),
        rendered=document["rendered"],
        val_sets=tuple(Path(index) for index in document["val_sets"]),
        start=document["start"] and Path(document["start"]),
        resume=document["resume"] and Path(document["resume"]),
        device=document["device"],
        processes=document["processes"],
        folder=Path(document["folder"]),
    )
