"""The MLflow run of a pipeline run; the registry, its aliases `candidate`, `champion` and `best` of all champions."""

import getpass
import json
import logging
import os
import shutil
import socket
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.entities import Metric, Param, RunTag
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_GIT_COMMIT, MLFLOW_SOURCE_NAME, MLFLOW_SOURCE_TYPE, MLFLOW_USER

from wordmill.store.artifacts import git_commit
from wordmill.store.files import atomic_folder, locked
from wordmill.store.storage import Store
from wordmill.store.wire import hush

# Else MLflow looks for Databricks's package in the whole search path, several times for every request.
sys.modules.setdefault("dbruntime", None)  # type: ignore[arg-type]

Point = tuple[str, float, int, float]  # name, value, step, unix time in s

MOST_ENTRIES = 1000  # entries: the most that MLflow's log-batch call takes, metrics, parameters and tags together
COMMIT = MLFLOW_GIT_COMMIT  # the tag with a run's commit
MODEL, GATE = "wordmill.model", "wordmill.gate"  # tags of a version: what trained it, what the gate did with it
LOGGED = "models:/"  # the address of a model that a run has logged begins so, its id follows
TAGS_AND_PARAMETERS = 100  # the most of either kind in one call
# Of what MLflow's pages are, which is generative AI unless told: older ones go by a tag, newer ones by the address.
KIND = {"mlflow.experimentKind": "custom_model_development"}
MODEL_TRAINING = "workflowType=machine_learning"
# MLflow's own patience is 7 retries of 120 s each: a stage would seem to hang. The last: no advertisement in logs.
SETTINGS = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
            "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true"}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Version:
    """One version of a registered model."""

    version: str
    source: str
    tags: dict[str, str]


class Run:
    """The MLflow run of one pipeline run; every call is one request or a few, however much is logged."""

    def __init__(self, client: MlflowClient, run_id: str, experiment_id: str) -> None:
        self.client, self.run_id, self.experiment_id = client, run_id, experiment_id

    @property
    def url(self) -> str:
        """Return the address of the run's page."""
        return page_of(self.experiment_id, self.run_id)

    def page_of_file(self, path: str) -> str:
        """Return where MLflow's pages show a file or folder of the run's artifacts, from wherever they are opened."""
        return f"#/experiments/{self.experiment_id}/runs/{self.run_id}/artifacts/{path}?{MODEL_TRAINING}"

    def log_metrics(self, points: Iterable[Point]) -> None:
        """Log (name, value, step, unix time in s) points."""
        metrics = [Metric(name, value, round(at * 1000), step) for name, value, step, at in points]
        for start in range(0, len(metrics), MOST_ENTRIES):
            with asking("log metrics"):
                self.client.log_batch(self.run_id, metrics=metrics[start : start + MOST_ENTRIES])

    def log_params(self, parameters: dict[str, str]) -> None:
        """Log parameters; MLflow refuses another value for a name that is logged already."""
        entries = [Param(name, value) for name, value in parameters.items()]
        for start in range(0, len(entries), TAGS_AND_PARAMETERS):
            with asking("log parameters"):
                self.client.log_batch(self.run_id, params=entries[start : start + TAGS_AND_PARAMETERS])

    def set_tags(self, tags: dict[str, str]) -> None:
        """Set up to 100 tags."""
        with asking("set tags"):
            self.client.log_batch(self.run_id, tags=[RunTag(name, value) for name, value in tags.items()])

    def log_artifact(self, path: Path, folder: str = "") -> None:
        """Upload a file, or everything in a directory, below `folder` of the run's artifacts."""
        with asking(f"upload {path.name}"):
            upload = self.client.log_artifacts if path.is_dir() else self.client.log_artifact
            upload(self.run_id, str(path), folder or None)

    def reopen(self) -> None:
        """Show the run as running again, whatever it ended as; MLflow keeps the time of that end until the next."""
        with asking("reopen the run"):
            self.client.update_run(self.run_id, status="RUNNING")

    def finish(self, succeeded: bool, stopped: bool = False) -> None:
        """End the run as FINISHED or FAILED, or as KILLED where somebody has stopped it."""
        with asking("end the run"):
            self.client.set_terminated(self.run_id, "KILLED" if stopped else "FINISHED" if succeeded else "FAILED")


