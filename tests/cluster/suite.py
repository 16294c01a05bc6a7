"""What a site does end to end, case by case; later cases go on with what earlier ones have left."""

import io
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

import yaml
from kubernetes.utils.quantity import parse_quantity

from components.report.cluster import NODE
from pipelines.building import build_pipeline, compiled
from pipelines.cli import command_line, main
from pipelines.cluster.client import FINISHED, connect_kubeflow
from pipelines.cluster.doctor_rights import Cluster
from pipelines.cluster.follow import follow
from pipelines.cluster.site import load_site
from pipelines.cluster.submit import tag_of
from tests.cluster.removal import REMOVALS, runs_by_recipe
from wordmill.recipe.loading import load_recipe
from wordmill.recipe.memory import bytes_needed
from wordmill.store.pods import RUN
from wordmill.store.progress import duration

POLL_S = 5.0
LIMIT_S, TIDY_S = 2700.0, 120.0  # for all cases together, and what of it is kept for cleaning up
BEGIN_S, NIGHTS_S = 900.0, 1800.0  # that a pod may take to begin, and two nights to end
LATE_S = 30.0  # behind the start of training there is a checkpoint
SMALL = ("--smoke",)
# Minutes of training on two processors, and a checkpoint every few seconds of it.
LONG = ("--smoke", "--set", "train.epochs=100", "--set", "data.limit=2000", "--set", "train.checkpoint_minutes=0.1")
CATALOGUE = """
suite_missing:
  {source: "s3://BUCKET/suite/none.zip", reader: label_file, labels: labels.txt, samples: 1000, licence: CC0}
"""
EVERY, OFTEN = "0 */30 * * * *", "0 */6 * * * *"


class MissedError(Exception):
    """What was expected did not happen."""


class LeftOutError(Exception):
    """A case that this site does not allow; the text says why."""


@dataclass
class Suite:
    """The site, a recipe of the suite's own, and the long run that several cases share."""

    folder: Path
    recipe: str
    log: TextIO
    cluster: Cluster = field(default_factory=lambda: Cluster(load_site()))
    long_run: str = ""

    @property
    def path(self) -> str:
        return str(self.folder / f"{self.recipe}.yaml")

    def verb(self, *arguments: str) -> tuple[int, str]:
        """Run a verb as people do; return its code and all that it says."""
        code, said = 1, io.StringIO()
        try:
            with redirect_stdout(said), redirect_stderr(said):
                main(list(arguments))
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
            said.write("" if isinstance(end.code, int) or end.code is None else f"{end.code}\n")
            if end.code in ("stopped", 130):  # which a verb makes of Ctrl-C
                raise KeyboardInterrupt from None
        finally:
            self.log.write(f"$ {' '.join(arguments)}\n{said.getvalue()}code {code}\n")
            self.log.flush()
        return code, said.getvalue()

    def runs(self) -> list[Any]:
        """Return the recipe's runs, the newest first."""
        return runs_by_recipe(connect_kubeflow(), self.recipe)

    def begin(self, *options: str) -> str:
        """Start a run and return its id."""
        code, said = self.verb("submit", self.path, *options)
        expect(code == 0, said)
        return str(self.runs()[0].run_id)

    def follow(self, run_id: str, *options: str) -> tuple[int, str]:
        """Follow a run of these options to its end."""
        said, server = io.StringIO(), connect_kubeflow()
        tag = next(tag_of(run) for run in self.runs() if run.run_id == run_id)
        with redirect_stdout(said):
            code = follow(server, run_id, self.spec(*options), tag)
        self.log.write(f"# follow {run_id}\n{said.getvalue()}code {code}\n")
        if code == 130:
            raise KeyboardInterrupt
        return code, said.getvalue()

    def spec(self, *options: str) -> str:
        """Return the compiled pipeline of these options."""
        return compiled(build_pipeline(command_line().parse_args(["submit", self.path, *options]))[1])

    def training_pod(self, run_id: str, but: str = "") -> str:
        """Wait for the pod that trains, another than `but`, and return its name."""
        core, namespace = self.cluster.core, load_site().namespace
        for _ in waited(BEGIN_S, "training to begin"):
            for pod in core.list_namespaced_pod(namespace, label_selector=f"{RUN}={run_id}").items:
                place = (pod.metadata.annotations or {}).get(NODE, "")
                if ".train." in place and pod.status.phase == "Running" and pod.metadata.name != but:
                    return str(pod.metadata.name)
        raise AssertionError

    def delete_pod(self, name: str) -> None:
        """Delete a pod by force, as a node that is gone does."""
        self.cluster.core.delete_namespaced_pod(name, load_site().namespace, grace_period_seconds=0)


