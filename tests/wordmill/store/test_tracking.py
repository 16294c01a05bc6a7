import os
import sys
import time
import uuid
from pathlib import Path
from types import SimpleNamespace

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST
from mlflow.tracking.request_header.registry import resolve_request_headers

from tests.bad_wire import bad_wire
from tests.mlflow_server import BUCKET, mlflow_uri  # noqa: F401 (a fixture)
from wordmill.store import tracking
from wordmill.store.artifacts import git_commit
from wordmill.store.storage import Store

pytestmark = pytest.mark.usefixtures("mlflow_uri")


@pytest.fixture
def tag() -> str:
    return f"run-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def client() -> MlflowClient:
    return tracking.connect()


def test_what_mlflow_is_used_for_is_not_sent_to_its_maker() -> None:
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"


def test_one_pipeline_run_has_one_mlflow_run(store: Store, tag: str, client: MlflowClient) -> None:
    created = tracking.open_run(store, tag, "crnn_r34")
    assert tracking.open_run(store, tag).run_id == created.run_id
    assert store.get_json(f"runs/{tag}/mlflow.json") == {"run_id": created.run_id}
    stored = client.get_run(created.run_id)
    assert client.get_experiment(stored.info.experiment_id).name == "wordmill/crnn_r34"
    assert stored.data.tags["wordmill.run_tag"] == stored.info.run_name == tag
    assert stored.data.tags["mlflow.source.git.commit"] == git_commit()
    assert stored.data.tags["mlflow.source.name"] == "make run RECIPE=crnn_r34"
    assert client.get_experiment(stored.info.experiment_id).tags["mlflow.experimentKind"] == "custom_model_development"
    assert stored.info.status == "RUNNING"
    place = f"/#/experiments/{stored.info.experiment_id}/runs/{created.run_id}?workflowType=machine_learning"
    assert created.url == tracking.tracking_uri() + place


def test_a_run_goes_by_what_tells_it_from_others_of_its_recipe(store: Store, tag: str, client: MlflowClient) -> None:
    run = tracking.open_run(store, f"crnn_r34-{tag}", "crnn_r34")
    stored = client.get_run(run.run_id)
    assert (stored.info.run_name, stored.data.tags["wordmill.run_tag"]) == (tag, f"crnn_r34-{tag}")


