"""Training: workers in a process group of their own, watched line by line until they end."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.recognition import frameworks
from components.recognition.artifacts import (
    SOURCE,
    Manifest,
    code_digest,
    digest,
    read_manifest,
    to_document,
    whole_manifest,
)
from components.recognition.charset import charset_of
from components.recognition.progress import Progress
from components.recognition.recipe import Data, Model, Train, from_json, to_json
from components.recognition.schedule import batch_of_process
from components.recognition.shards import fetch_index
from components.recognition.stages import Made, find_or_make, run_stage
from components.recognition.storage import Store, hash_file
from components.recognition.training import Job, die_with_parent, write_job
from components.train.gang import GangSpec, Work
from components.train.start import find_start
from components.train.stopping import sigterm_as_error

if TYPE_CHECKING:  # MLflow takes seconds to import, which a finished training need not
    from components.recognition import tracking

LOOK_EVERY_S = 1.0
LAST_LINES = 20  # of a failed worker's log


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

    `recipe` is the recipe's name, `data`, `model` and `train` are its sections as JSON, `shards` is the path of
    the shard stage's manifest, `device` is cpu, cuda or npu. `gang` is empty, or says as JSON what the job of
    several nodes, `processes` on each, is to be, which a cluster then runs.
    """

    def work(store: Store) -> tuple[Manifest, bool]:
        sections = from_json(Data, data), from_json(Model, model), from_json(Train, train)
        sender, spec = Sender(store, run_tag, recipe), from_json(GangSpec, gang) if gang else None
        return train_or_find(store, *sections, read_manifest(shards), device, processes, sender, spec)

    return run_stage("train", from_json(Model, model).name, run_tag, output, work)


def train_or_find(
    store: Store,
    data: Data,
    model: Model,
    train: Train,
    shards: Manifest,
    device: str,
    processes: int,
    sender: "Sender",
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
    references = shards.facts["datasets"]
    inputs = {
        "data": {name: getattr(data, name) for name in ("charset", "space", "height", "width", "channels", "middle")},
        "symbols": charset_of(data).symbols,  # a charset file may change under its name
        "model": dataclasses.asdict(model),
        "train": dataclasses.asdict(train),
        "train_sets": [references[name] for name in data.train],
        "val_sets": [references[name] for name in data.val],
        "start": start and hash_file(start),  # a champion changes under its name, and so may a file
        "device": device,
        "processes": total,
    }
    uses = (frameworks.PACKAGES[train.framework],)

    def make(folder: Path) -> Made:
        if spec:
            from components.train.cluster_job import train_on_nodes  # Kubernetes's client takes a second to import

            first = dataclasses.asdict(store.put_file(start, start.name)) if start else {}
            work = Work(
                key=digest({"code": code_digest("train", uses), **inputs}), nodes=spec.nodes, processes=processes,
                device=device, data=to_json(data), model=to_json(model), train=to_json(train), start=first,
                shards=to_document(shards), recipe=sender.recipe, run_tag=sender.run_tag,
            )  # fmt: skip
            return train_on_nodes(store, spec, work)
        job = make_job(store, data, model, train, shards, start, device, total, folder)
        watch = Watch(job, sender)
        run_workers(job, watch, store.cache / "logs" / f"{folder.name}.txt")
        return collect(job, watch)

    return find_or_make(store, "train", model.name, inputs, make, uses)


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
) -> Job:
    """Return a training's job with the indices of its data on this machine."""
    references = shards.facts["datasets"]

    def indices(names: tuple[str, ...]) -> tuple[Path, ...]:
        return tuple(fetch_index(store, references[name], name) for name in names)

    streamed = data.train[0] if data.streamed else ""
    return Job(
        data=data, model=model, train=train, train_sets=() if streamed else indices(data.train),
        rendered=whole_manifest(store, references[streamed], streamed).facts["address"] if streamed else "",
        val_sets=indices(data.val), start=start, device=device, processes=processes, folder=folder,
    )  # fmt: skip