def open_run(store: Store, run_tag: str, recipe: str = "") -> Run:
    """Return the MLflow run of this pipeline run: the injected MLFLOW_RUN_ID, the one in the store, or a new one.

    The recipe names a new run's experiment, `wordmill/<recipe>`, where its name goes without: pages cut long names.
    """
    client, key = connect(), f"runs/{run_tag}/mlflow.json"
    run_id = os.environ.get("MLFLOW_RUN_ID") or (store.get_json(key) or {}).get("run_id")
    if run_id:
        with asking("find the run"):
            found = _unless("RESOURCE_DOES_NOT_EXIST", client.get_run, run_id)
        if found:  # else the server has lost it
            return Run(client, run_id, found.info.experiment_id)
    with asking("create a run"):
        experiment_id = _experiment(client, f"wordmill/{recipe}".rstrip("/"))
        run_id = _run_of(client, experiment_id, run_tag)
        if run_id is None:
            tags, shown = source_tags(run_tag, recipe), run_tag.removeprefix(f"{recipe}-")
            created = client.create_run(experiment_id, tags=tags, run_name=shown)
            run_id = _run_of(client, experiment_id, run_tag) or str(created.info.run_id)
    store.put_json(key, {"run_id": run_id})
    return Run(client, run_id, experiment_id)


def source_tags(run_tag: str, recipe: str) -> dict[str, str]:
    """Return the tags by which MLflow shows where a run comes from: its command, code, user and machine."""
    in_pod = "KUBERNETES_SERVICE_HOST" in os.environ
    command = f"make submit PIPELINE={recipe}" if in_pod else f"make run RECIPE={recipe}"
    tags = {"wordmill.run_tag": run_tag, "wordmill.host": socket.gethostname(), MLFLOW_SOURCE_NAME: command,
            MLFLOW_SOURCE_TYPE: "JOB" if in_pod else "LOCAL", COMMIT: git_commit()}  # fmt: skip
    with suppress(OSError, KeyError):  # an image's user has no name
        tags[MLFLOW_USER] = getpass.getuser()
    return tags


def registered_name(recipe: str) -> str:
    """Return what a recipe's recogniser is registered as."""
    return f"wordmill-{recipe}"


def holder(name: str, alias: str) -> Version | None:
    """Return the version with an alias, `champion` or `best`, or None where no model has it yet."""
    client = connect()
    with asking(f"look for the {alias} of {name}"):
        model = _unless("RESOURCE_DOES_NOT_EXIST", client.get_registered_model, name)
        if model is None or alias not in model.aliases:
            return None
        return _version(client.get_model_version(name, model.aliases[alias]))


def find_version(name: str, which: str) -> Version:
    """Return a version of a registered model by its number or by an alias; ValueError where there is none."""
    client = connect()
    by_number, by_alias = client.get_model_version, client.get_model_version_by_alias
    kind, call = ("version", by_number) if which.isdigit() else ("alias", by_alias)
    with asking(f"look for {name}, {which}"):
        found = _unless("RESOURCE_DOES_NOT_EXIST INVALID_PARAMETER_VALUE", call, name, which)
    if found is None:
        raise ValueError(f"MLflow at {tracking_uri()} has no model '{name}' with the {kind} '{which}'")
    return _version(found)


def download_model(version: Version, folder: Path) -> Path:
    """Return the folder of a registered model's files, downloaded into one of its own below `folder` the first time."""
    if not version.source.startswith(LOGGED):
        raise ValueError(f"version {version.version} is of {version.source}, which is no model that a run has logged")
    whole = folder / version.source.removeprefix(LOGGED)
    with locked(folder / f"{whole.name}.lock", remove=True):
        if not whole.is_dir():
            for left in folder.glob(f"{whole.name}.*.part"):  # of a download that was broken off
                shutil.rmtree(left, ignore_errors=True)
            with asking(f"download {version.source}"), atomic_folder(whole) as part:
                download_artifacts(artifact_uri=version.source, dst_path=str(part), tracking_uri=tracking_uri())
    return whole


def registered(name: str, model: str) -> Version | None:
    """Return the version that holds the model of this manifest reference `train/<key>`, or None."""
    with asking(f"look for {model} among the versions of {name}"):
        found = connect().search_model_versions(f"name = '{name}' AND tags.`{MODEL}` = '{model}'")
    return _version(found[0]) if found else None


def sources(name: str) -> set[str]:
    """Return the addresses of the files of all versions of a model."""
    with asking(f"look for the versions of {name}"):
        return {str(found.source) for found in connect().search_model_versions(f"name = '{name}'")}


