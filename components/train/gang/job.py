"""Training as the stage's small pod has it done: a job of one or more nodes is made, followed, and gone afterwards.

The job goes by the name of its work, so that a stage that is started again finds it. While the stage lives it renews a
lease in the store; nodes whose lease runs out end by themselves, because a killed stage cannot delete anything.
"""

import re
import time
from typing import Any

from components.train.attempts import forbid_memory
from components.train.gang.api import ClusterAwayError, JobApi
from components.train.gang.state import JobState, job_state
from components.train.gang.work import LEASE_S, RENEW_EVERY_S, GangSpec, Work, job_key, renew_lease, write_work
from components.train.stopping import raise_if_stopped, sigterm_as_error
from wordmill.store.pods import MORE, SHORT, pod_text
from wordmill.store.stages import StageResult, StoppedError
from wordmill.store.storage import Object, Store

LOOK_EVERY_S = 5.0
WARNINGS_EVERY_S = 30.0
AWAY_S = 600.0  # how long Kubernetes may be away
MAKES = 3  # how often a job that somebody deletes is made again
STAMP = re.compile(r"\d{4}-\d\d-\d\dT\S+")  # what the kubelet sets before a pod's line, and not before its own words


def train_by_job(store: Store, spec: GangSpec, work: Work) -> StageResult:
    """Train by a job and return what its first node stored; the job is gone afterwards, whatever happens.

    But where the stage's pod is stopped and the job belongs to its workflow: another attempt, after a node was emptied,
    finds the job at work. Where the whole run was stopped, its report deletes the job.
    """
    if (made := take_result(store, work.key)) is not None:
        return made  # the stage was stopped between the job's end and its own
    write_work(store, work)
    follower, stopped = Follower(store, JobApi(spec, work.key)), False
    try:
        with sigterm_as_error():
            state = follower.run()
    except StoppedError:
        stopped = True
        raise
    finally:
        if not (stopped and follower.leave()):
            follower.remove()
    if (made := take_result(store, work.key)) is None:
        if follower.killed:
            forbid_memory(store, work.run_tag, follower.killed)
        raise RuntimeError(describe_failure(store, work, follower, state))
    return made


def take_result(store: Store, key: str) -> StageResult | None:
    """Return the stored result of this work; None where it is not there or not whole."""
    result = store.get_json(job_key(key, "result.json"))
    if result is None:
        return None
    objects = [Object(**entry) for entry in result["objects"]]
    if not all(store.has(entry) for entry in objects):
        return None
    return StageResult(files={}, stored=tuple(objects), facts=result["facts"], metrics=result["metrics"],
                curves=result["curves"], made_by=tuple(result["made_by"]))  # fmt: skip


def own_failures(store: Store, key: str) -> list[dict[str, Any]]:
    """Return what nodes have stored that failed by themselves, not because they or others were stopped or lost."""
    failures = (store.get_json(name) for name in store.keys(job_key(key, "failure.")))
    return [failure for failure in failures if failure and not failure["stopped"]]


def describe_failure(store: Store, work: Work, follower: "Follower", state: JobState) -> str:
    """Say why the job left no result: what its first failed node stored, and what Kubernetes says of all pods.

    A node that was killed has stored nothing, and one that was stopped ended because of another.
    """
    first = min(own_failures(store, work.key), key=lambda failure: float(failure["time"]), default=None)
    ended = f"job {follower.api.name} ended, {state.text}, without a result"
    why = first["error"] if first else follower.killed or ended
    pods = [f"pod {pod}: {text}" for pod, text in follower.pods.items()][-work.nodes :]  # not all that were lost
    if work.nodes == 1:
        log = f"its log is in bucket '{store.bucket}' at {job_key(work.key, 'log.0.txt')}"
        return "\n".join([why, *pods, log])
    logs = f"the nodes' logs are in bucket '{store.bucket}' at {job_key(work.key, 'log.<node>.txt')}"
    return "\n".join([f"training on {work.nodes} nodes failed: {why}", *pods, logs])


def size_text(spec: GangSpec) -> str:
    """Return how many nodes of how many processes a job has, in words."""
    nodes, processes = spec.nodes, spec.processes
    return f"{nodes} node{'s' if nodes > 1 else ''} of {processes} process{'es' if processes > 1 else ''}"


