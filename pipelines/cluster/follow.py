"""A run followed to its end: each change of a stage, what keeps it from beginning, and at last why it failed."""

import os
import time
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import yaml

from pipelines.cluster.client import FINISHED, RejectedCallError, Server, UnavailableError
from pipelines.cluster.pods import RunPods, Trouble
from pipelines.cluster.site import load_site
from wordmill.store.progress import duration
from wordmill.store.storage import Store

POLL_S = 10.0
PODS_EVERY_S = 30.0
AWAY_S = 600.0  # how long Kubeflow may be away, refuse a token that cannot be reviewed now, or answer with its faults
PENDING_S = 120.0  # that a pod may wait before it is told why
VAIN_S = 600.0  # after which a pod that waits for what does not come by itself is not waited for any more
SHORT_S = 120.0  # an attempt that fails so soon has got nowhere
REPEATS = 5  # of such attempts of one task, while no other gets on, end a run
TOLD = "why is in the report on the run's page and in the stages' logs"


def follow(server: Server, run_id: str, spec: str, run_tag: str = "") -> int:
    """Print every change of a stage's state until the run ends; 0 if it succeeded. Ctrl-C leaves the run alone."""
    follower = FollowedRun(server, run_id, spec, run_tag)
    try:
        return follower.run()
    except KeyboardInterrupt:
        print(f"\nthe run goes on: {server.page_of(run_id)}", flush=True)
        return 130


class FollowedRun:
    """What is known of a run so far."""

    def __init__(self, server: Server, run_id: str, spec: str, run_tag: str) -> None:
        self.server, self.run_id, self.run_tag = server, run_id, run_tag
        self.names = stage_names(spec)
        self.namespace = server.namespace or load_site().namespace
        self.pods = RunPods(run_id, self.namespace, self.names)
        self.states: dict[str, str] = {}
        self.attempts: dict[str, tuple[str, float]] = {}  # the engine's id of an attempt -> state, since when
        self.failures = Counter[str]()  # of a task, after a short time, since another got on
        self.told: set[str] = set()
        self.started = self.answered = time.monotonic()
        self.looked, self.away = -PODS_EVERY_S, False

    def run(self) -> int:
        """Look until the run ends, and return the exit code."""
        while True:
            run = self._ask()
            if run is not None:
                self._take_in(run)
                if run.state in FINISHED:
                    return self._end(run)
                if (vain := self._in_vain()) and run.state != "CANCELING":
                    return self._give_up(vain)
            time.sleep(POLL_S)

    def _ask(self) -> Any:
        """Return the run; None where the server is away, which is told once; RuntimeError where it stays away."""
        try:
            run = self.server.ask_once("ask for the run", self.server.client.runs.run_service_get_run, self.run_id)
        except (RejectedCallError, UnavailableError) as error:
            if time.monotonic() - self.answered > AWAY_S:
                page = self.server.page_of(self.run_id)
                raise RuntimeError(f"{error}; so for {duration(AWAY_S)}; the run itself goes on: {page}") from error
            if not self.away:
                self._say(f"{error}; the run itself goes on, and is asked for again for {duration(AWAY_S)}")
            self.away = True
            return None
        if self.away:
            self._say("Kubeflow answers again")
        self.answered, self.away = time.monotonic(), False
        return run

    def _take_in(self, run: Any) -> None:
        """Print what has changed of stages, and count attempts that got nowhere."""
        latest: dict[str, Any] = {}
        for name, task in tasks_of(run, self.names):
            self._count(name, task)
            if name not in latest or _time(task) >= _time(latest[name]):
                latest[name] = task
        for name, task in latest.items():
            if self.states.get(name) != task.state:
                self.states[name] = task.state
                self._say(f"{name:<32} {task.state}")

    def _count(self, name: str, task: Any) -> None:
        """Count a failure of a task that came soon; whatever succeeds is progress of the run."""
        key = task.task_id or name
        before, since = self.attempts.get(key, ("", time.monotonic()))
        if before == task.state:
            return
        self.attempts[key] = task.state, time.monotonic()
        if task.state == "SUCCEEDED":
            self.failures.clear()
        if task.state == "FAILED" and _lived(task, time.monotonic() - since) < SHORT_S:
            self.failures[name] += 1

    def _in_vain(self) -> str:
        """Say what Kubernetes keeps waiting, once, and return why it is not worth while to wait any more; else ""."""
        if time.monotonic() - self.looked >= PODS_EVERY_S:
            self.looked = time.monotonic()
            for name, trouble in self.pods.troubles().items():
                waits_s = trouble.waits_s or 0.0
                if waits_s >= PENDING_S and f"{name}: {trouble.text}" not in self.told:
                    self.told.add(f"{name}: {trouble.text}")
                    self._say(f"{name} has waited for {duration(waits_s)}: {trouble.text}")
                if waits_s >= VAIN_S and trouble.vain:
                    return f"{name} waits in vain: {trouble.text}"
        for name, count in self.failures.items():
            if count >= REPEATS:
                trouble = self.pods.troubles().get(name, Trouble(text="its log says why"))
                return f"{name} has failed {count} times, each within {duration(SHORT_S)}: {trouble.text}"
        return ""

    def _give_up(self, why: str) -> int:
        """Stop a run that only waits or repeats itself."""
        terminate = self.server.client.runs.run_service_terminate_run
        self.server.ask("stop the run", terminate, self.run_id)
        print(f"error: {why}: the run was stopped: {self.server.page_of(self.run_id)}", flush=True)
        return 1

    def _end(self, run: Any) -> int:
        self._say(f"{run.display_name:<32} {run.state}")
        if run.state == "SUCCEEDED":
            return 0
        cause = f": {run.error.message}" if run.error and run.error.message else ""
        what = "was stopped by hand" if _was_stopped(run) else f"ended as {run.state}{cause}"
        print(f"error: the run {what}", flush=True)
        for line in self._reasons(run):
            print(f"  {line}", flush=True)
        print(f"  {self.server.page_of(self.run_id)}", flush=True)
        return 1

    def _reasons(self, run: Any) -> Iterator[str]:
        """Give each failed stage's own sentence and where its log is, as far as anybody here knows them."""
        troubles = {name: item for name, item in self.pods.troubles().items() if item.waits_s is None}
        recorded = recorded_errors(self.run_tag)
        yield from recorded
        failed = {name: _said(task) for name, task in tasks_of(run, self.names) if task.state == "FAILED"}
        for name in dict.fromkeys([*troubles, *failed]):
            trouble = troubles.get(name, Trouble(text=failed.get(name, "")))
            if trouble.text and not recorded:
                yield f"{name}: {trouble.text}"
            if trouble.pod:
                yield f"{name}: its log: kubectl -n {self.namespace} logs {trouble.pod} -c main"
        if failed and not troubles:
            why = "their logs are on the run's page" if recorded else TOLD
            yield f"failed: {', '.join(failed)}; {why}"

    def _say(self, text: str) -> None:
        print(f"{duration(time.monotonic() - self.started):>8}  {text}", flush=True)


