"""The Kubeflow Pipelines server: kfp.Client as its users configure it, with time limits, retries and clear errors."""

import contextlib
import io
import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import kfp
import kfp_server_api
import urllib3
from kfp.client import ServiceAccountTokenVolumeCredentials

TIMEOUT_S = (5, 30)  # to connect and to answer: kfp.Client itself waits for a silent server for ever
PATIENCE_S = 60.0  # for a server that does not answer or answers with a fault of its own
PAUSE_S = 1.0  # before the first repetition, twice as long before each further one
PAGE = 100  # entries
FINISHED = ("SUCCEEDED", "SKIPPED", "FAILED", "CANCELED")  # states of runs and tasks that do not change any more


class RejectedCallError(RuntimeError):
    """The server refused a call; `status` is its HTTP status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class UnavailableError(RuntimeError):
    """The server did not answer, or with a fault of its own: the call may or may not have had its effect."""


class Server:
    """One Kubeflow Pipelines server and the namespace to work in, "" where it knows no users."""

    def __init__(self, client: kfp.Client) -> None:
        self.client = client

    @property
    def namespace(self) -> str:
        """Return the user's namespace, "" on a server for one user."""
        return str(self.client.get_user_namespace() or "")

    def page_of(self, run_id: str) -> str:
        """Return the address of a run's page, or what to set to get it."""
        ui = os.environ.get("KF_PIPELINES_UI_ENDPOINT") or os.environ.get("KF_PIPELINES_ENDPOINT")
        if not ui:
            return f"run id {run_id} (KF_PIPELINES_UI_ENDPOINT names the address of the pages)"
        ui = ui if ui.startswith("http") else f"https://{ui}"
        return f"{ui.rstrip('/')}/#/runs/details/{run_id}"

    def ask(self, doing: str, call: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """Make a call that may safely be repeated; a server that is away is asked again for a minute."""
        patience = _Patience()
        while True:
            try:
                return self.ask_once(doing, call, *arguments, **named)
            except UnavailableError as error:
                patience.wait(error)

    def ask_once(self, doing: str, call: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """Make one call with a time limit; its errors say what to do."""
        api = call.__self__.api_client  # type: ignore[attr-defined]
        try:
            reply = call(*arguments, **named, _request_timeout=TIMEOUT_S)
        except kfp_server_api.ApiException as error:
            raise _explained(error, f"cannot {doing}: {api.configuration.host}") from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise UnavailableError(_unreachable(f"cannot {doing}: {api.configuration.host}", error)) from error
        if not str(api.last_response.data).lstrip().startswith("{"):
            raise RejectedCallError(
                f"cannot {doing}: {api.configuration.host} answers with a page for people, probably its login: set "
                "KFP_EXISTING_TOKEN or KFP_COOKIES, and check the path of KF_PIPELINES_ENDPOINT",
                status=401,
            )
        return reply

    def called(self, name: str, doing: str, call: Callable[..., Any], entries: str, **named: Any) -> list[Any]:
        """Return the entries of exactly this name, oldest first; some databases compare names without their case."""
        predicate = {"operation": "EQUALS", "key": "display_name", "stringValue": name}
        pages = self.listed(doing, call, entries, filter=json.dumps({"predicates": [predicate]}), **named)
        return sorted((entry for entry in pages if entry.display_name == name), key=lambda entry: entry.created_at)

    def listed(self, doing: str, call: Callable[..., Any], entries: str, **named: Any) -> Iterator[Any]:
        """Give the entries of a list call, page after page; `entries` is the reply's field that holds them."""
        token = ""
        while True:
            page = self.ask(doing, call, page_token=token, page_size=PAGE, **named)
            yield from getattr(page, entries) or []
            token = page.next_page_token or ""
            if not token:
                return

    def found_or_made(self, doing: str, find: Callable[[], Any], call: Callable[..., Any], *arguments: Any,
                      **named: Any) -> Any:  # fmt: skip
        """Return what `find` finds, else what the call creates.

        A creation whose answer was lost may have happened, and another process may have been faster (409): both are
        looked for before the call is repeated.
        """
        patience = _Patience()
        while True:
            if (found := find()) is not None:
                return found
            try:
                return self.ask_once(doing, call, *arguments, **named)
            except (UnavailableError, RejectedCallError) as error:
                if isinstance(error, RejectedCallError) and error.status != 409:
                    raise
                patience.wait(error)


class _Client(kfp.Client):
    """kfp.Client whose first question, the health check of its constructor, has a time limit and a clear answer."""

    def get_kfp_healthz(self, sleep_duration: int = 5) -> Any:
        """Return the server's reply to its health check."""
        return Server(self).ask_once("reach Kubeflow Pipelines", self.healthzs.healthz_service_get_healthz)


def connect_kubeflow() -> Server:
    """Open the server that the environment names, as kfp.Client and the kfp command read it.

    KF_PIPELINES_ENDPOINT, else the cluster of this pod or of kubectl; KFP_NAMESPACE; KFP_EXISTING_TOKEN, KFP_COOKIES
    or, in a pod, the token file KF_PIPELINES_SA_TOKEN_PATH; KFP_PROXY, KFP_SSL_CA_CERT, KFP_KUBE_CONTEXT.
    """
    token = os.environ.get("KFP_EXISTING_TOKEN")
    in_pod = not token and os.environ.get("KF_PIPELINES_SA_TOKEN_PATH")
    # The client announces which servers it is for, and prints that there is no kubeconfig.
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        client = _Client(
            namespace=os.environ.get("KFP_NAMESPACE") or "kubeflow", existing_token=token,
            cookies=os.environ.get("KFP_COOKIES"), proxy=os.environ.get("KFP_PROXY"),
            ssl_ca_cert=os.environ.get("KFP_SSL_CA_CERT"), kube_context=os.environ.get("KFP_KUBE_CONTEXT"),
            credentials=ServiceAccountTokenVolumeCredentials() if in_pod else None,
        )  # fmt: skip
    return Server(client)


def _explained(error: kfp_server_api.ApiException, where: str) -> RuntimeError:
    status, said = int(error.status or 0), _said(error)
    if status in (0, 408, 429) or status >= 500:
        return UnavailableError(f"{where} answers {status or 'nothing'}: {said}")
    advice = {
        401: "get a new token and set KFP_EXISTING_TOKEN, or KFP_COOKIES behind a login page",
        403: "ask for the right to it in your namespace (`make doctor` lists what is needed), or check KFP_NAMESPACE",
        404: "check KF_PIPELINES_ENDPOINT (its path too) and KFP_NAMESPACE",
        409: "something of that name is there already",
    }.get(status, "check KFP_NAMESPACE (and ~/.config/kfp/context.json), and that server and kfp have the same version")
    return RejectedCallError(f"{where} refuses with {status}: {said}: {advice}", status)


def _said(error: kfp_server_api.ApiException) -> str:
    """Return the first line of the server's own explanation."""
    try:
        text = str(json.loads(error.body or "")["message"])
    except (ValueError, KeyError, TypeError):
        text = str(error.reason or "")
    lines = text.strip().splitlines() or ["no reason given"]
    return lines[0][:300]


def _unreachable(where: str, error: Exception) -> str:
    cause = str(getattr(error, "reason", None) or error)
    if "CERTIFICATE" in cause.upper():
        return f"{where}: {cause}: set KFP_SSL_CA_CERT to the file of your site's certificates"
    if not os.environ.get("KF_PIPELINES_ENDPOINT"):
        return f"{where} does not answer ({cause}): set KF_PIPELINES_ENDPOINT, or run where kubectl reaches the cluster"
    return f"{where} does not answer ({cause}): check KF_PIPELINES_ENDPOINT and KFP_PROXY, and that the server runs"


class _Patience:
    """Waits between attempts, ever longer, and raises their error when it is at its end."""

    def __init__(self) -> None:
        self.deadline, self.pause_s = time.monotonic() + PATIENCE_S, PAUSE_S

    def wait(self, error: RuntimeError) -> None:
        if time.monotonic() + self.pause_s > self.deadline:
            raise error
        print(f"{error}: trying again in {self.pause_s:.0f} s", file=sys.stderr, flush=True)
        time.sleep(self.pause_s)
        self.pause_s *= 2
