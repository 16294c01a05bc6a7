"""One run on Kubeflow Pipelines: the compiled pipeline as a version of its own, a run of it, and the run's end."""

import hashlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import kfp_server_api
import yaml

from pipelines.cluster.client import FINISHED, Server
from pipelines.cluster.preflight import accepted_by, check_kept
from pipelines.cluster.site import STAGE_ACCOUNT
from pipelines.output import to_type
from wordmill.store.artifacts import git_commit

WORKFLOW_ID = "{{workflow.uid}}"  # Kubeflow replaces it by the run's id wherever it stands in what it runs

VERSION, NIGHT = ", version ", "--nightly"  # behind the options in a run's description, and among them


@dataclass(frozen=True, kw_only=True)
class UploadedPipeline:
    """A compiled pipeline on the server: ids and names of pipeline and version, and its recipe's experiment."""

    pipeline_id: str
    pipeline: str
    version_id: str
    version: str
    experiment_id: str

    def reference(self) -> kfp_server_api.V2beta1PipelineVersionReference:
        """Return what runs and recurring runs name the version by."""
        made = kfp_server_api.V2beta1PipelineVersionReference
        return made(pipeline_id=self.pipeline_id, pipeline_version_id=self.version_id)


def publish(server: Server, recipe: str, spec: str) -> UploadedPipeline:
    """Upload a compiled pipeline as a version named by commit and digest, unless it is there already."""
    spec = accepted_by(server, spec)
    pipelines, uploads = server.client.pipelines, server.client.pipeline_uploads
    name, version = str(_document(spec)["pipelineInfo"]["name"]), version_name(spec)

    def find_pipeline() -> Any:
        return _first(server.called(name, "list the pipelines", pipelines.pipeline_service_list_pipelines, "pipelines",
                                    namespace=server.namespace))  # fmt: skip

    body = kfp_server_api.V2beta1Pipeline(name=name, display_name=name, namespace=server.namespace or None)
    pipeline = server.found_or_made(f"create pipeline {name}", find_pipeline,
                                    pipelines.pipeline_service_create_pipeline, body)  # fmt: skip

    def find_version() -> Any:
        return _first(server.called(version, "list the versions", pipelines.pipeline_service_list_pipeline_versions,
                                    "pipeline_versions", pipeline_id=pipeline.pipeline_id))  # fmt: skip

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.yaml"
        path.write_text(spec, encoding="utf-8")
        uploaded = server.found_or_made(f"upload {name} {version}", find_version, uploads.upload_pipeline_version,
                                        str(path), name=version, pipelineid=pipeline.pipeline_id)  # fmt: skip
    check_kept(server, uploaded)
    return UploadedPipeline(pipeline_id=pipeline.pipeline_id, pipeline=name, version_id=uploaded.pipeline_version_id,
                            version=version, experiment_id=experiment(server, recipe))  # fmt: skip


def version_name(spec: str) -> str:
    """Return `<commit>[-dirty]-<digest>`: 12 digits of this code's commit, 8 of the sha256 of the compiled text."""
    commit, *dirty = git_commit().split("-")
    return "-".join([commit[:12], *dirty, hashlib.sha256(spec.encode()).hexdigest()[:8]])


def experiment(server: Server, recipe: str) -> str:
    """Return the id of a recipe's experiment, created where it is missing."""
    body = kfp_server_api.V2beta1Experiment(display_name=_experiment_name(recipe), namespace=server.namespace or None)
    create = server.client.experiments.experiment_service_create_experiment
    find = partial(find_experiment, server, recipe)
    return str(server.found_or_made(f"create experiment {body.display_name}", find, create, body).experiment_id)


def find_experiment(server: Server, recipe: str) -> Any:
    """Return a recipe's experiment, None where there is none."""
    listed, name = server.client.experiments.experiment_service_list_experiments, _experiment_name(recipe)
    return _first(server.called(name, "list the experiments", listed, "experiments", namespace=server.namespace))


def tag_of(run: Any) -> str:
    """Return a run's tag; of a scheduled one the server keeps the text in which its id takes the place of a macro."""
    parameters = (run.runtime_config.parameters if run.runtime_config else None) or {}
    return str(parameters.get("run_tag", "")).replace(WORKFLOW_ID, str(run.run_id))


def run_named(server: Server, recipe: str, named: str) -> Any:
    """Return the newest of a recipe's runs that are named by their tag, id or name."""
    found = find_experiment(server, recipe)
    for run in runs_of(server, found.experiment_id) if found else ():
        if named in (tag_of(run), run.run_id, run.display_name):
            return run
    raise ValueError(f"run tag '{named}': the experiment of recipe {recipe} has no run of that tag, id or name to "
                     f"continue: its page and `{to_type('schedules')}` show them")  # fmt: skip


def options_of_run(run: Any) -> str:
    """Return the command line's options that a run was started with, "" where it does not say."""
    return str(run.description or "").rpartition(VERSION)[0]


def is_night(run: Any) -> bool:
    """Tell whether a run is a schedule's, or a night by hand or continued."""
    return bool(run.recurring_run_id) or NIGHT in options_of_run(run).split()


def changed(before: str, now: str) -> str:
    """Say where a run is continued with other options than it was begun with, "" where it is not."""
    begun, words = (" ".join(word for word in text.split() if word != NIGHT) for text in (before, now))
    return "" if begun in ("", words) else f"it was begun with options '{begun}', and goes on with '{words}'\n"


def start_run(server: Server, published: UploadedPipeline, run_tag: str, options: str, again: bool) -> Any:
    """Start a run and return it; `again` continues the work of the earlier runs of this tag, which must have ended.

    options: the command line's, for people who look at the run.
    """
    known = runs_of(server, published.experiment_id) if again else ()
    earlier = [run for run in known if tag_of(run) == run_tag]
    for run in earlier:
        if run.state not in FINISHED:
            raise ValueError(f"run tag '{run_tag}': its run still goes on: {server.page_of(run.run_id)}")
    name = f"{run_tag} ({len(earlier) + 1})" if earlier else run_tag

    listed, create = server.client.runs.run_service_list_runs, server.client.runs.run_service_create_run

    def find() -> Any:
        return _first(server.called(name, "list the runs", listed, "runs", experiment_id=published.experiment_id))

    body = kfp_server_api.V2beta1Run(
        display_name=name, description=f"{options}{VERSION}{published.version}",
        experiment_id=published.experiment_id, pipeline_version_reference=published.reference(),
        runtime_config=kfp_server_api.V2beta1RuntimeConfig(parameters={"run_tag": run_tag}),
        service_account=STAGE_ACCOUNT,
    )  # fmt: skip
    return server.found_or_made(f"start run {name}", find, create, body)


def runs_of(server: Server, experiment_id: str) -> Iterator[Any]:
    """Give the runs of an experiment, the newest first."""
    return server.listed("list the runs", server.client.runs.run_service_list_runs, "runs",
                         experiment_id=experiment_id, sort_by="created_at desc")  # fmt: skip


def _first(entries: list[Any]) -> Any:
    return entries[0] if entries else None


def _document(spec: str) -> dict[str, Any]:
    """Return the first document of a compiled pipeline, the graph; the second is what only a cluster reads."""
    document: dict[str, Any] = next(iter(yaml.load_all(spec, yaml.CSafeLoader)))
    return document


def _experiment_name(recipe: str) -> str:
    return f"wordmill/{recipe}"  # as in MLflow
