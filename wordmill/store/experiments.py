"""What MLflow's pages show of a run and of its experiment: columns, data sets, tables, and where they are."""

import json
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from mlflow import MlflowClient
from mlflow.artifacts import load_dict
from mlflow.entities import Dataset, DatasetInput, Experiment, InputTag, Metric
from mlflow.exceptions import MlflowException
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.mlflow_tags import (
    MLFLOW_DATASET_CONTEXT,
    MLFLOW_EXPERIMENT_PRIMARY_METRIC_GREATER_IS_BETTER,
    MLFLOW_EXPERIMENT_PRIMARY_METRIC_NAME,
    MLFLOW_LOGGED_ARTIFACTS,
    MLFLOW_RUN_NOTE,
)
from mlflow.utils.rest_utils import http_request, verify_rest_response

from wordmill.store.tracking import KIND, LOGGED, MODEL_TRAINING, MOST_ENTRIES, Run, asking, connect, tracking_uri

NOTE = MLFLOW_RUN_NOTE  # the tag that is a run's description
VIEW = "wordmill"  # the key of the view of an experiment's runs that shows its columns
VIEW_TAG = f"mlflow.sharedViewState.{VIEW}"
VIEW_NAME = "Benchmarks"
COLUMNS = 40  # of a view, for which MLflow has room
RUN = "/api/2.0/mlflow/runs/get"
HISTORIES = "/ajax-api/2.0/mlflow/metrics/get-history-bulk-interval"
EXAMPLE = "recogniser/example.png"  # among a logged model's data: its input example as a picture
OURS, KEPT = "wordmill.", ("wordmill.run_tag", "wordmill.host")
VERSIONS = "versions."  # how the parameters begin that are the versions of packages
DIGEST = 36  # characters of a data set's digest that MLflow takes
SOURCES = {"http": ("http", "url"), "https": ("http", "url"), "s3": ("s3", "uri")}  # by scheme; the others are files


@dataclass(frozen=True, kw_only=True)
class InputSet:
    """A data set as a run's page shows it; `context` is what it served for, `facts` are counts and the like."""

    name: str
    digest: str
    source: str
    context: str
    facts: dict[str, int | str]


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A metric without a course; `data_set` is the name of the one that it was measured on."""

    name: str
    value: float
    data_set: str = ""


def show_columns(run: Run, columns: dict[str, int]) -> None:
    """Let the table of the run's experiment have these columns, such as metrics.`mean_accuracy`, each so many px wide.

    Those that the view has already stay: not all runs are measured alike. The first one's metric is the most important.
    """
    with asking("set the experiment's columns"):
        tags = run.client.get_experiment(run.experiment_id).tags
        first = next(iter(columns)).split("`")[1]
        wanted = KIND | {MLFLOW_EXPERIMENT_PRIMARY_METRIC_NAME: first,
                         MLFLOW_EXPERIMENT_PRIMARY_METRIC_GREATER_IS_BETTER: "True"}  # fmt: skip
        known = _columns_of(tags.get(VIEW_TAG, _view({})))
        if known is not None and not set(columns) <= set(known):
            wanted[VIEW_TAG] = _view(dict(list((columns | known).items())[:COLUMNS]))
        for name, value in wanted.items():
            if tags.get(name) != value:
                run.client.set_experiment_tag(run.experiment_id, name, value)


def _columns_of(view: str) -> dict[str, int] | None:
    """Return the columns of a view and their widths; None of one that somebody has saved in MLflow's page since."""
    with suppress(ValueError, KeyError, TypeError):
        widths: dict[str, int] = json.loads(json.loads(view)["state"])["columnWidths"]
        return widths
    return None


def _view(widths: dict[str, int]) -> str:
    """Return a view of an experiment's runs as MLflow's page stores those that it saves."""
    shown = list(widths)
    state = {"selectedColumns": shown, "columnOrder": shown, "columnWidths": widths}
    at = round(time.time() * 1000)
    return json.dumps({"name": VIEW_NAME, "createdAt": at, "updatedAt": at, "state": json.dumps(state)})