def expect(true: bool, said: str) -> None:
    """Miss what does not hold, with the last lines of what was said."""
    if not true:
        raise MissedError(" | ".join(said.strip().splitlines()[-4:]))


def waited(limit_s: float, what: str) -> Iterator[None]:
    """Give a moment to look, again and again; MissedError at the limit."""
    started = time.monotonic()
    while time.monotonic() - started < limit_s:
        yield
        time.sleep(POLL_S)
    raise MissedError(f"waited for {duration(limit_s)} for {what}")


def doctor(suite: Suite) -> None:
    code, said = suite.verb("doctor")
    expect(code == 0, "\n".join(line for line in said.splitlines() if line.startswith("fail")) or said)


def submit_and_follow(suite: Suite) -> None:
    code, said = suite.verb("submit", suite.path, *SMALL, "--wait")
    expect(code == 0, said)
    for stage in ("fetch", "shard", "train", "gate"):
        expect(any(line.split()[1:] == [stage, "SUCCEEDED"] for line in said.splitlines()), said)


def unchanged_run(suite: Suite) -> None:
    code, said = suite.verb("submit", suite.path, *SMALL, "--wait")
    expect(code == 0, said)


def failing_stage(suite: Suite) -> None:
    catalogue = suite.folder / "missing.yaml"
    catalogue.write_text(CATALOGUE.replace("BUCKET", load_site().s3.bucket), encoding="utf-8")
    options = ("--catalogue", str(catalogue), "--set", "data.train=[suite_missing]")
    code, said = suite.verb("submit", suite.path, *options, "--wait")
    expect(code == 1 and "none.zip" in said and "suite_missing" in said, said)


def out_of_memory(suite: Suite) -> None:
    options = (*SMALL, "--set", "train.accumulation=1", "--set", "train.validations_per_epoch=1")
    document = next(iter(yaml.load_all(suite.spec(*options), yaml.CSafeLoader)))
    resources = document["deploymentSpec"]["executors"]["exec-train"]["container"]["resources"]
    limit = int(parse_quantity(resources["resourceMemoryLimit"]))
    recipe = load_recipe(Path(suite.path), ("train.accumulation=1",))
    batch = 1024
    while bytes_needed(load_recipe(Path(suite.path), (f"train.global_batch={batch}", "train.accumulation=1")).train,
                       recipe.data, recipe.model, 1) < 2 * limit:  # fmt: skip
        batch *= 2
    big = (*options, "--set", f"train.global_batch={batch}", "--set", f"data.limit={batch}")
    code, said = suite.verb("submit", suite.path, *big, "--wait")
    expect(code == 1 and ("out of memory" in said or "OOMKilled" in said), said)


def pod_deleted_early(suite: Suite) -> None:
    suite.long_run = suite.begin(*LONG)
    first = suite.training_pod(suite.long_run)
    suite.delete_pod(first)
    suite.training_pod(suite.long_run, but=first)


def pod_deleted_late(suite: Suite) -> None:
    second = suite.training_pod(suite.long_run)
    time.sleep(LATE_S)
    suite.delete_pod(second)
    suite.training_pod(suite.long_run, but=second)


def terminate(suite: Suite) -> None:
    server = connect_kubeflow()
    server.ask("stop the run", server.client.runs.run_service_terminate_run, suite.long_run)
    code, said = suite.follow(suite.long_run, *LONG)
    expect(code == 1 and "was stopped by hand" in said, said)


def continue_by_id(suite: Suite) -> None:
    code, said = suite.verb("submit", suite.path, *LONG, "--run-tag", suite.long_run, "--wait")
    expect(code == 0, said)


def schedule(suite: Suite) -> None:
    code, said = suite.verb("schedule", suite.path, *SMALL, "--cron", EVERY)
    expect(code == 0 and "the watchdog does not watch" in said, said)
    code, said = suite.verb("schedules")
    expect(code == 0 and f"{suite.recipe} nightly" in said, said)


def second_person(suite: Suite) -> None:
    code, said = suite.verb("schedule", suite.path, *SMALL, "--cron", OFTEN)
    expect(code == 0 and "it replaces what ran" in said, said)


