"""What the suite takes away again: all that its recipe, whose name nobody else has, left on a site."""

import os
from collections.abc import Callable
from typing import Any

from pipelines.cluster.client import FINISHED, Server
from pipelines.cluster.schedule import schedules_of
from pipelines.cluster.submit import find_experiment, runs_of, tag_of
from wordmill.store import tracking
from wordmill.store.storage import Store


def runs_by_recipe(server: Server, recipe: str) -> list[Any]:
    """Return a recipe's runs, the newest first."""
    found = find_experiment(server, recipe)
    return list(runs_of(server, found.experiment_id)) if found else []


def _schedules(server: Server, recipe: str) -> None:
    """Remove schedules, and with them the runs of theirs that still go on."""
    delete = server.client.recurring_runs.recurring_run_service_delete_recurring_run
    if found := find_experiment(server, recipe):
        for old in schedules_of(server, found.experiment_id, f"{recipe} nightly"):
            server.ask("delete the schedule", delete, old.recurring_run_id)


def _documents(server: Server, recipe: str) -> None:
    """Remove what the runs wrote into the bucket, where it is named here; objects are `make sweep`'s."""
    if not os.environ.get("WORDMILL_BUCKET"):
        return
    store = Store.from_environment()
    places = [f"runs/{tag_of(run)}/" for run in runs_by_recipe(server, recipe)]
    for place in (*places, f"nights/{recipe}.json", f"heartbeats/{recipe}.json"):
        for key in list(store.keys(place)):
            store.delete(key)


def _tracked(server: Server, recipe: str) -> None:
    """Remove the recipe's experiment and models from MLflow, where it is named here."""
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        return
    client = tracking.connect()
    with tracking.asking("remove the suite's runs"):
        if found := client.get_experiment_by_name(f"wordmill/{recipe}"):
            client.delete_experiment(found.experiment_id)
        tracking._unless("RESOURCE_DOES_NOT_EXIST", client.delete_registered_model, tracking.registered_name(recipe))


def _runs(server: Server, recipe: str) -> None:
    calls = server.client.runs
    for run in runs_by_recipe(server, recipe):
        if run.state not in FINISHED:
            server.ask("stop the run", calls.run_service_terminate_run, run.run_id)
        server.ask("delete the run", calls.run_service_delete_run, run.run_id)


def _pipelines(server: Server, recipe: str) -> None:
    calls, named = server.client.pipelines, recipe.replace("_", "-")
    for name in (f"wordmill-{named}", f"wordmill-{named}-nightly"):
        for pipeline in server.called(name, "list the pipelines", calls.pipeline_service_list_pipelines, "pipelines",
                                      namespace=server.namespace):  # fmt: skip
            versions = server.listed("list the versions", calls.pipeline_service_list_pipeline_versions,
                                     "pipeline_versions", pipeline_id=pipeline.pipeline_id)  # fmt: skip
            for version in list(versions):
                server.ask("delete the version", calls.pipeline_service_delete_pipeline_version, pipeline.pipeline_id,
                           version.pipeline_version_id)  # fmt: skip
            server.ask("delete the pipeline", calls.pipeline_service_delete_pipeline, pipeline.pipeline_id)


def _experiment(server: Server, recipe: str) -> None:
    delete = server.client.experiments.experiment_service_delete_experiment
    if found := find_experiment(server, recipe):
        server.ask("delete the experiment", delete, found.experiment_id)


# Documents go by the runs' tags, which are known as long as the runs are there.
REMOVALS: tuple[Callable[[Server, str], None], ...] = (
    _schedules, _documents, _tracked, _runs, _pipelines, _experiment,
)  # fmt: skip
