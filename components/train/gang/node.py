"""What the container of each node runs: `python -m components.train.gang.node --job KEY`.

One of several learns its place from what Volcano's plugins or MindCluster's operator tell it. It starts this node's
processes and, on the first node, stores checkpoints and the result, last of all jobs/KEY/result.json. It ends by itself
when nobody waits any more. Code RESUME asks for a new start of all nodes, which go on where the last checkpoint is,
code 1 for none.
"""

import argparse
import os
import socket
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

from components.train.attempts import RESTARTS, train_on_node, train_to_end
from components.train.folder import finish_folder, join_logs, run_folder
from components.train.gang.work import LEASE_S, PORT, TASK, Work, job_key, read_work
from components.train.launch import MEET_TIMEOUT_S, Node
from components.train.outcome import collect, store_results
from components.train.stage import make_job
from components.train.stopping import sigterm_as_error
from components.train.watch import Sender
from components.train.workers import LostError
from wordmill.store.artifacts import from_document
from wordmill.store.stages import OTHER_CODE, RESUME, StoppedError, leave_reason
from wordmill.store.storage import Store
from wordmill.training.loop import TRACE

LOOK_EVERY_S = 30.0
# What MindCluster's operator sets: (this node's number, the first node's address, the devices of all nodes). To torch
# RANK is a process's number, and LOCAL_RANK, a list here, one number: no process may inherit these.
OPERATOR = {"pytorch": ("RANK", "MASTER_ADDR", "WORLD_SIZE"),
            "mindspore": ("MS_NODE_RANK", "MS_SCHED_HOST", "MS_WORKER_NUM")}  # fmt: skip
OTHERS = ("LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_PORT", "MS_SCHED_PORT", "MS_ROLE", "MS_LOCAL_WORKER")


def main(key: str) -> None:
    """Do one node's share; what goes wrong is left in jobs/KEY/failure.<node>.json."""
    store = Store.from_environment()
    rank, who = "unplaced", "node unplaced"
    try:
        with sigterm_as_error():  # a container's first process is not ended by a signal that it does not handle
            work = read_work(store, key)
            node = find_node(os.environ, work) if work.nodes > 1 else None
            rank = str(node.rank) if node else "0"
            who = f"node {rank}" if node else f"train {work.model.name}"
            set_variables(work)
            if node:
                print(f"node {rank} of {node.nodes}: the first one is {node.master}", flush=True)
                wait_for_name(node.master, MEET_TIMEOUT_S)
            name = work.resume if rank == "0" else f"{work.resume}.{rank}"
            with run_folder(store.cache, name) as folder:
                train(store, work, node, folder)
                finish_folder(folder)
    except Exception as error:
        what = str(error) if isinstance(error, (ValueError, RuntimeError)) else f"{type(error).__name__}: {error}"
        stopped = isinstance(error, (StoppedError, LostError))
        print(f"error: {who}: {what}", flush=True)
        with suppress(RuntimeError):  # the pod's log has it too
            failure = {"error": what, "time": time.time(), "stopped": stopped}
            store.put_json(job_key(key, f"failure.{rank}.json"), failure)
        leave_reason(f"{who}: {what}")
        sys.exit(RESUME if stopped else 1)


def set_variables(work: Work) -> None:
    """Set the variables that the stage has, and take out what others have set for processes of theirs."""
    for name in (*OPERATOR["pytorch"], *OPERATOR["mindspore"], *OTHERS):
        os.environ.pop(name, None)
    told = {OTHER_CODE: work.other_code, "MLFLOW_RUN_ID": work.mlflow_run}
    os.environ.update({name: value for name, value in told.items() if value})