def recorded_errors(run_tag: str) -> list[str]:
    """Return what a run's report says went wrong, where this machine's environment names the site's S3 or MLflow."""
    try:
        if run_tag and os.environ.get("WORDMILL_BUCKET"):
            summary = Store.from_environment().get_json(f"runs/{run_tag}/summary.json")
            return list(summary["errors"]) if summary else []
        if run_tag and os.environ.get("MLFLOW_TRACKING_URI"):
            from components.report.compare.runs import find_run  # MLflow takes seconds to import
            from wordmill.store.experiments import run_document

            return list(run_document(find_run(run_tag).run_id, "summary.json")["errors"])
    except (RuntimeError, ValueError):
        pass  # what Kubernetes says is told instead
    return []


def stage_names(spec: str) -> dict[str, str]:
    """Return the display name of every task of a compiled pipeline by its key and by itself: servers report either."""
    document: dict[str, Any] = next(iter(yaml.load_all(spec, yaml.CSafeLoader)))
    graphs = [document["root"], *document["components"].values()]
    tasks = [item for graph in graphs for item in graph.get("dag", {}).get("tasks", {}).items()]
    return {name: task["taskInfo"]["name"] for key, task in tasks for name in (key, task["taskInfo"]["name"])}


def tasks_of(run: Any, names: dict[str, str]) -> Iterator[tuple[str, Any]]:
    """Give name and details of each attempt of a stage that has begun, none of the engine's drivers and executors."""
    for task in (run.run_details.task_details if run.run_details else None) or []:
        if task.display_name in names and task.state and task.state != "RUNTIME_STATE_UNSPECIFIED":
            yield names[task.display_name], task


def _time(task: Any) -> float:
    begun = task.start_time or task.create_time
    return begun.timestamp() if isinstance(begun, datetime) else 0.0


def _lived(task: Any, seen_s: float) -> float:
    """Return for how many seconds an attempt lived by the server's account, else as far as it was seen."""
    if isinstance(task.start_time, datetime) and isinstance(task.end_time, datetime):
        return (task.end_time - task.start_time).total_seconds()
    return seen_s


def _was_stopped(run: Any) -> bool:
    """Tell whether somebody has stopped a run: what it ends as then differs with the server's version."""
    return run.state == "CANCELED" or any(past.state == "CANCELING" for past in run.state_history or [])


def _said(task: Any) -> str:
    return " ".join(task.error.message.split()) if task.error and task.error.message else ""
