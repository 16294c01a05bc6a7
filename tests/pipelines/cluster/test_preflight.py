"""Before anything is uploaded: namespaces without what pods name, and servers that read less than they are told."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from pipelines.cluster.client import connect_kubeflow
from pipelines.cluster.site import load_site
from pipelines.cluster.submit import publish
from tests.pipelines.cluster.kfp_state import KfpServer
from tests.pipelines.cluster.site_server import NAMESPACE, SiteServer, serving_site
from tests.pipelines.cluster.test_connection import kubeconfig

BASELINE = "kubectl label namespace wordmill pod-security.kubernetes.io/enforce=baseline --overwrite"


@pytest.fixture
def cluster(kfp: KfpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SiteServer]:
    """A Kubernetes that kubectl reaches, with all that the manifests make."""
    with serving_site(SiteServer()) as server:
        monkeypatch.setenv("KUBECONFIG", kubeconfig(tmp_path, f"http://{server.address}", {}))
        values = load_site()
        server.answers[f"{NAMESPACE}/configmaps/wordmill-settings"] = {
            "data": {"s3_endpoint": values.s3.endpoint, "region": values.s3.region, "bucket": values.s3.bucket,
                     "mlflow": values.mlflow.address, "cache": "/cache"}
        }  # fmt: skip
        enforced(server, "restricted")
        yield server


def enforced(server: SiteServer, level: str) -> None:
    server.answers[NAMESPACE] = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": level}}}


def test_all_that_pods_name_is_there(
    kfp: KfpServer, cluster: SiteServer, spec: str, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(connect_kubeflow(), "quickstart", spec)
    (version,) = kfp.made("versions")
    executors = version["pipeline_spec"]["platform_spec"]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert {item["securityContext"]["runAsUser"] for item in executors.values()} == {"10001"}
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ("serviceaccounts/wordmill-stage", "no wordmill-stage in wordmill: apply the manifests: make manifests"),
        ("secrets/wordmill-s3", "no wordmill-s3 in wordmill: kubectl -n wordmill create secret generic wordmill-s3"),
        ("configmaps/wordmill-settings", "no wordmill-settings in wordmill: apply the manifests"),
        ("persistentvolumeclaims/wordmill-cache", "no wordmill-cache in wordmill: apply the manifests"),
    ],
)
def test_what_pods_name_and_is_not_there_keeps_anything_from_being_uploaded(
    kfp: KfpServer, cluster: SiteServer, spec: str, missing: str, words: str
) -> None:
    cluster.answers[f"{NAMESPACE}/{missing}"] = 404
    with pytest.raises(RuntimeError, match=f"^{words}"):
        publish(connect_kubeflow(), "quickstart", spec)
    assert kfp.made("pipelines") == []


def test_where_kubernetes_cannot_be_asked_a_line_says_so_and_the_upload_goes_on(
    kfp: KfpServer, spec: str, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(connect_kubeflow(), "quickstart", spec)
    assert len(kfp.made("versions")) == 1
    assert capsys.readouterr().err.startswith("namespace wordmill is not looked at from here (Invalid kube-config file")


def test_a_cluster_without_kubeflow_is_not_the_one_that_pods_will_run_on(
    kfp: KfpServer, cluster: SiteServer, spec: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.answers["/api/v1/namespaces/kubeflow/services/ml-pipeline"] = 404
    cluster.answers[f"{NAMESPACE}/serviceaccounts/wordmill-stage"] = 404
    publish(connect_kubeflow(), "quickstart", spec)
    assert len(kfp.made("versions")) == 1
    assert f"(no Kubeflow at http://{cluster.address}, which kubectl reaches)" in capsys.readouterr().err


def test_a_server_before_2_17_gets_no_user_of_pods_in_a_namespace_that_takes_them_so(
    kfp: KfpServer, cluster: SiteServer, spec: str, capsys: pytest.CaptureFixture[str]
) -> None:
    kfp.version = "2.16.1"
    with pytest.raises(RuntimeError, match=f"^Kubeflow Pipelines 2.16.1 cannot say whom pods run as, .*: {BASELINE}"):
        publish(connect_kubeflow(), "quickstart", spec)
    assert kfp.made("pipelines") == []
    enforced(cluster, "baseline")
    publish(connect_kubeflow(), "quickstart", spec)
    (version,) = kfp.made("versions")
    given = version["pipeline_spec"]["platform_spec"]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    _, wanted = yaml.load_all(spec, yaml.CSafeLoader)
    wanted = wanted["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert {key: {**item, "securityContext": wanted[key]["securityContext"]} for key, item in given.items()} == wanted
    assert not [item for item in given.values() if "securityContext" in item]
    assert "the pipeline goes without securityContext, which it does not know" in capsys.readouterr().err


def test_a_server_that_says_no_version_and_has_dropped_what_pods_get_starts_nothing(kfp: KfpServer, spec: str) -> None:
    kfp.version = ""
    with pytest.raises(
        RuntimeError, match=r"^Kubeflow Pipelines \(it says no version\) has dropped what .* upgrade it"
    ):
        publish(connect_kubeflow(), "quickstart", spec)
    assert kfp.made("runs") == []
