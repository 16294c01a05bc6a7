from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.cluster.site import VALUES, Accelerator, check_overlay, load_site


def written(folder: Path, path: str, value: Any) -> Path:
    """A site's values with one of them changed; None takes it out."""
    document = yaml.safe_load(VALUES.read_text(encoding="utf-8"))
    *steps, last = path.split("/")
    target = document
    for step in steps:
        target = target[step]
    target[last] = value
    if value is None:
        del target[last]
    file = folder / "values.yaml"
    file.write_text(yaml.safe_dump(document), encoding="utf-8")
    return file


def test_a_site_is_read_with_its_types() -> None:
    site = load_site()
    assert site.namespace == "wordmill"
    assert site.network.api_server_port == 6443
    assert site.accelerators["npu"] == Accelerator(
        resource="huawei.com/Ascend910",
        nodes={"accelerator-type": "module-910b-8"},
        labels={"ring-controller.atlas": "ascend-910b"},
    )
    assert site.quota["requests.nvidia.com/gpu"] == "8"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("spec/images/services", f"report@sha256:{'0' * 64}"),
        ("spec/registry", "registry.example.com:5000/team"),
        ("spec/mlflow/database", "postgresql+psycopg2://db.example.com/mlflow?sslmode=require"),
        ("spec/network/s3_cidr", "fd00::/64"),
        ("spec/nightly/recipes", "crnn_r34,crnn_vgg7"),
    ],
)
def test_values_of_a_site_are_taken(tmp_path: Path, path: str, value: str) -> None:
    section = path.split("/")[1]
    assert value in str(getattr(load_site(written(tmp_path, path, value)), section))


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("spec/namespaces", "ocr", "spec: unknown key 'namespaces': did you mean 'namespace'?"),
        ("spec/s3/bukket", "b", "spec.s3: unknown key 'bukket': did you mean 'bucket'?"),
        ("spec/s3/bucket", None, "spec.s3: key 'bucket' is missing"),
        ("spec/storage", None, "spec: key 'storage' is missing"),
        ("spec/registry", 5, "spec.registry: expected str, found int 5"),
        ("spec/namespace", "My_Team", "spec.namespace: expected a Kubernetes name, found 'My_Team'"),
        ("spec/namespace", "kubeflow", "spec.namespace: found 'kubeflow', where Kubeflow's own servers run"),
        ("spec/images/postgres", "postgres:latest", "spec.images.postgres: expected an image with a digest or a tag"),
        ("spec/images/services", "report", "spec.images.services: expected an image with a digest or a tag"),
        ("spec/images/services", "report@sha256:12", "spec.images.services: expected an image with a digest"),
        ("spec/s3/endpoint", "minio:9000", "spec.s3.endpoint: expected http:// or https:// and a host"),
        (
            "spec/mlflow/database",
            "postgresql+psycopg2://me:word@db/mlflow",
            "spec.mlflow.database: expected postgresql",
        ),
        ("spec/mlflow/database", "sqlite:///mlflow.db", "spec.mlflow.database: expected postgresql"),
        ("spec/quota/requests.cpu", 8, "spec.quota.requests.cpu: expected str, found int 8"),
        ("spec/queue/memory", "2 TB", "spec.queue.memory: expected a quantity in quotes"),
        ("spec/storage/cache_access", "RWX", "spec.storage.cache_access: found 'RWX'"),
        ("spec/network/s3_cidr", "10.0.0.1/8", "spec.network.s3_cidr: expected an address range such as 10.0.0.0/8"),
        ("spec/network/s3_port", 0, "spec.network.s3_port: expected a whole number above 0, found 0"),
        ("spec/nightly/silence_h", 0, "spec.nightly.silence_h: expected a whole number above 0, found 0"),
        ("spec/retention/deleted_runs", "month", "spec.retention.deleted_runs: expected days, such as 30d"),
        ("spec/accelerators/npu", {"resource": "x"}, "spec.accelerators.npu: key 'nodes' is missing"),
        ("spec/accelerators", ["npu"], "spec.accelerators: expected a mapping, found list"),
        ("spec", [], "spec: expected a mapping, found list \\[\\]"),
    ],
)
def test_a_wrong_value_is_named(tmp_path: Path, path: str, value: Any, words: str) -> None:
    with pytest.raises(ValueError, match=f"values.yaml: {words}"):
        load_site(written(tmp_path, path, value))


def test_an_overlay_is_for_a_mode() -> None:
    check_overlay(load_site(), "local")
    check_overlay(load_site(VALUES.with_name("kind.yaml")), "standalone")
    with pytest.raises(
        ValueError, match="OVERLAY=standalone: spec.kubeflow.mode .* is multi-user, which wants local, gpu"
    ):
        check_overlay(load_site(), "standalone")
    with pytest.raises(ValueError, match="OVERLAY=gpu: spec.kubeflow.mode .* is standalone, which wants standalone"):
        check_overlay(load_site(VALUES.with_name("kind.yaml")), "gpu")


def test_a_standalone_kubeflow_has_one_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KFP_NAMESPACE", "ocr")
    with pytest.raises(ValueError, match="found 'ocr', by KFP_NAMESPACE; expected 'kubeflow': a standalone Kubeflow"):
        load_site(VALUES.with_name("kind.yaml"))
