"""A training run on a machine: attempts, each from the newest checkpoint, until it ends or no longer gets on."""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from components import keys
from components.train.checkpoints import codes_of, described, newest, place_in_store, prefix_of, step_of
from components.train.folder import prepare_folder
from components.train.launch import Node
from components.train.memory import Machine, ShortOfMemoryError
from components.train.mirror import NONFINITE, Mirror, StoreAwayError, left_out_batches
from components.train.watch import Sender, Watch
from components.train.workers import LostError, run_workers
from wordmill.store.pods import killed_for_memory, own_pod
from wordmill.store.runs import starts_key
from wordmill.store.stages import OTHER_CODE, StoppedError, code_changes
from wordmill.store.storage import Store
from wordmill.training.job import Job
from wordmill.training.state import clear, read_record, records

RESTARTS = 3  # of workers, without a newer checkpoint in between
LOSSES = 3  # of a run's pods, or of its processes on a machine, after which it is not begun again there
KEEP_S = 60.0  # for the last checkpoints of a run that has failed to reach the store


def train_to_end(store: Store, job: Job, resume: str, sender: Sender, lease: Callable[[], None] | None = None) -> None:
    """Train on this machine alone, again where workers are lost; the job's folder has the run's checkpoints.

    `resume` identifies what is trained, by whatever code and number of processes. `lease` is that of the pod of a job,
    which is stopped more slowly and then started again: it is checked every second.
    """
    place, in_job = place_in_store(resume, job.code, job.processes), lease is not None
    found = find(store, job, place, afresh=True)
    reached, restarts = step_of(found), 0
    with counted(store, sender.run_tag, reached, in_job), mirrored(store, job, place) as mirror:
        checks = [mirror.check, *([lease] if lease else [])]
        while True:
            try:
                attempt(job, found, sender, checks, mirror.finish, in_job)
                return
            except LostError as error:
                found = find(store, job, place, afresh=False)
                if step_of(found) > reached:
                    reached, restarts = step_of(found), 0
                if restarts == RESTARTS:
                    again = f"it was started {RESTARTS} times more without reaching another checkpoint"
                    raise RuntimeError(f"{error}\n{again}") from None
                restarts += 1
                why = str(error).splitlines()[0]
                print(f"warning: {why}: it is started again, {restarts} of {RESTARTS}", flush=True)


def train_on_node(
    store: Store,
    job: Job,
    resume: str,
    sender: Sender,
    node: Node,
    check: Callable[[], None],
    begin: Callable[[int], None],
) -> None:
    """Train on one of several machines; LostError where all of them have to start again.

    The first one has the run's checkpoints, and `begin` is told the step that it goes on after. `check` is called
    every second.
    """
    place = place_in_store(resume, job.code, job.processes)
    if node.rank > 0:
        try:
            attempt(job, None, sender, [check], lambda _: None, True, node)
        finally:
            for path in left_out_batches(job.folder):
                with suppress(RuntimeError):  # where the store is away they stay here
                    store.upload(path, f"{prefix_of(place)}{NONFINITE}/{path.name}")
        return
    found = find(store, job, place, afresh=True)
    begin(step_of(found))
    with mirrored(store, job, place) as mirror:
        attempt(job, found, sender, [check, mirror.check], mirror.finish, True, node)


def find(store: Store, job: Job, place: str, afresh: bool) -> Path | None:
    """Return the record of the checkpoint that the run goes on from; ValueError for one of other code."""
    found = newest(store, place, job.folder / "checkpoints", (job.data, job.model, job.train), afresh)
    made_by = codes_of(read_record(found)["progress"]["attempts"]) if found else ()
    if found is None or set(made_by) <= {job.code}:
        return found
    differs = code_changes(store, made_by[-1], keys.of_train(job.train, job.data, job.device))
    told = f"{described(found)} was made by code {', '.join(made_by)}, this code is {job.code}, {differs}"
    match os.environ.get(OTHER_CODE):
        case "reuse":
            print(f"warning: train: {told}: it is gone on with all the same", flush=True)
            return found
        case "afresh":
            print(f"train: {told}: it is put aside, training begins from the start", flush=True)
            clear(job.folder / "checkpoints")
            return None
    raise ValueError(f"{told}: to go on with it all the same, which the results will say for good, --reuse, in make "
                     "REUSE=1; to begin from the start, --afresh, in make AFRESH=1")  # fmt: skip


