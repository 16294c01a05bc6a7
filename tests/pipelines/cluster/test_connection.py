"""Without KF_PIPELINES_ENDPOINT: through Kubernetes by every kind of kubeconfig, from a pod, or what is missing."""

import json
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.cluster import client
from pipelines.cluster.client import connect_kubeflow
from pipelines.cluster.site import load_site
from tests.pipelines.cluster.kfp_server import BEHIND, serving, standalone
from tests.pipelines.cluster.kfp_state import KfpServer
from tests.pipelines.cluster.test_client import asked


@pytest.fixture(autouse=True)
def _by_kubectl(kfp: KfpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A standalone server that no variable names."""
    values = standalone(tmp_path)
    monkeypatch.setattr(client, "load_site", lambda: load_site(values))
    monkeypatch.delenv("KF_PIPELINES_ENDPOINT")
    kfp.multi_user = False


def kubeconfig(folder: Path, address: str, user: dict[str, Any], **cluster: str) -> str:
    document = {
        "apiVersion": "v1", "kind": "Config", "current-context": "c", "users": [{"name": "u", "user": user}],
        "clusters": [{"name": "k", "cluster": {"server": address, **cluster}}],
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
    }  # fmt: skip
    (folder / "kubeconfig").write_text(yaml.safe_dump(document), encoding="utf-8")
    return str(folder / "kubeconfig")


def plugin(folder: Path, program: str) -> dict[str, Any]:
    """Return a kubeconfig's user whom a program gives a token."""
    (folder / "plugin.py").write_text(program, encoding="utf-8")
    return {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": sys.executable, "interactiveMode":
                     "Never", "args": ["-S", str(folder / "plugin.py")]}}  # fmt: skip


CREDENTIAL = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": "t1"}}


@pytest.mark.parametrize("kind", ["token", "exec"])
def test_the_services_path_outlives_the_renewal_of_a_token(
    kfp: KfpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    kfp.kubernetes_token = "t1"
    user = {"token": "t1"} if kind == "token" else plugin(tmp_path, f"print({json.dumps(CREDENTIAL)!r})")
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION",
                        kubeconfig(tmp_path, kfp.url, user))  # fmt: skip
    assert asked()
    assert connect_kubeflow().client.healthzs.api_client.configuration.host == f"{kfp.url}{BEHIND}"


def test_a_certificate_of_the_user_reaches_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", tmp_path / "key.pem", "-out",
         tmp_path / "own.pem"], check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "own.pem", tmp_path / "key.pem")
    context.load_verify_locations(tmp_path / "own.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    user = {"client-certificate": str(tmp_path / "own.pem"), "client-key": str(tmp_path / "key.pem")}
    with serving(KfpServer(multi_user=False), context) as secure:
        given = kubeconfig(tmp_path, secure.url, user, **{"certificate-authority": str(tmp_path / "own.pem")})
        monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", given)
        assert asked()


def test_a_pod_asks_the_service_of_its_own_cluster_by_its_token(
    kfp: KfpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kfp.token = "of the pod"
    (tmp_path / "token").write_text("of the pod")
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    monkeypatch.setenv("KFP_PROXY", kfp.url)  # which stands for the cluster's names
    assert asked()
    assert kfp.headers["Host"] == "ml-pipeline.kubeflow.svc:8888"


@pytest.mark.parametrize(
    ("user", "address", "token", "words"),
    [
        (None, "", "", "no way to Kubeflow Pipelines: set KF_PIPELINES_ENDPOINT, or run where kubectl"),
        ({"token": "t1"}, "http://127.0.0.1:1", "mine",
         "_ENDPOINT is not, and Kubernetes passes no token on to a service: kubectl -n kubeflow port-forward svc"),
        ({}, "https://127.0.0.1:1", "",
         "kubeconfig gives neither token nor certificate for https://127.0.0.1:1: log in, so that `kubectl get pods`"),
        ("exit", "https://127.0.0.1:1", "",
         r"neither token nor certificate for https://127.0.0.1:1 \(exec: process returned 3.* your session is over"),
    ],
)  # fmt: skip
def test_what_is_missing_on_the_way_is_named(
    kfp: KfpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, user: Any, address: str, token: str, words: str
) -> None:
    if user is not None:
        given = plugin(tmp_path, "import sys; print('your session is over', file=sys.stderr); sys.exit(3)")
        path = kubeconfig(tmp_path, address, given if user == "exit" else user)
        monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", path)
    if token:
        monkeypatch.setenv("KFP_EXISTING_TOKEN", token)
    with pytest.raises(RuntimeError, match=words):
        connect_kubeflow()


def test_a_kubeflow_with_users_is_not_reached_through_kubernetes_alone(
    kfp: KfpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kfp.token, kfp.kubernetes_token = "mine", "t1"
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION",
                        kubeconfig(tmp_path, kfp.url, {"token": "t1"}))  # fmt: skip
    words = (
        "kubectl -n kubeflow port-forward svc/ml-pipeline 8888, and KF_PIPELINES_ENDPOINT=http://localhost:8888, with"
    )
    with pytest.raises(RuntimeError, match=f"401: .*Kubernetes passes no token on to a Kubeflow with users: {words}"):
        connect_kubeflow()