class Follower:
    """Brings a job to its end, one short look after the other, and prints what changes."""

    def __init__(self, store: Store, api: JobApi) -> None:
        self.store, self.api = store, api
        self.alive = False  # made here, or seen at work: another attempt's dead job is not waited for
        self.makes = 0
        self.text = self.logging = self.stamp = ""  # logging: the pod, by its uid, whose lines the stamp is of
        self.pods: dict[str, str] = {}
        self.killed = ""  # what is said of a pod that was killed for want of memory, which would come again
        self.told: set[tuple[str, str]] = set()
        self.renewed = self.warned = -RENEW_EVERY_S
        self.answered = time.monotonic()
        self.logged: float | None = None
        self.owned = False  # by the workflow of this pod

    def run(self) -> JobState:
        """Follow the job to its end and return its last state; RuntimeError where Kubernetes stays away."""
        while True:
            self.renew()
            try:
                if (state := self.look()) is not None:
                    return state
                self.answered = time.monotonic()
            except ClusterAwayError as error:
                self.tell("Kubernetes", str(error))
                if time.monotonic() - self.answered > AWAY_S:
                    raise RuntimeError(f"no answer for {AWAY_S:.0f} s: {error}") from None
            time.sleep(LOOK_EVERY_S)
            raise_if_stopped()

    def renew(self) -> None:
        """Renew the lease twice a minute; a store that is away for a while is told, and no reason to stop."""
        if time.monotonic() - self.renewed < RENEW_EVERY_S:
            return
        try:
            renew_lease(self.store, self.api.key)
            self.renewed = time.monotonic()
        except RuntimeError as error:
            self.tell("lease", str(error))

    def look(self) -> JobState | None:
        """Do what the job needs now; its state where it has ended."""
        job = self.api.get()
        self.owned = bool(job and job["metadata"].get("ownerReferences"))
        if job is None:
            return self.begin(JobState(text="gone", ended=True, leaving=False))
        state = job_state(job)
        if state.text != self.text:
            self.text = state.text
            print(f"train: job {self.api.name}: {state.text}", flush=True)
        if state.leaving:
            return None
        if state.ended and not self.alive:
            return self.begin(state, left=True)
        if not self.alive:
            self.alive = True
            print(f"train: job {self.api.name} is at work already: this stage goes on with it", flush=True)
        try:
            self.report(job["metadata"]["uid"])
        except RuntimeError as error:  # such as a machine that is lost, and with it a log: the job itself decides
            self.tell("report", str(error))
        # MindCluster starts pods again whatever they ended with.
        final = state.text.startswith("Restarting") and own_failures(self.store, self.api.key)
        return state if state.ended or final or self.killed else None

    def begin(self, state: JobState, left: bool = False) -> JobState | None:
        """Make the job, or remove one that is `left`; the state where the work is done, as another run may have seen.

        That run has deleted the job, and the checkpoints with it: the work would be done from the start.
        """
        if take_result(self.store, self.api.key) is not None:
            return state
        if left:
            print(f"train: job {self.api.name} is left from before: it is made again", flush=True)
            self.api.delete()
        else:
            self.make()
        return None

    def make(self) -> None:
        """Make the job, a few times where somebody deletes it."""
        if self.makes == MAKES:
            raise RuntimeError(f"job {self.api.name} has been made {MAKES} times and is gone again: who deletes it?")
        for name in ("failure.", "starts."):
            for key in list(self.store.keys(job_key(self.api.key, name))):
                self.store.delete(key)
        if self.api.create():
            self.makes += 1
            self.alive = True
            print(f"train: made job {self.api.name}: {size_text(self.api.spec)}", flush=True)

    def report(self, job: str) -> None:
        """Print what is new: of the pods of a job, named by its uid, of Kubernetes's warnings, of the first log."""
        pods = self.api.pods(job)
        leader = self.api.leader(pods)
        for pod in pods:
            name, text = str(pod.metadata.name), pod_text(pod)
            if self.pods.get(name) != text:
                self.pods[name] = text
                print(f"train: pod {name}: {text}", flush=True)
            if text.startswith(SHORT):
                self.killed = f"{text}: {MORE}"
            if name == leader and pod.status.phase != "Pending":
                self.print_log(leader, str(pod.metadata.uid))
        if time.monotonic() - self.warned >= WARNINGS_EVERY_S:
            self.warned = time.monotonic()
            for who, what in self.api.warnings():
                self.tell(who, " ".join(what.split()))

    def print_log(self, leader: str, uid: str) -> None:
        """Print the lines of the first node that were not printed yet; each comes behind its machine's time."""
        if uid != self.logging:
            self.logging, self.stamp, self.logged = uid, "", None
        asked = time.monotonic()
        since_s = None if self.logged is None else asked - self.logged
        for line in self.api.log(leader, since_s):
            stamp, _, text = line.partition(" ")
            if not STAMP.fullmatch(stamp):
                self.tell(f"log of pod {leader}", line)
            elif stamp > self.stamp:
                self.stamp = stamp
                print(text, flush=True)
        self.logged = asked

    def tell(self, who: str, what: str) -> None:
        """Print a trouble once."""
        if (who, what) not in self.told:
            self.told.add((who, what))
            print(f"train: {who}: {what}", flush=True)

    def leave(self) -> bool:
        """Leave a job to the next attempt of the stage where it ends with its workflow at the latest; tell whether."""
        if self.owned:
            print(f"train: job {self.api.name} goes on; another attempt has {LEASE_S:.0f} s to take it up", flush=True)
        return self.owned

    def remove(self) -> None:
        """Delete the job, or say what will end it."""
        try:
            self.api.delete()
        except RuntimeError as error:
            print(f"warning: job {self.api.name} ends when its lease runs out: {error}", flush=True)