def attempt(
    job: Job,
    found: Path | None,
    sender: Sender,
    checks: Iterable[Callable[[], None]],
    keep: Callable[[float], object],
    in_job: bool,
    node: Node | None = None,
) -> None:
    """Train from a checkpoint, or from the start, until the workers end."""
    prepare_folder(job.folder, found)
    if found is not None:
        print(f"train: goes on after {described(found)}", flush=True)
    watch = Watch(job, sender)

    def look() -> None:
        watch.look()
        for check in checks:
            check()

    run_workers(replace(job, resume=found), look, keep, in_job, node)


@contextmanager
def counted(store: Store, run_tag: str, step: int, in_job: bool = False) -> Iterator[None]:
    """Count a run's starts from a checkpoint, and refuse one that cannot help: a pod may be lost without a word.

    Whoever starts lost pods again goes on as long as there is another checkpoint since the last loss. What was killed
    for want of memory is begun again by the same run with another limit alone. A stop in order is no loss but in the
    pod of a job, which is started again after it too.
    """
    place, memory = starts_key(run_tag), Machine().memory_bytes()
    known = explained(store.get_json(place) or {})
    if known.get("memory") == memory:
        raise RuntimeError(f"{known['error']}\nthis run does not start it again with the same memory")
    starts = 1 + (known["starts"] if known.get("step") == step else 0)
    if starts > LOSSES:
        raise RuntimeError(f"training was lost or failed {starts - 1} times after step {step:,} without another "
                           f"checkpoint in between: --run-tag {run_tag}, in make RUN_TAG={run_tag}, goes on with it "
                           "in a new run")  # fmt: skip
    if starts > 1:
        print(f"train: start {starts} after step {step:,}, {LOSSES} at most without another checkpoint", flush=True)
    store.put_json(place, {"step": step, "starts": starts, "pod": own_pod(), "limit": memory})
    try:
        yield
    except ShortOfMemoryError as error:
        with suppress(RuntimeError):
            store.put_json(place, {"memory": memory, "error": str(error)})
        raise
    except StoppedError:
        if not in_job:
            _uncount(store, place)
        raise
    _uncount(store, place)


def explained(known: dict[str, Any]) -> dict[str, Any]:
    """Return what is known of a run's last start: its pod may have been killed whole, and could not say for what."""
    pod = known.get("pod", "")
    if pod and pod != own_pod() and (text := killed_for_memory(pod)):
        return {"memory": known["limit"], "error": text}
    return known


def forbid_memory(store: Store, run_tag: str, why: str) -> None:
    """Have a run's training not begin again with the memory that its last start had; `why` says what became of it."""
    with suppress(RuntimeError):  # where the store is away
        if limit := (store.get_json(starts_key(run_tag)) or {}).get("limit"):
            store.put_json(starts_key(run_tag), {"memory": limit, "error": why})


def _uncount(store: Store, place: str) -> None:
    """Begin to count again after an end in order."""
    with suppress(RuntimeError):  # where the store is away
        store.delete(place)


@contextmanager
def mirrored(store: Store, job: Job, place: str) -> Iterator[Mirror]:
    """Mirror a run's checkpoints while it trains; what ends it early says where they are."""
    mirror, checkpoints = Mirror(store, job.folder, place), job.folder / "checkpoints"
    try:
        yield mirror
    except StoppedError as error:
        kept = step_of(next(iter(records(checkpoints)), None))
        where = f"it goes on after step {kept:,}" if kept else "it begins from the start"
        raise StoppedError(f"{error}: {where} when it is run again") from None
    except StoreAwayError as error:
        newest_here = next(iter(records(checkpoints)), checkpoints)
        raise RuntimeError(f"{error}\ntraining has stopped, its last checkpoint is on this machine alone, "
                           f"{newest_here}: run it again here when the store answers") from None  # fmt: skip
    except (RuntimeError, ValueError) as error:
        mirror.finish(KEEP_S)
        raise type(error)(f"{error}\nwhat there is of the run stays in {job.folder} and at {mirror.prefix} of bucket "
                          f"'{store.bucket}'") from None  # fmt: skip
    else:
        mirror.drop()
