import json
import uuid

import pytest
from mlflow import MlflowClient

from tests.mlflow_server import mlflow_uri  # noqa: F401 (a fixture)
from wordmill.store import experiments, tracking
from wordmill.store.experiments import VIEW_TAG, Figure, InputSet
from wordmill.store.storage import Store
from wordmill.store.tracking import Run

pytestmark = pytest.mark.usefixtures("mlflow_uri")


@pytest.fixture
def recipe() -> str:
    return f"recipe_{uuid.uuid4().hex[:8]}"


@pytest.fixture
def run(store: Store, recipe: str) -> Run:
    return tracking.open_run(store, f"{recipe}-1", recipe)


def view(client: MlflowClient, run: Run) -> dict[str, object]:
    """The state of the experiment's view as MLflow's page reads it."""
    envelope = json.loads(client.get_experiment(run.experiment_id).tags[VIEW_TAG])
    assert (type(envelope["createdAt"]), envelope["name"]) == (int, "Benchmarks")
    state: dict[str, object] = json.loads(envelope["state"])
    return state


def test_an_experiment_is_of_training_and_its_columns_are_those_of_all_its_runs(run: Run) -> None:
    mean, words, signs = "metrics.`mean_accuracy`", "metrics.`benchmark/words/accuracy`", "metrics.`signs`"
    experiments.show_columns(run, {mean: 100, words: 200})
    tags = run.client.get_experiment(run.experiment_id).tags
    assert tags["mlflow.experimentKind"] == "custom_model_development"
    assert tags["mlflow.experiment.primaryMetric.name"] == "mean_accuracy"
    experiments.show_columns(run, {mean: 100, signs: 90})
    shown = view(run.client, run)
    assert shown["selectedColumns"] == shown["columnOrder"] == [mean, signs, words]
    assert shown["columnWidths"] == {mean: 100, signs: 90, words: 200}


def test_a_view_that_somebody_has_saved_stays(run: Run) -> None:
    theirs = json.dumps({"name": "Mine", "createdAt": 1, "updatedAt": 1, "state": "deflate;abc"})
    run.client.set_experiment_tag(run.experiment_id, VIEW_TAG, theirs)
    experiments.show_columns(run, {"metrics.`mean_accuracy`": 100})
    assert run.client.get_experiment(run.experiment_id).tags[VIEW_TAG] == theirs


def test_the_page_of_a_recipes_runs(store: Store, run: Run, recipe: str) -> None:
    start = tracking.tracking_uri()
    place = f"{start}/#/experiments/{run.experiment_id}/runs?workflowType=machine_learning"
    assert experiments.runs_page(recipe) == place
    experiments.show_columns(run, {"metrics.`mean_accuracy`": 100})
    assert experiments.runs_page(recipe) == experiments.runs_page("") == f"{place}&viewStateShareKey=wordmill"
    assert experiments.runs_page(f"no_{recipe}") == start


def test_data_sets_are_a_runs_inputs_once(run: Run) -> None:
    words = InputSet(name="words", digest="1" * 40, source="https://x.example/a.zip", context="training",
                     facts={"num_rows": 3})  # fmt: skip
    signs = InputSet(name="signs", digest="2", source="synth://words?seed=1", context="benchmark", facts={})
    for _ in range(2):
        experiments.log_inputs(run, [words, signs])
    found = {one.dataset.name: one for one in run.client.get_run(run.run_id).inputs.dataset_inputs}
    assert len(run.client.get_run(run.run_id).inputs.dataset_inputs) == len(found) == 2
    stored = found["words"].dataset
    assert (stored.digest, stored.source_type, json.loads(stored.source)) == (
        "1" * 36, "http", {"url": "https://x.example/a.zip"},
    )  # fmt: skip
    assert json.loads(stored.profile) == {"num_rows": 3}
    assert {(tag.key, tag.value) for tag in found["words"].tags} == {("mlflow.data.context", "training")}
    assert found["signs"].dataset.source_type == "local"