def find_node(variables: Mapping[str, str], work: Work) -> Node:
    """Return this node's place, from what Volcano's plugins env and svc or MindCluster's operator have set.

    The first node knows itself by its own address: a service's address is no local one, and may not even lead back.
    """
    rank_variable, master_variable, count_variable = OPERATOR[work.train.framework]
    hosts = f"VC_{TASK.upper()}_HOSTS"
    if "VC_TASK_INDEX" in variables and hosts in variables:
        rank, names = int(variables["VC_TASK_INDEX"]), variables[hosts].split(",")
        master, nodes = names[0], len(names)
    elif rank_variable in variables and master_variable in variables:
        rank, master = int(variables[rank_variable]), variables[master_variable]
        nodes = int(variables[count_variable]) // work.processes
    else:
        raise RuntimeError(f"this node's place is not known: neither VC_TASK_INDEX and {hosts} are set (by Volcano's "
                           f"plugins env and svc) nor {rank_variable} and {master_variable} (by MindCluster's "
                           "operator)")  # fmt: skip
    if nodes != work.nodes or not 0 <= rank < nodes:
        raise RuntimeError(f"this is node {rank} of {nodes}, the job is made for {work.nodes} of {work.processes} "
                           "processes: what made the job has changed it")  # fmt: skip
    return Node(rank=rank, nodes=nodes, master=master if rank else variables["POD_IP"], port=PORT)


def wait_for_name(host: str, timeout_s: float) -> None:
    """Wait until a host's name has an address, which a service gives a pod once its container runs."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            socket.getaddrinfo(host, None)
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise RuntimeError(f"the first node, {host}, has had no address for {timeout_s:.0f} s: "
                                   f"{error}") from None  # fmt: skip
        time.sleep(1)


def train(store: Store, work: Work, node: Node | None, folder: Path) -> None:
    """Train, alone or with the other nodes; the first one stores weights, log, outcome and metrics."""
    rank = node.rank if node else 0
    start = store.fetch(work.start) if work.start else None
    job = make_job(
        store, work.data, work.model, work.train, from_document(work.shards, work.key), start, work.device,
        work.processes * work.nodes, folder, work.code,
    )  # fmt: skip
    sender, lease = Sender(store, work.run_tag, work.recipe), Lease(store, work.key)
    try:
        if node is None:
            train_to_end(store, job, work.resume, sender, lease.check)
        else:
            train_on_node(store, job, work.resume, sender, node, lease.check, partial(count_starts, store, work.key))
    finally:
        with suppress(RuntimeError):  # where the store is away, the log in the folder is what there is
            log = join_logs(folder).read_bytes()
            store.put_bytes(job_key(work.key, f"log.{rank}.txt"), log, "text/plain; charset=utf-8")
    if rank == 0:
        sender.send_folder(folder / TRACE)
        made = store_results(store, collect(job))
        objects = [vars(entry) for entry in made.stored]
        result = {"objects": objects, "facts": made.facts, "metrics": made.metrics, "curves": made.curves,
                  "made_by": made.made_by}  # fmt: skip
        store.put_json(job_key(work.key, "result.json"), result)


def count_starts(store: Store, key: str, step: int) -> None:
    """Count how often all nodes have started from a checkpoint; RuntimeError where they no longer get on."""
    known = store.get_json(job_key(key, "starts.json")) or {}
    starts = 1 + (known["starts"] if known.get("step") == step else 0)
    if starts > 1 + RESTARTS:
        raise RuntimeError(f"training was started {starts - 1} times after step {step} and reached no other checkpoint")
    store.put_json(job_key(key, "starts.json"), {"step": step, "starts": starts})


class Lease:
    """Notices that whoever waits for the job is gone, by a document that no longer changes; clocks need not agree."""

    def __init__(self, store: Store, key: str) -> None:
        self.store, self.address = store, job_key(key, "lease.json")
        self.seen: object = None
        self.changed, self.looked = time.monotonic(), -LOOK_EVERY_S

    def check(self) -> None:
        """Look every half minute; RuntimeError when the lease has run out."""
        now = time.monotonic()
        if now - self.looked < LOOK_EVERY_S:
            return
        self.looked = now
        with suppress(RuntimeError):  # the store is away for a while
            found = self.store.get_json(self.address)
            if found != self.seen:
                self.seen, self.changed = found, now
        if now - self.changed > LEASE_S:
            raise RuntimeError(f"{self.address} has not been renewed for {LEASE_S:.0f} s: "
                               "nobody waits for this training")  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m components.train.gang.node", description="one node of a job")
    parser.add_argument("--job", required=True, help="the key below jobs/ in the store")
    main(parser.parse_args().job)