def runs_page(recipe: str) -> str:
    """Return the address of a recipe's runs, the newest recipe's without a name; MLflow's own where there are none."""
    client, start = connect(), tracking_uri().rstrip("/")
    with asking("look for the runs"):
        found = client.get_experiment_by_name(f"wordmill/{recipe}") if recipe else _newest(client)
    if found is None:
        return start
    view = f"&viewStateShareKey={VIEW}" if VIEW_TAG in found.tags else ""
    return f"{start}/#/experiments/{found.experiment_id}/runs?{MODEL_TRAINING}{view}"


def _newest(client: MlflowClient) -> Experiment | None:
    found = client.search_experiments(filter_string="name LIKE 'wordmill/%'", order_by=["last_update_time DESC"])
    runs = client.search_runs([one.experiment_id for one in found], max_results=1) if found else []
    return client.get_experiment(runs[0].info.experiment_id) if runs else None


def model_page(name: str, version: str) -> str:
    """Return where MLflow's pages show a version of a registered model, from wherever they are opened."""
    return f"#/models/{name}/versions/{version}?{MODEL_TRAINING}"


def version_tags() -> list[str]:
    """Return the values of all tags of all versions of all registered models: what a version is made of is in them."""
    with asking("look for registered models"):
        found: list[str] = []
        token: str | None = ""
        while token is not None:
            page = connect().search_model_versions(page_token=token or None)
            found += [str(value) for version in page for value in version.tags.values()]
            token = page.token or None
        return found


def log_versions(run: Run, versions: dict[str, str]) -> None:
    """Log the versions of installed packages as parameters; those of its first report stay where a run is continued."""
    with asking("read the parameters"):
        known = run.client.get_run(run.run_id).data.params
    found = {f"{VERSIONS}{name}": version for name, version in versions.items()}
    run.log_params({name: version for name, version in found.items() if name not in known})


def log_inputs(run: Run, data_sets: list[InputSet]) -> None:
    """Log the data sets of a run; those that it has already stay one entry."""
    inputs = [DatasetInput(_dataset(one), [InputTag(MLFLOW_DATASET_CONTEXT, one.context)]) for one in data_sets]
    with asking("log the data sets"):
        run.client.log_inputs(run.run_id, inputs)


def _dataset(one: InputSet) -> Dataset:
    kind, key = SOURCES.get(one.source.partition("://")[0], ("local", "uri"))
    return Dataset(name=one.name, digest=one.digest[:DIGEST], source_type=kind, source=json.dumps({key: one.source}),
                   profile=json.dumps(one.facts))  # fmt: skip


def logged_model(run: Run, name: str, version: str) -> str:
    """Return the id of the logged model that a version is, "" where it is none, or is gone."""
    with asking(f"look for the model of version {version} of {name}"):
        try:
            source = str(run.client.get_model_version(name, version).source)
            model_id = source.removeprefix(LOGGED) if source.startswith(LOGGED) else ""
            return str(run.client.get_logged_model(model_id).model_id) if model_id else ""
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return ""


def example_picture(run: Run, model_id: str) -> str:
    """Return where a logged model's input example is, as MLflow's pages name it; empty where it has none."""
    path, place = f"data/{EXAMPLE}", f"ajax-api/2.0/mlflow/logged-models/{model_id}/artifacts/files"
    with asking(f"look for the input example of model {model_id}"):
        files = run.client.list_logged_model_artifacts(model_id, path.rpartition("/")[0])
    return f"{place}?artifact_file_path={quote(path, safe='')}" if path in [file.path for file in files] else ""


