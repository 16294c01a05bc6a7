"""One pipeline run on this machine, in subprocesses or in containers of kfp.local, and its summary."""

import contextlib
import io
import json
import logging
import os
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any, TextIO

from kfp import local
from kfp.dsl.graph_component import GraphComponent
from kfp.local import subprocess_task_handler
from kfp.local.orchestrator.enhanced_dag_orchestrator import ConditionEvaluator

from pipelines.building import new_run_tag
from pipelines.local import conditions, services, stages
from pipelines.local.opening import open_local_run
from pipelines.local.summary import summary_text
from wordmill.store.files import locked, write_atomically
from wordmill.store.storage import Object, Store


def run_locally(pipeline: GraphComponent, recipe: str, in_containers: bool = False, run_tag: str = "") -> int:
    """Run a pipeline to its end, print its summary and return the exit code: 0 if every stage did its work.

    `run_tag` is a new one unless it is given.
    """
    stages.start_warm()
    lock = services.STATE / "run.lock"  # of this working tree
    with locked(lock, waiting=f"another run holds {lock}: waiting until it ends"):
        services.settings()
        store = Store.from_environment()
        run_tag = run_tag or new_run_tag(recipe)
        folder = services.STATE / "runs" / run_tag
        runner = _runner(pipeline, folder / "tasks", in_containers)
        folder.mkdir(parents=True, exist_ok=True)
        if stages.call(open_local_run, run_tag, recipe, folder.parent, environment=dict(os.environ)):
            return 1
        print(f"run {run_tag}", flush=True)
        error = _execute(pipeline, runner, run_tag, folder)
        summary = _summary(store, run_tag, folder / "tasks")
        (folder / "open").unlink()
    if summary is None:
        print(f"error: the run ended without a summary: {error}: see {folder / 'log.txt'}", file=sys.stderr)
        return 1
    page = keep_report(store, folder, run_tag, summary)
    print(summary_text(summary, page))
    if error and summary["ok"]:
        print(f"error: {error}: see {folder / 'log.txt'}", file=sys.stderr)
    print(folder / "summary.json")
    return 0 if summary["ok"] and not error else 1


def _runner(pipeline: GraphComponent, tasks: Path, in_containers: bool) -> local.SubprocessRunner | local.DockerRunner:
    if in_containers:
        from pipelines.local import containers

        return containers.runner(pipeline, services.STATE, tasks)
    subprocess_task_handler.run_local_subprocess = stages.run_forked
    return local.SubprocessRunner(use_venv=False)


def _execute(
    pipeline: GraphComponent, runner: local.SubprocessRunner | local.DockerRunner, run_tag: str, folder: Path
) -> str:
    """Run the pipeline's tasks and return what the engine said went wrong, "" for nothing."""
    _leave_cluster(pipeline)
    ConditionEvaluator.evaluate_condition = staticmethod(conditions.holds)
    local.init(runner, pipeline_root=str(folder / "tasks"), raise_on_error=True)
    with (
        warnings.catch_warnings(),
        (folder / "log.txt").open("w", encoding="utf-8") as log,
        contextlib.redirect_stdout(StageOutput(sys.stdout, log)),
    ):
        warnings.simplefilter("ignore")  # resources and images mean nothing to subprocesses
        logging.disable(logging.INFO)  # the engine's account of every task's inputs and outputs
        try:
            pipeline(run_tag=run_tag)
        except RuntimeError as error:
            return str(error)
        finally:
            logging.disable(logging.NOTSET)
    return _unfinished_tasks(folder / "tasks")


def _leave_cluster(pipeline: GraphComponent) -> None:
    """Take out what is for clusters, which lose pods: here training is no job's, and a failed stage ends the run."""
    spec = pipeline.pipeline_spec
    if "gang" in (given := spec.root.input_definitions.parameters):
        given["gang"].default_value.struct_value.Clear()
    for dag in (spec.root.dag, *(component.dag for component in spec.components.values())):
        for task in dag.tasks.values():
            task.ClearField("retry_policy")


def _unfinished_tasks(folder: Path) -> str:
    """Name the tasks that ended without the engine's record of their outputs: a success that is none."""
    tasks = {path.parent for path in folder.glob("*/*/*") if path.name != "executor_output.json"}
    lacking = sorted(task.name for task in tasks if not (task / "executor_output.json").exists())
    return f"tasks without outputs: {', '.join(lacking)}" if lacking else ""


def _summary(store: Store, run_tag: str, tasks: Path) -> dict[str, Any] | None:
    """Return a run's summary from the store, else the one beside the report's outputs, where the store took none."""
    with contextlib.suppress(RuntimeError):
        if found := store.get_json(f"runs/{run_tag}/summary.json"):
            return found
    here = _last(tasks, "summary.json")
    return None if here is None else dict(json.loads(here.read_bytes()))


def _last(tasks: Path, name: str) -> Path | None:
    """Return the file of this name that a task has left last beside its outputs."""
    return max(tasks.glob(f"*/*/{name}"), key=lambda path: path.stat().st_mtime_ns, default=None)


def keep_report(store: Store, folder: Path, run_tag: str, summary: dict[str, Any]) -> Path:
    """Put summary.json, report.html and the trace of --profile beside the run's log and return the report's path."""
    page, here = folder / "report.html", _last(folder / "tasks", "report.html")
    text = here.read_bytes() if here else store.get_bytes(f"runs/{run_tag}/report.html") or b""
    write_atomically(page, text.decode())
    for entry in summary["trace"]:
        path = folder / entry["name"]
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(store.fetch(Object(**entry)), path)
    write_atomically(folder / "summary.json", json.dumps(summary | {"report": str(page)}, indent=1))
    return page


class StageOutput(io.TextIOBase):
    """Passes on what stages print, without the engine's own lines; the log file gets everything."""

    def __init__(self, terminal: TextIO, log: TextIO) -> None:
        self.terminal, self.log = terminal, log
        self.rest = ""
        self.in_dump = False  # inside the JSON that the engine prints of every task's input

    def write(self, text: str) -> int:
        """Write text; whole lines are shown at once, without the engine's indentation."""
        self.log.write(text)
        self.log.flush()
        *lines, self.rest = (self.rest + text).split("\n")
        for line in lines:
            if self._is_a_stages(line):
                # Not by `print`: the engine replaces it by one that indents.
                self.terminal.write(f"{line.removeprefix('    ')}\n")
                self.terminal.flush()
        return len(text)

    def _is_a_stages(self, line: str) -> bool:
        if self.in_dump:
            self.in_dump = line != "    }"
            return False
        self.in_dump = line.endswith("Got executor_input:")
        return bool(line.strip(" -")) and "[KFP Executor" not in line