def register(name: str, *, model: str, source: str, run_id: str, description: str) -> str:
    """Register a model under its manifest reference `train/<key>`, once, as the candidate, and return its version.

    `source` is the address of its files. A model that is registered already keeps its version.
    """
    client, tags, known = connect(), {MODEL: model}, registered(name, model)
    with asking(f"register {name}"):
        if not known:
            _unless("RESOURCE_ALREADY_EXISTS", client.create_registered_model, name)
            model_id = source.removeprefix(LOGGED) if source.startswith(LOGGED) else None
            made = client.create_model_version(name, source, run_id, tags, description=description, model_id=model_id)
            _delete_doubles(client, name, model, str(made.version))
        version = known.version if known else str(made.version)
        _move_alias(client, name, "candidate", version)
    return version


def mark(name: str, version: str, outcome: str) -> None:
    """Write on a version what the gate did with it, in a word or two."""
    with asking(f"mark version {version} of {name}"):
        connect().set_model_version_tag(name, version, GATE, outcome)


def set_alias(name: str, alias: str, version: str) -> None:
    """Move an alias, `champion` or `best`, to this version."""
    with asking(f"make version {version} of {name} its {alias}"):
        _move_alias(connect(), name, alias, version)


def _run_of(client: MlflowClient, experiment_id: str, run_tag: str) -> str | None:
    """Return the run of a pipeline run, if there is one; others, of a lost answer that was asked for again, go."""
    tagged = f"tags.`wordmill.run_tag` = '{run_tag}'"
    found = client.search_runs([experiment_id], tagged, order_by=["attributes.start_time ASC", "attributes.run_id ASC"])
    for double in found[1:]:
        client.delete_run(double.info.run_id)
    return str(found[0].info.run_id) if found else None


def _delete_doubles(client: MlflowClient, name: str, model: str, version: str) -> None:
    """Delete what asking again has registered beside a version."""
    for double in client.search_model_versions(f"name = '{name}' AND tags.`{MODEL}` = '{model}'"):
        if str(double.version) != version:
            client.delete_model_version(name, double.version)


def _version(found: ModelVersion) -> Version:
    return Version(version=str(found.version), source=found.source, tags=dict(found.tags))


def connect() -> MlflowClient:
    """Return a client of the server that MLFLOW_TRACKING_URI names."""
    for variable, value in SETTINGS.items():
        os.environ.setdefault(variable, value)
    logging.getLogger("mlflow").setLevel(logging.WARNING)  # it tells of every model version that it makes
    hush()
    return MlflowClient(tracking_uri=tracking_uri(), registry_uri=tracking_uri())


def tracking_uri() -> str:
    """Return MLFLOW_TRACKING_URI; RuntimeError where it is not set."""
    if uri := os.environ.get("MLFLOW_TRACKING_URI"):
        return uri
    raise RuntimeError("MLFLOW_TRACKING_URI is not set: it is the address of the MLflow server")


def page_of(experiment_id: str, run_id: str) -> str:
    """Return the address of a run's page: the site's public one, where WORDMILL_MLFLOW_PAGES names it."""
    pages = os.environ.get("WORDMILL_MLFLOW_PAGES") or tracking_uri()
    return f"{pages.rstrip('/')}/#/experiments/{experiment_id}/runs/{run_id}?{MODEL_TRAINING}"


@contextmanager
def asking(what: str) -> Iterator[None]:
    """Turn what goes wrong with MLflow while it is asked for this into one RuntimeError with its address."""
    try:
        yield
    except (MlflowException, OSError, json.JSONDecodeError) as error:  # the last one: an answer that is cut off
        reason = " ".join(str(error).split())
        raise RuntimeError(f"cannot {what}: MLFLOW_TRACKING_URI {tracking_uri()}: {reason}: check the address and that "
                           "the server runs") from error  # fmt: skip


def _experiment(client: MlflowClient, name: str) -> str:
    if found := client.get_experiment_by_name(name):
        return str(found.experiment_id)
    made = _unless("RESOURCE_ALREADY_EXISTS", lambda named: client.create_experiment(named, tags=KIND), name)
    return str(made or client.get_experiment_by_name(name).experiment_id)  # another run has just made it


def _move_alias(client: MlflowClient, name: str, alias: str, version: str) -> None:
    """Move an alias, a second time where the first fails: two runs at once may both insert what is new to both."""
    try:
        client.set_registered_model_alias(name, alias, version)
    except MlflowException as error:
        if error.error_code != "BAD_REQUEST":
            raise
        client.set_registered_model_alias(name, alias, version)


def _unless(codes: str, call: Callable[..., Any], *arguments: str) -> Any:
    """Return what a call returns, None where MLflow refuses it with one of these codes."""
    try:
        return call(*arguments)
    except MlflowException as error:
        if error.error_code in codes.split():
            return None
        raise
