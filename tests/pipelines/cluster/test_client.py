"""The connection: what kfp.Client's users configure, each way against a server that insists on it."""

import ssl
import subprocess
from pathlib import Path

import pytest
from kubernetes.config import kube_config

from pipelines.cluster.client import connect_kubeflow
from pipelines.cluster.submit import publish
from tests.pipelines.cluster.kfp_server import serving
from tests.pipelines.cluster.kfp_state import KfpServer


def asked() -> bool:
    """Make the first calls of `submit`."""
    server = connect_kubeflow()
    experiments = server.client.experiments.experiment_service_list_experiments
    return list(server.listed("list the experiments", experiments, "experiments", namespace=server.namespace)) == []


def test_a_wrong_address_is_named(kfp: KfpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(RuntimeError, match="^cannot reach Kubeflow Pipelines: http://127.0.0.1:1 does not .*refused"):
        connect_kubeflow()


def test_without_an_address_and_a_cluster_it_says_what_to_set(
    kfp: KfpServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("KF_PIPELINES_ENDPOINT")
    monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", "/nowhere")
    with pytest.raises(RuntimeError, match="set KF_PIPELINES_ENDPOINT, or run where kubectl reaches the cluster"):
        connect_kubeflow()
    assert capsys.readouterr().out == ""


def test_the_token_goes_with_every_request(kfp: KfpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    kfp.token = "correct horse"
    with pytest.raises(RuntimeError, match="refuses with 401"):
        asked()
    monkeypatch.setenv("KFP_EXISTING_TOKEN", "correct horse")
    assert asked()


def test_a_pod_takes_its_token_from_the_file(kfp: KfpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kfp.token = "of the pod"
    (tmp_path / "token").write_text("of the pod\n")
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(tmp_path / "token"))
    assert asked()


def test_a_server_of_many_users_gets_the_namespace(kfp: KfpServer, spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kfp.multi_user = True
    with pytest.raises(RuntimeError, match="refuses with 400: .*namespace.*: check KFP_NAMESPACE"):
        asked()
    monkeypatch.setenv("KFP_NAMESPACE", "ocr-team")
    publish(connect_kubeflow(), "quickstart", spec)
    assert kfp.made("pipelines")[0]["namespace"] == kfp.made("experiments")[0]["namespace"] == "ocr-team"


def test_cookies_of_a_login_page_are_sent(kfp: KfpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KFP_COOKIES", "authservice_session=abc")
    asked()
    assert kfp.headers["Cookie"] == "authservice_session=abc"


def test_requests_go_through_the_proxy(kfp: KfpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", "http://kubeflow.invalid/pipeline")
    monkeypatch.setenv("KFP_PROXY", kfp.url)
    with pytest.raises(RuntimeError, match="404"):
        asked()
    assert kfp.requests == ["GET /pipeline/apis/v2beta1/healthz"]
    assert kfp.headers["Host"] == "kubeflow.invalid"


def test_a_sites_own_certificate_is_trusted_where_named(
    kfp: KfpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1", "-addext",
         "subjectAltName=IP:127.0.0.1", "-keyout", tmp_path / "key.pem", "-out", tmp_path / "site.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "site.pem", tmp_path / "key.pem")
    with serving(KfpServer(), context) as secure:
        monkeypatch.setenv("KF_PIPELINES_ENDPOINT", secure.url)
        with pytest.raises(RuntimeError, match="CERTIFICATE_VERIFY_FAILED.*set KFP_SSL_CA_CERT to the file"):
            asked()
        monkeypatch.setenv("KFP_SSL_CA_CERT", str(tmp_path / "site.pem"))
        assert asked()


@pytest.mark.parametrize(
    ("ui", "page"),
    [
        ("https://kubeflow.example/pipeline/", "https://kubeflow.example/pipeline/#/runs/details/r1"),
        ("kubeflow.example/pipeline", "https://kubeflow.example/pipeline/#/runs/details/r1"),
    ],
)
def test_a_run_has_its_page_at_the_address_of_the_pages(
    kfp: KfpServer, monkeypatch: pytest.MonkeyPatch, ui: str, page: str
) -> None:
    monkeypatch.setenv("KF_PIPELINES_UI_ENDPOINT", ui)
    assert connect_kubeflow().page_of("r1") == page