def test_tags_of_an_earlier_report_go_and_others_stay(run: Run, recipe: str) -> None:
    run.set_tags({"theirs": "x", "wordmill.errors": "train: lost", "wordmill.gate": "refused"})
    experiments.replace_tags(run, {"wordmill.gate": "promoted"})
    shown = {name: value for name, value in run.client.get_run(run.run_id).data.tags.items() if "mlflow." not in name}
    assert shown.pop("wordmill.host")
    assert shown == {"theirs": "x", "wordmill.gate": "promoted", "wordmill.run_tag": f"{recipe}-1"}


def test_versions_of_a_continued_run_are_those_of_its_first_report(run: Run) -> None:
    experiments.log_versions(run, {"torch": "2.12"})
    experiments.log_versions(run, {"torch": "2.13", "kfp": "2.17"})
    assert run.client.get_run(run.run_id).data.params == {"versions.torch": "2.12", "versions.kfp": "2.17"}


def test_the_last_step_of_each_metric(run: Run) -> None:
    run.log_metrics([("train/loss", 2.0, 10, 1.0), ("train/loss", 1.0, 40, 2.0), ("val/loss", 1.0, 0, 3.0)])
    assert experiments.latest_steps(run) == {"train/loss": 40, "val/loss": 0}


def test_a_registered_model_and_its_version_are_described(
    run: Run, recipe: str, capsys: pytest.CaptureFixture[str]
) -> None:
    name = f"wordmill-{recipe}"
    experiments.describe_version(run, name, "1", "a model", "a version")
    assert f"warning: version 1 of {name} is no longer registered" in capsys.readouterr().out
    tracking.register(name, model="train/a", source="s3://b/a", run_id=run.run_id, description="test")
    experiments.describe_version(run, name, "1", "a model", "a version")
    assert run.client.get_registered_model(name).description == "a model"
    assert run.client.get_model_version(name, "1").description == "a version"


def test_a_logged_model_has_the_figures_of_its_run_with_their_data_sets_a_description_and_parameters(
    run: Run, recipe: str
) -> None:
    name, model_id = f"wordmill-{recipe}", run.client.create_logged_model(run.experiment_id, recipe).model_id
    tracking.register(name, model="train/a", source=f"models:/{model_id}", run_id=run.run_id, description="test")
    assert experiments.logged_model(run, name, "1") == model_id
    figures = [Figure(name="benchmark/words/accuracy", value=0.5, data_set="words"), Figure(name="mean", value=1)]
    for _ in range(2):  # of a run that is reported again
        experiments.describe_logged(run, model_id, "a card", {"train.lr": "0.1"})
        experiments.log_figures(run, figures, model_id, {"words": "1" * 40})
    found = run.client.get_logged_model(model_id)
    assert (found.tags["mlflow.note.content"], found.params) == ("a card", {"train.lr": "0.1"})
    logged = {metric.key: (metric.value, metric.dataset_name, metric.dataset_digest) for metric in found.metrics}
    assert logged == {"benchmark/words/accuracy": (0.5, "words", "1" * 36), "mean": (1.0, None, None)}
    assert run.client.get_run(run.run_id).data.metrics == {"benchmark/words/accuracy": 0.5, "mean": 1.0}


def test_a_version_that_is_no_logged_model_or_whose_model_is_gone(run: Run, recipe: str) -> None:
    name, model_id = f"wordmill-{recipe}", run.client.create_logged_model(run.experiment_id, recipe).model_id
    tracking.register(name, model="train/a", source="s3://b/a", run_id=run.run_id, description="test")
    tracking.register(name, model="train/b", source=f"models:/{model_id}", run_id=run.run_id, description="test")
    run.client.delete_logged_model(model_id)
    assert [experiments.logged_model(run, name, version) for version in ("1", "2", "3")] == ["", "", ""]
    experiments.log_figures(run, [Figure(name="mean", value=1.0)], "", {})
    assert run.client.get_run(run.run_id).data.metrics == {"mean": 1.0}


def test_tables_are_named_as_mlflow_names_its_own(run: Run) -> None:
    experiments.name_tables(run, ["predictions/words.json"])
    experiments.name_tables(run, [])
    told = run.client.get_run(run.run_id).data.tags["mlflow.loggedArtifacts"]
    assert json.loads(told) == [{"path": "predictions/words.json", "type": "table"}]