def test_a_lost_answer_makes_no_second_run_and_no_second_version(
    store: Store, tag: str, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, name = tracking.tracking_uri(), f"model-{tag}"
    with bad_wire(uri, iter(["lost answer"]), "runs/create") as wire:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", wire.url)
        run = tracking.open_run(store, tag, "doubles")
        assert wire.met["lost answer"] == 1
    with bad_wire(uri, iter(["lost answer"]), "model-versions/create") as wire:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", wire.url)
        version = tracking.register(name, model=f"train/{tag}", source=f"s3://{BUCKET}/x", run_id=run.run_id,
                                    description="")  # fmt: skip
        assert wire.met["lost answer"] == 1
    runs = client.search_runs([run.experiment_id], f"tags.`wordmill.run_tag` = '{tag}'")
    assert [found.info.run_id for found in runs] == [run.run_id]
    assert [str(found.version) for found in client.search_model_versions(f"name = '{name}'")] == [version]


def test_an_answer_that_is_cut_off_is_one_error(store: Store, tag: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with bad_wire(tracking.tracking_uri(), iter(["cut off"] * 100)) as wire:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", wire.url)
        with pytest.raises(RuntimeError, match=r"^cannot .*: MLFLOW_TRACKING_URI http"):
            tracking.open_run(store, tag, "cut")


def test_a_run_whose_id_was_not_noted_is_found_again(store: Store, tag: str) -> None:
    created = tracking.open_run(store, tag, "crnn_r34")
    store.delete(f"runs/{tag}/mlflow.json")
    assert tracking.open_run(store, tag, "crnn_r34").run_id == created.run_id


def test_an_injected_run_is_used(store: Store, tag: str, monkeypatch: pytest.MonkeyPatch) -> None:
    injected = tracking.open_run(store, f"{tag}-outer", "crnn_r34")
    monkeypatch.setenv("MLFLOW_RUN_ID", injected.run_id)
    assert tracking.open_run(store, tag).run_id == injected.run_id
    assert store.get_json(f"runs/{tag}/mlflow.json") is None


def test_a_run_that_the_server_lost_is_created_anew(store: Store, tag: str) -> None:
    store.put_json(f"runs/{tag}/mlflow.json", {"run_id": "0" * 32})
    created = tracking.open_run(store, tag, "crnn_r34")
    assert created.run_id != "0" * 32
    assert store.get_json(f"runs/{tag}/mlflow.json") == {"run_id": created.run_id}


def test_many_points_go_in_few_calls(
    store: Store, tag: str, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tracking.open_run(store, tag, "crnn_r34")
    calls: list[int] = []
    send = run.client.log_batch
    monkeypatch.setattr(run.client, "log_batch", lambda *a, **k: (calls.append(len(k["metrics"])), send(*a, **k)))
    start = time.time()
    run.log_metrics(("train/loss", 2.0 - i / 1000, i, start + i) for i in range(1500))
    assert calls == [1000, 500]
    history = client.get_metric_history(run.run_id, "train/loss")
    assert [(m.step, m.value, m.timestamp) for m in history[:2]] == [
        (0, 2.0, round(start * 1000)), (1, 1.999, round((start + 1) * 1000)),
    ]  # fmt: skip
    assert len(history) == 1500


def test_parameters_tags_artifacts_and_the_end(store: Store, tag: str, client: MlflowClient, tmp_path: Path) -> None:
    run = tracking.open_run(store, tag, "crnn_r34")
    run.log_params({f"p{i}": str(i) for i in range(150)})
    run.set_tags({"wordmill.recipe_digest": "abc"})
    (tmp_path / "page.html").write_text("page")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.json").write_text("{}")
    run.log_artifact(tmp_path / "page.html")
    run.log_artifact(tmp_path / "folder", "manifests")
    run.finish(False)
    stored = client.get_run(run.run_id)
    assert (len(stored.data.params), stored.data.params["p149"]) == (150, "149")
    assert stored.data.tags["wordmill.recipe_digest"] == "abc"
    assert stored.info.status == "FAILED"
    assert stored.info.artifact_uri.startswith("mlflow-artifacts:")
    assert {f.path for f in client.list_artifacts(run.run_id)} == {"page.html", "manifests"}
    key = f"artifacts/{stored.info.experiment_id}/{run.run_id}/artifacts/manifests/a.json"
    assert Store(BUCKET, tmp_path).get_json(key) == {}
    run.finish(True)
    assert client.get_run(run.run_id).info.status == "FINISHED"
    run.reopen()
    before = client.get_run(run.run_id).info
    assert before.status == "RUNNING"
    run.finish(False, stopped=True)
    after = client.get_run(run.run_id).info
    assert (after.status, after.end_time > before.end_time) == ("KILLED", True)


def test_a_model_is_registered_once_and_promoted_by_alias(store: Store, tag: str) -> None:
    run, name = tracking.open_run(store, tag, "crnn_r34"), f"wordmill-{tag}"
    assert tracking.holder(name, "champion") is None

    def register(model: str) -> str:
        source = f"s3://wordmill/objects/{model}"
        return tracking.register(name, model=model, source=source, run_id=run.run_id, description="test")

    assert register("train/a") == "1"
    assert tracking.holder(name, "champion") is None  # registered, not promoted
    tracking.set_alias(name, "champion", "1")
    assert register("train/a") == "1"
    assert register("train/b") == "2"
    found = tracking.holder(name, "champion")
    assert found is not None
    assert (found.version, found.source) == ("1", "s3://wordmill/objects/train/a")
    assert found.tags == {"wordmill.model": "train/a"}
    assert tracking.connect().get_model_version_by_alias(name, "candidate").version == "2"


def test_an_experiment_that_another_run_has_just_made_is_used(
    store: Store, tag: str, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, look = tracking.open_run(store, tag, tag), MlflowClient.get_experiment_by_name
    found = iter([None, look(client, f"wordmill/{tag}")])  # not there yet when it is looked for, there afterwards
    monkeypatch.setattr(MlflowClient, "get_experiment_by_name", lambda self, name: next(found))
    assert tracking.open_run(store, f"{tag}-second", tag).experiment_id == first.experiment_id


def test_an_alias_that_another_run_has_just_made_is_moved(
    store: Store, tag: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, name, move = tracking.open_run(store, tag, tag), f"wordmill-{tag}", MlflowClient.set_registered_model_alias
    collisions = [MlflowException("UniqueViolation: duplicate key", error_code=BAD_REQUEST)]

    def set_alias(client: MlflowClient, name: str, alias: str, version: str) -> None:
        if collisions:
            raise collisions.pop()  # as with PostgreSQL
        move(client, name, alias, version)

    monkeypatch.setattr(MlflowClient, "set_registered_model_alias", set_alias)
    tracking.register(name, model="train/a", source="s3://b/a", run_id=run.run_id, description="test")
    assert tracking.connect().get_model_version_by_alias(name, "candidate").version == "1"


def test_a_version_says_what_the_gate_did(store: Store, tag: str) -> None:
    run, name = tracking.open_run(store, tag, tag), f"wordmill-{tag}"
    tracking.register(name, model="train/a", source="s3://b/a", run_id=run.run_id, description="test")
    tracking.mark(name, "1", "promoted")
    tracking.set_alias(name, "champion", "1")
    found = tracking.holder(name, "champion")
    assert found is not None
    assert found.tags == {"wordmill.model": "train/a", "wordmill.gate": "promoted"}


def test_a_refused_value_is_an_error_with_mlflows_reason(store: Store, tag: str) -> None:
    run = tracking.open_run(store, tag, "crnn_r34")
    run.log_params({"train.lr": "0.1"})
    with pytest.raises(RuntimeError, match=r"cannot log parameters: MLFLOW_TRACKING_URI http://127.*train\.lr"):
        run.log_params({"train.lr": "0.2"})


@pytest.mark.parametrize("what", ["run", "champion"])
def test_an_unreachable_server_is_named(
    store: Store, tag: str, what: str, silent_address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", silent_address)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(RuntimeError, match=f"MLFLOW_TRACKING_URI {silent_address}"):
        tracking.open_run(store, tag, "crnn_r34") if what == "run" else tracking.holder("wordmill-x", "champion")


def test_an_address_that_is_not_set_is_named(store: Store, tag: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    with pytest.raises(RuntimeError, match="MLFLOW_TRACKING_URI is not set"):
        tracking.open_run(store, tag)


def test_no_request_looks_for_databricks(monkeypatch: pytest.MonkeyPatch) -> None:
    finder = SimpleNamespace(sought=[])
    finder.find_spec = lambda name, *_: finder.sought.append(name)
    monkeypatch.setattr(sys, "meta_path", [finder, *sys.meta_path])
    assert "User-Agent" in resolve_request_headers()
    assert not [name for name in finder.sought if name.startswith("dbruntime")]
