"""The way to Kubeflow Pipelines: KF_PIPELINES_ENDPOINT, else the cluster of this pod, else that of kubectl."""

import contextlib
import io
import logging
import os
import warnings
from pathlib import Path
from typing import Any

import kfp
import kfp_server_api
from kfp.client import ServiceAccountTokenVolumeCredentials
from kubernetes import config

TOKEN = Path("/var/run/secrets/kubeflow/pipelines/token")  # where a pod finds its own, if it asks for one
FORWARD = "kubectl -n {} port-forward svc/ml-pipeline 8888, and KF_PIPELINES_ENDPOINT=http://localhost:8888"


class _Client(kfp.Client):
    """kfp.Client whose constructor asks nothing: what it would ask has no time limit there."""

    def get_kfp_healthz(self, sleep_duration: int = 5) -> Any:
        """Return that no user's namespace needs to be found: the site names it."""
        return kfp_server_api.V2beta1GetHealthzResponse(multi_user=False)


def open_client(namespace: str) -> kfp.Client:
    """Return the client for the server that runs in this namespace; RuntimeError says what is missing on the way."""
    host, token = os.environ.get("KF_PIPELINES_ENDPOINT", ""), os.environ.get("KFP_EXISTING_TOKEN")
    in_pod = not host and "KUBERNETES_SERVICE_HOST" in os.environ
    if in_pod:
        host = f"http://ml-pipeline.{namespace}.svc:8888"
    elif not host:
        _check_kubeconfig(token, namespace)
    # The client announces which servers it is for.
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        client = _Client(
            host=host or None, namespace=namespace, existing_token=token, cookies=os.environ.get("KFP_COOKIES"),
            proxy=os.environ.get("KFP_PROXY"), ssl_ca_cert=os.environ.get("KFP_SSL_CA_CERT"),
            kube_context=os.environ.get("KFP_KUBE_CONTEXT"), credentials=None if token else _token_of_pod(in_pod),
        )  # fmt: skip
    if not host:
        _keep_path(client.pipelines.api_client.configuration)
    return client


def by_kubernetes(host: str) -> bool:
    """Tell whether an address is that of Kubernetes, which passes requests on, but no token with them."""
    return "/services/ml-pipeline" in host


def _token_of_pod(in_pod: bool) -> ServiceAccountTokenVolumeCredentials | None:
    """Return what reads the token that Kubeflow knows a pod by, None where none is named or mounted."""
    wanted = os.environ.get("KF_PIPELINES_SA_TOKEN_PATH") or (in_pod and TOKEN.exists())
    return ServiceAccountTokenVolumeCredentials() if wanted else None


def _check_kubeconfig(token: str | None, namespace: str) -> None:
    """Refuse what the client would take for http://localhost, or call without a name."""
    if token:
        raise RuntimeError("KFP_EXISTING_TOKEN is set and KF_PIPELINES_ENDPOINT is not, and Kubernetes passes no token "
                           f"on to a service: {FORWARD.format(namespace)}")  # fmt: skip
    settings, told = kfp_server_api.Configuration(), _Told()
    logging.getLogger().addHandler(told)  # where what a kubeconfig's plugin could not do is said, and nowhere else
    try:
        config.load_kube_config(context=os.environ.get("KFP_KUBE_CONTEXT"), client_configuration=settings)
    except Exception as error:  # a kubeconfig can be wrong in many ways, and each is for the user to mend
        said = " ".join(str(error).split()) or type(error).__name__
        raise RuntimeError("no way to Kubeflow Pipelines: set KF_PIPELINES_ENDPOINT, or run where kubectl reaches the "
                           f"cluster ({said})") from error  # fmt: skip
    finally:
        logging.getLogger().removeHandler(told)
    if settings.host.startswith("https") and not (settings.api_key or settings.cert_file):
        said = f" ({told.text})" if told.text else ""
        raise RuntimeError(f"kubeconfig gives neither token nor certificate for {settings.host}{said}: log in, so that "
                           "`kubectl get pods` works, or set KF_PIPELINES_ENDPOINT")  # fmt: skip


class _Told(logging.Handler):
    """Keeps the last line that was logged."""

    text = ""

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line."""
        self.text = " ".join(record.getMessage().split())


def _keep_path(settings: Any) -> None:
    """Keep the service's path: what the kubernetes client calls to renew a token sets the address back without it."""
    renew, host = settings.refresh_api_key_hook, settings.host.rstrip("/")
    settings.host = host

    def renewed(configuration: Any) -> None:
        if renew:
            renew(configuration)
        configuration.host, configuration.refresh_api_key_hook = host, renewed

    settings.refresh_api_key_hook = renewed