def run_workers(job: Job, watch: "Watch", kept_log: Path, node: frameworks.Node | None = None) -> None:
    """Start this machine's workers and watch them to their end; `node` is its place among several.

    RuntimeError where they fail, and nothing of them is left.
    """
    write_job(job.folder / "job.json", job)
    here = job.processes // node.nodes if node else job.processes
    command = frameworks.launch(job.train.framework, job.device, here, job.folder / "job.json", node)
    variables = frameworks.environment(job.train.framework, job.device, here)
    search = frameworks.prepended("PYTHONPATH", SOURCE.parent)
    with (job.folder / "launcher.log").open("wb") as log, sigterm_as_error():
        process = subprocess.Popen(
            command, env={**os.environ, **variables, "PYTHONPATH": search}, stdin=subprocess.DEVNULL,
            stdout=log, stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=die_with_parent,
        )  # fmt: skip
        try:
            while process.poll() is None:
                time.sleep(LOOK_EVERY_S)
                watch.look()
        finally:
            kill_group(process)
    watch.look()
    leads = node is None or node.rank == 0  # the one that has the outcome
    if process.returncode or (leads and not (job.folder / "outcome.json").exists()):
        raise RuntimeError(describe_failure(job, process.returncode, kept_log))


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill what is left of the launcher's process group; workers outside it die with the launcher."""
    with suppress(ProcessLookupError):  # all have ended by themselves
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def describe_failure(job: Job, code: int, kept_log: Path) -> str:
    """Say why the workers failed: the first worker's own error, else the end of the log, which is kept."""
    kept_log.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(join_logs(job.folder), kept_log)
    told = sorted(job.folder.glob("failure.*.txt"), key=lambda path: path.stat().st_mtime_ns)
    if told:
        what = told[0].read_text(encoding="utf-8")
    else:
        lines = kept_log.read_text(encoding="utf-8", errors="replace").splitlines()
        what = "\n".join(["its last lines are:", *lines[-LAST_LINES:]])
    return f"training failed with code {code}: {what}\nthe whole log is {kept_log}"


def join_logs(folder: Path) -> Path:
    """Write log.txt: what the launcher printed, then the logs that msrun writes for its workers."""
    path = folder / "log.txt"
    with path.open("wb") as joined:
        for log in (folder / "launcher.log", *sorted((folder / "msrun").glob("*.log"))):
            joined.write(f"--- {log.name}\n".encode() + log.read_bytes())
    return path


def collect(job: Job, watch: "Watch") -> Made:
    """Return what finished workers left in their folder."""
    facts: dict[str, Any] = json.loads((job.folder / "outcome.json").read_text(encoding="utf-8"))
    files = {
        "model.safetensors": job.folder / "best.safetensors",
        "last.safetensors": job.folder / "last.safetensors",
        "reference.npz": job.folder / "reference.npz",
        "log.txt": join_logs(job.folder),
    }
    metrics = {"val/accuracy": facts["val_accuracy"], "train/images_per_s": facts["images_per_s"]}
    return Made(files=files, facts=facts, metrics=metrics, curves=watch.curves)


class Sender:
    """Sends points to MLflow while it answers; training goes on without it."""

    def __init__(self, store: Store, run_tag: str, recipe: str) -> None:
        self.store, self.run_tag, self.recipe = store, run_tag, recipe
        self.run: tracking.Run | None = None
        self.answers = True

    def send(self, points: list["tracking.Point"]) -> None:
        """Send (name, value, step, unix time in s) points; the first failure is told, and no other is sought."""
        if not self.answers or not points:
            return
        from components.recognition import tracking

        try:
            self.run = self.run or tracking.run(self.store, self.run_tag, self.recipe)
            self.run.log_metrics(points)
        except RuntimeError as error:
            self.answers = False
            print(f"warning: training goes on without live metrics: {error}", flush=True)


class Watch:
    """Follows metrics.jsonl: progress for people, points for MLflow, curves for the manifest."""

    def __init__(self, job: Job, sender: Sender) -> None:
        self.job, self.sender = job, sender
        self.offset = 0
        self.progress: Progress | None = None
        self.latest: dict[str, float] = {}
        self.curves: dict[str, list[tuple[int, float, float]]] = {}

    def look(self) -> None:
        """Take in the lines written since the last look."""
        lines = self._new_lines()
        self.sender.send(
            [(name, value, line["step"], line["time"]) for line in lines for name, value in line["metrics"].items()]
        )
        for line in lines:
            for name, value in line["metrics"].items():
                self.curves.setdefault(name, []).append((line["step"], value, line["time"]))
            self.latest |= line["metrics"]
            if self.progress is None:
                total = line["steps"] * self.job.train.global_batch
                self.progress = Progress("train", total, "images", already=line["images"])
            self.progress.update(line["images"], self.note())

    def note(self) -> str:
        """Return the latest loss and validation accuracy."""
        accuracy = self.latest.get("val/accuracy")
        validated = "" if accuracy is None else f"  validation accuracy {100 * accuracy:.1f} %"
        return f"loss {self.latest.get('train/loss', float('nan')):.3f}{validated}"

    def _new_lines(self) -> list[dict[str, Any]]:
        path = self.job.folder / "metrics.jsonl"
        if not path.exists():
            return []
        with path.open("rb") as file:
            file.seek(self.offset)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]  # the worker may be in the middle of a line
        self.offset += len(whole)
        return [json.loads(line) for line in whole.splitlines()]
