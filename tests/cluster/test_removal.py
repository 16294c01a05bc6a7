import uuid

import pytest

from pipelines.cluster.client import connect_kubeflow
from tests.cluster.removal import REMOVALS
from tests.mlflow_server import mlflow_uri  # noqa: F401 (a fixture)
from tests.pipelines.cluster.kfp_server import kfp as kfp  # a fixture
from tests.pipelines.cluster.kfp_state import KfpServer
from wordmill.store import tracking
from wordmill.store.storage import Store


@pytest.fixture
def recipe(kfp: KfpServer) -> str:
    """A recipe with a run that has ended and is tagged `<recipe>-1`."""
    name = f"suite_{uuid.uuid4().hex[:6]}"
    experiment = kfp.add("experiments", "experiment_id", {"display_name": f"wordmill/{name}"})["experiment_id"]
    kfp.add("runs", "run_id", {"display_name": "r", "state": "SUCCEEDED", "experiment_id": experiment,
                               "runtime_config": {"parameters": {"run_tag": f"{name}-1"}}})  # fmt: skip
    return name


def remove(recipe: str) -> None:
    for removal in REMOVALS:
        removal(connect_kubeflow(), recipe)


def test_what_the_runs_recorded_goes_and_nothing_of_others(
    recipe: str,
    kfp: KfpServer,
    store: Store,
    mlflow_uri: str,  # noqa: F811 (the fixture)
) -> None:
    others = tracking.open_run(store, "other-1", f"other_{recipe}")
    own = tracking.open_run(store, f"{recipe}-1", recipe)
    own.client.create_registered_model(tracking.registered_name(recipe))
    kept = ["objects/aa", "runs/other-1/mlflow.json", f"runs/{recipe}-10/summary.json"]
    for key in (*kept[:1], *kept[2:], f"runs/{recipe}-1/stages/gate.x.json", f"nights/{recipe}.json"):
        store.put_json(key, {})
    remove(recipe)
    assert sorted(store.keys("")) == kept
    assert own.client.get_experiment(own.experiment_id).lifecycle_stage == "deleted"
    assert own.client.get_experiment(others.experiment_id).lifecycle_stage == "active"
    assert own.client.search_registered_models(f"name='{tracking.registered_name(recipe)}'") == []
    assert not any(kfp.tables.values())


def test_where_neither_is_named_here_what_the_server_has_goes(
    recipe: str, kfp: KfpServer, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put_json(f"runs/{recipe}-1/summary.json", {})
    monkeypatch.delenv("WORDMILL_BUCKET")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    remove(recipe)
    assert list(store.keys("")) == [f"runs/{recipe}-1/summary.json"]
    assert not any(kfp.tables.values())
