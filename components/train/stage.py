"""Training: a finished one is found, another is done or gone on with, here or by a job."""

import dataclasses
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from components import keys
from components.train.attempts import train_to_end
from components.train.checkpoints import DATA_KEYS, place_in_store, train_inputs
from components.train.folder import finish_folder, run_folder
from components.train.gang.work import GangSpec, Work
from components.train.mirror import forget
from components.train.outcome import collect, store_results
from components.train.parts import in_parts
from components.train.start import find_start, fitted_start
from components.train.watch import Sender
from wordmill.recipe import frameworks
from wordmill.recipe.parsing import from_json
from wordmill.recipe.schedule import batch_of_process
from wordmill.recipe.sections import Data, Model, Train
from wordmill.shards.sets import fetch_index
from wordmill.store.artifacts import Manifest, digest, read_manifest, to_document, whole_manifest
from wordmill.store.stages import OTHER_CODE, StageResult, find_or_make, run_stage
from wordmill.store.storage import Store, hash_file
from wordmill.text.charset import charset_of
from wordmill.training.job import Job
from wordmill.training.loop import TRACE


def run(
    *,
    recipe: str,
    data: str,
    model: str,
    train: str,
    shards: str,
    device: str,
    processes: int,
    gang: str,
    run_tag: str,
    output: str,
) -> str:
    """Train a recogniser with one process per device and store the best and the last weights.

    `recipe` is the recipe's name, "" for a training that MLflow is not told of, `data`, `model` and `train` are its
    sections as JSON, `shards` is the path of the shard stage's manifest, `device` is cpu, cuda or npu. `gang` is empty,
    or says as JSON what the job of one or more nodes, `processes` on each, is to be, which a cluster then runs.
    """

    recogniser = from_json(Model, model)

    def work(store: Store) -> tuple[Manifest, bool]:
        sections = from_json(Data, data), recogniser, from_json(Train, train)
        sender, spec = Sender(store, run_tag, recipe), from_json(GangSpec, gang) if gang else None
        return train_or_find(store, *sections, read_manifest(shards), device, processes, sender, spec)

    return run_stage("train", recogniser.name, run_tag, output, work)


def train_or_find(
    store: Store,
    data: Data,
    model: Model,
    train: Train,
    shards: Manifest,
    device: str,
    processes: int,
    sender: Sender,
    spec: GangSpec | None = None,
) -> tuple[Manifest, bool]:
    """Return the manifest of the trained model and whether it was finished already."""
    frameworks.check_device(device)
    total = processes * spec.nodes if spec else processes
    if spec and (spec.device, spec.processes, spec.framework) != (device, processes, train.framework):
        raise ValueError(f"gang: it is made for {spec.processes} processes on {spec.device} with {spec.framework}, "
                         f"not {processes} on {device} with {train.framework}: compile the pipeline anew")  # fmt: skip
    batch_of_process(train, total)
    start = find_start(store, train.start_from)
    begun = fitted_start(start, data, model, train)
    inputs = training_inputs(data, model, train, shards, start, device)
    # Where a run goes on whatever the number of processes and parts; by other code only where that is asked for.
    resume = digest(inputs)
    train = in_parts(store, resume, (data, model, train), device, total, bool(spec))
    inputs |= {"processes": total, "train": train_inputs(train)}
    ingredients = keys.of_train(train, data, device)
    first = store.put_file(start, start.name) if start else None
    begun |= {"start_weights": dataclasses.asdict(first)} if first else {}
    code, sets = ingredients.digest(), sets_by_use(data, shards.facts["datasets"]) | begun
    if spec:
        work = Work(
            key=digest({"code": code, "inputs": inputs}), resume=resume, nodes=spec.nodes, processes=processes,
            device=device, data=data, model=model, train=train, start=first, shards=to_document(shards),
            recipe=sender.recipe, run_tag=sender.run_tag, code=code, other_code=os.environ.get(OTHER_CODE, ""),
            mlflow_run=os.environ.get("MLFLOW_RUN_ID", ""),
        )  # fmt: skip
        make = partial(make_by_job, store, spec, work, sets)
        result = find_or_make(store, "train", model.name, inputs, make, ingredients)
        forget(store, place_in_store(resume, code, total))
    else:
        with run_folder(store.cache, resume) as folder:
            job = partial(make_job, store, data, model, train, shards, start, device, total, folder, code)
            make = partial(make_here, store, job, resume, sender, sets)
            result = find_or_make(store, "train", model.name, inputs, make, ingredients)
            forget(store, place_in_store(resume, code, total))
            finish_folder(folder)
    return result