def two_nights(suite: Suite) -> None:
    """The first night has something new, the second has not: both are green, and the second fetches nothing."""
    for _ in waited(NIGHTS_S, "two nights"):
        nights = [run for run in reversed(suite.runs()) if run.recurring_run_id]
        ended = [run for run in nights if run.state in FINISHED]
        expect(all(run.state == "SUCCEEDED" for run in ended), f"nights ended as {[run.state for run in ended]}")
        if len(ended) >= 2:
            expect("fetch" in succeeded(ended[0]), "the first night fetched nothing")
            expect("fetch" not in succeeded(ended[1]), "the second night fetched though nothing was new")
            return


def succeeded(run: Any) -> list[str]:
    """Return the names of a run's tasks that did their work."""
    server = connect_kubeflow()
    whole = server.ask("ask for the run", server.client.runs.run_service_get_run, run.run_id)
    details = (whole.run_details.task_details if whole.run_details else None) or []
    return [task.display_name for task in details if task.state == "SUCCEEDED"]


def unschedule(suite: Suite) -> None:
    for _ in waited(BEGIN_S, "the last night's end"):
        code, said = suite.verb("unschedule", suite.recipe)
        expect(code == 0, said)
        if "left schedule" not in said:
            return


def wrong_token(suite: Suite) -> None:
    with token("wrong"):
        code, said = suite.verb("schedules")
    if code == 0:
        raise LeftOutError("this server asks nobody for a token")
    expect("refuses with 401" in said or "refuses with 403" in said or "a page for people" in said, said)


def somebody_elses_token(suite: Suite) -> None:
    other = os.environ.get("WORDMILL_SECOND_TOKEN")
    if not other:
        raise LeftOutError("WORDMILL_SECOND_TOKEN names no second person")
    with token(other):
        code, said = suite.verb("schedules")
    expect(code == 1 and "refuses with 403" in said, said)


@contextmanager
def token(value: str) -> Iterator[None]:
    if "KF_PIPELINES_ENDPOINT" not in os.environ and "KUBERNETES_SERVICE_HOST" not in os.environ:
        raise LeftOutError("without KF_PIPELINES_ENDPOINT Kubernetes is asked, which passes no token on")
    before = os.environ.get("KFP_EXISTING_TOKEN")
    os.environ["KFP_EXISTING_TOKEN"] = value
    try:
        yield
    finally:
        del os.environ["KFP_EXISTING_TOKEN"]
        if before is not None:
            os.environ["KFP_EXISTING_TOKEN"] = before


def clean_up(suite: Suite) -> None:
    """Remove what the suite has made on the server, and what its runs recorded where this machine knows the site's."""
    troubles = []
    for remove in REMOVALS:
        try:
            remove(connect_kubeflow(), suite.recipe)
        except RuntimeError as error:  # which keeps nothing else from being removed
            troubles.append(str(error))
    expect(not troubles, "\n".join(troubles))


CASES: tuple[Callable[[Suite], None], ...] = (
    doctor, wrong_token, somebody_elses_token, submit_and_follow, unchanged_run, failing_stage, out_of_memory,
    pod_deleted_early, pod_deleted_late, terminate, continue_by_id, schedule, second_person, two_nights, unschedule,
    clean_up,
)  # fmt: skip


def run_cases(suite: Suite, cases: tuple[Callable[[Suite], None], ...] = CASES) -> int:
    """Run the cases, print one line for each with its time, and return how many were missed.

    Whatever happens, Ctrl-C too, what was made is removed in the end.
    """
    missed, began, waiting = 0, time.monotonic(), list(cases)
    while waiting:
        case, started, outcome = waiting.pop(0), time.monotonic(), "ok"
        try:
            with limited(LIMIT_S - (0.0 if case is clean_up else TIDY_S) - (started - began)):
                case(suite)
        except LeftOutError as error:
            outcome = f"left out: {error}"
        except KeyboardInterrupt:
            missed, outcome, waiting = missed + 1, "stopped", [clean_up] if clean_up in waiting else []
        except Exception as error:  # a site does what nobody has thought of, too
            missed += 1
            kind = "" if isinstance(error, (MissedError, RuntimeError, ValueError)) else f"{type(error).__name__}: "
            outcome = f"MISSED: {kind}{' '.join(str(error).split())}"
            suite.log.write(traceback.format_exc())
        taken = duration(time.monotonic() - started)
        print(f"{taken:>8}  {case.__name__.replace('_', ' '):<22} {outcome}", flush=True)
    return missed


@contextmanager
def limited(left_s: float) -> Iterator[None]:
    """Miss a case where the time of all is over: what waits for ever on a site is followed for ever."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise MissedError(f"the {duration(LIMIT_S)} of all cases are over")

    if left_s <= 0:
        stop(0, None)
    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, left_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