def log_figures(run: Run, figures: list[Figure], model_id: str, digests: dict[str, str]) -> None:
    """Log metrics of a run and of a logged model, "" for none, with the digests of the data sets behind them."""
    at, metrics = round(time.time() * 1000), []
    for one in figures:
        known = (one.data_set, digests[one.data_set][:DIGEST]) if one.data_set in digests else (None, None)
        metrics.append(Metric(one.name, float(one.value), at, 0, model_id or None, *known))
    for start in range(0, len(metrics), MOST_ENTRIES):
        with asking("log metrics"):
            run.client.log_batch(run.run_id, metrics=metrics[start : start + MOST_ENTRIES])


def describe_logged(run: Run, model_id: str, text: str, parameters: dict[str, str]) -> None:
    """Write a logged model's description, and once its parameters, which MLflow does not take a second time."""
    with asking(f"describe model {model_id}"):
        run.client.set_logged_model_tags(model_id, {NOTE: text})
        if not run.client.get_logged_model(model_id).params:
            run.client.log_model_params(model_id, parameters)


def describe_version(run: Run, name: str, version: str, model_text: str, version_text: str) -> None:
    """Write the descriptions of a registered model and of a version of it, unless somebody has deleted them."""
    with asking(f"describe version {version} of {name}"):
        try:
            run.client.update_registered_model(name, model_text)
            run.client.update_model_version(name, version, version_text)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            print(f"warning: version {version} of {name} is no longer registered", flush=True)


def run_document(run_id: str, path: str) -> dict[str, Any]:
    """Return a JSON document among a run's artifacts."""
    with asking(f"read {path} of run {run_id}"):
        found: dict[str, Any] = load_dict(f"runs:/{run_id}/{path}")
        return found


def name_tables(run: Run, paths: list[str]) -> None:
    """Tell MLflow which of a run's artifacts are tables: it shows them as such, and those of several runs together."""
    if paths:
        run.set_tags({MLFLOW_LOGGED_ARTIFACTS: json.dumps([{"path": path, "type": "table"} for path in paths])})


def replace_tags(run: Run, tags: dict[str, str]) -> None:
    """Set a run's tags, and take away those of an earlier report that this one does not have."""
    run.set_tags(tags)
    with asking("remove tags"):
        known = run.client.get_run(run.run_id).data.tags
        for name in known:
            if name.startswith(OURS) and name not in (*tags, *KEPT):
                run.client.delete_tag(run.run_id, name)


def system_monitor(run: Run) -> SystemMetricsMonitor:
    """Return what measures this machine as MLflow does; GPUs where nvidia-ml-py or pyrsmi is installed, no NPUs."""
    monitor = SystemMetricsMonitor(run.run_id, tracking_uri=tracking_uri())
    monitor.collect_metrics()  # what processors do is measured since the last look
    for part in monitor.monitors:
        part.clear_metrics()
    return monitor


def latest_steps(run: Run) -> dict[str, int]:
    """Return the last step that a run has of each metric."""
    with asking("read the run's metrics"):
        found = _get(RUN, {"run_id": run.run_id})["run"]["data"].get("metrics", [])
    return {metric["key"]: int(metric["step"]) for metric in found}


def sampled_histories(run_ids: list[str], name: str, most: int) -> dict[str, list[tuple[int, float, float]]]:
    """Return a metric's (step, value, unix time in s) by run id, about `most` of each run, first and last among them.

    The server draws the sample, as it does for its own charts: days of training are hundreds of thousands of points.
    """
    asked = {"run_ids": run_ids, "metric_key": name, "max_results": most}
    with asking(f"read the curves {name}"):
        points = _get(HISTORIES, asked).get("metrics", [])
    curves: dict[str, list[tuple[int, float, float]]] = {run_id: [] for run_id in run_ids}
    for point in points:
        curves[point["run_id"]].append((int(point["step"]), float(point["value"]), int(point["timestamp"]) / 1000))
    return curves


def _get(place: str, asked: dict[str, Any]) -> dict[str, Any]:
    """Return what the server answers where its Python client has no call, or one that leaves steps out."""
    answer = http_request(get_default_host_creds(tracking_uri()), place, "GET", params=asked)
    found: dict[str, Any] = verify_rest_response(answer, place).json()
    return found