def training_inputs(
    data: Data, model: Model, train: Train, shards: Manifest, start: Path | None, device: str
) -> dict[str, Any]:
    """Return what decides on the result of a training, but for the code and the number of processes."""
    # Which samples, and not how they were found; without the recipe's key they are in no key either.
    left_out = {"left_out": [found and found["digest"] for found in leaks_of(data, shards)]}
    return {
        **(left_out if data.leave_out_leaks else {}),
        "data": {name: getattr(data, name) for name in DATA_KEYS},
        "symbols": charset_of(data).symbols,  # a charset file may change under its name
        "model": dataclasses.asdict(model),
        "train": train_inputs(train),
        **sets_by_use(data, shards.facts["indices"]),  # the same samples in the same blocks, whoever packed them
        "start": start and hash_file(start),  # a champion changes under its name, and so may a file
        "device": device,
    }


def leaks_of(data: Data, shards: Manifest) -> list[dict[str, Any] | None]:
    """Return what the shard stage tells of each training set's pictures that are a benchmark's, None where none was."""
    found = shards.facts["leaks"]["sets"] if shards.facts.get("leaks") else {}
    return [found.get(name) for name in data.train]


def sets_by_use(data: Data, known: dict[str, str]) -> dict[str, list[str]]:
    """Return what is known of the data sets that training learns from and validates on."""
    return {"train_sets": [known[name] for name in data.train], "val_sets": [known[name] for name in data.val]}


def make_here(
    store: Store, make: Callable[[], Job], resume: str, sender: Sender, facts: dict[str, Any], _: Path
) -> StageResult:
    """Train on this machine, or go on with it, and store what is left at the end."""
    job = make()
    train_to_end(store, job, resume, sender)
    sender.send_folder(job.folder / TRACE)
    made = store_results(store, collect(job))
    return dataclasses.replace(made, facts=made.facts | facts)


def make_by_job(store: Store, spec: GangSpec, work: Work, facts: dict[str, Any], _: Path) -> StageResult:
    """Train in the pods of a job."""
    from components.train.gang.job import train_by_job  # Kubernetes's client takes a second to import

    made = train_by_job(store, spec, work)
    return dataclasses.replace(made, facts=made.facts | facts)


def make_job(
    store: Store,
    data: Data,
    model: Model,
    train: Train,
    shards: Manifest,
    start: Path | None,
    device: str,
    processes: int,
    folder: Path,
    code: str,
) -> Job:
    """Return a training's job with the indices of its data on this machine; `code` is the digest of what trains."""
    references = shards.facts["datasets"]

    def indices(names: tuple[str, ...]) -> tuple[Path, ...]:
        return tuple(fetch_index(store, references[name], name) for name in names)

    streamed = data.train[0] if data.streamed else ""
    left_out: tuple[Path, ...] = ()
    if data.leave_out_leaks and shards.facts.get("leaks"):
        made = whole_manifest(store, shards.facts["leaks"]["manifest"])
        left_out = tuple(store.fetch(made.object(f"{name}.npy")) for name in data.train)
    return Job(
        data=data, model=model, train=train, train_sets=() if streamed else indices(data.train),
        rendered=whole_manifest(store, references[streamed], streamed).facts["address"] if streamed else "",
        val_sets=indices(data.val), left_out=left_out, start=start, device=device, processes=processes, folder=folder,
        code=code,
    )  # fmt: skip
