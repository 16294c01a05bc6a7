"""The connection: what kfp.Client's users configure, each way against a server that insists on it."""

import ssl
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.cluster import client
from pipelines.cluster.client import connect_kubeflow
from pipelines.cluster.site import load_site
from pipelines.cluster.submit import publish
from tests.pipelines.cluster.kfp_server import serving, standalone
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


def test_the_namespace_is_the_values_unless_the_environment_names_another(
    kfp: KfpServer, spec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(connect_kubeflow(), "quickstart", spec)
    assert kfp.made("pipelines")[0]["namespace"] == kfp.made("experiments")[0]["namespace"] == "wordmill"
    monkeypatch.setenv("KFP_NAMESPACE", "ocr-team")
    publish(connect_kubeflow(), "quickstart", spec.replace("Train and prove", "Prove and train"))
    assert kfp.made("versions")[1]["pipeline_id"] == kfp.made("pipelines")[0]["pipeline_id"]
    assert connect_kubeflow().namespace == "ocr-team"


def test_a_server_that_serves_others_than_the_values_say_is_refused_with_what_to_set(
    kfp: KfpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kfp.multi_user = False
    words = "mode: standalone and spec.namespace: kubeflow, then make manifests OVERLAY=standalone"
    with pytest.raises(RuntimeError, match=f"mode is multi-user, http://.* is standalone: set spec.kubeflow.{words}"):
        connect_kubeflow()
    values = standalone(tmp_path)
    monkeypatch.setattr(client, "load_site", lambda: load_site(values))
    assert asked()
    assert connect_kubeflow().namespace == ""
    kfp.multi_user = True
    with pytest.raises(
        RuntimeError, match="mode is standalone, http://.* is multi-user: .*the namespace of your profile"
    ):
        connect_kubeflow()


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
    server = connect_kubeflow()
    assert server.page_of("r1") == f"{kfp.url}/#/runs/details/r1"  # of the endpoint, where nothing else is named
    server.site = replace(server.site, pages=replace(server.site.pages, kubeflow="https://a.example"))
    assert server.page_of("r1") == "https://a.example/#/runs/details/r1"
    monkeypatch.setenv("KF_PIPELINES_UI_ENDPOINT", ui)
    assert server.page_of("r1") == page
