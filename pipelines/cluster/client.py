"""The Kubeflow Pipelines server: kfp.Client as its users configure it, with time limits, retries and clear errors."""

import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import kfp
import kfp_server_api
import urllib3

from pipelines.cluster.connection import FORWARD, by_kubernetes, open_client
from pipelines.cluster.site import Site, load_site
from pipelines.output import to_apply, to_type

TIMEOUT_S = (5, 30)  # to connect and to answer: kfp.Client itself waits for a silent server for ever
PATIENCE_S = 60.0  # for a server that does not answer or answers with a fault of its own
PAUSE_S = 1.0  # before the first repetition, twice as long before each further one
PAGE = 100  # entries
KNOWS_USERS = (2, 17)  # the first version that reads a pod's securityContext in a pipeline
FINISHED = ("SUCCEEDED", "SKIPPED", "FAILED", "CANCELED")  # states of runs and tasks that do not change any more


class RejectedCallError(RuntimeError):
    """The server refused a call; `status` is its HTTP status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class UnavailableError(RuntimeError):
    """The server did not answer, or with a fault of its own: the call may or may not have had its effect."""


class Server:
    """One Kubeflow Pipelines server, its version ("" where it says none), and the user's namespace.

    The namespace is "" on a standalone server, which knows no users and refuses their namespaces.
    """

    def __init__(self, client: kfp.Client, site: Site) -> None:
        self.client, self.site = client, site
        self.namespace = site.namespace if site.kubeflow.mode == "multi-user" else ""
        reply = self.ask_once("reach Kubeflow Pipelines", client.healthzs.healthz_service_get_healthz)
        # kfp's model of the answer leaves the version out.
        told = json.loads(client.healthzs.api_client.last_response.data)
        self.version = str(told.get("tag_name") or "").removeprefix("v")
        self._check_mode("multi-user" if reply.multi_user else "standalone")

    @property
    def knows_users(self) -> bool:
        """Tell whether the server reads whom a pipeline's pods run as; one that says no version counts as new."""
        numbers = re.match(r"(\d+)\.(\d+)", self.version)
        return not numbers or (int(numbers[1]), int(numbers[2])) >= KNOWS_USERS

    def _check_mode(self, found: str) -> None:
        """Refuse a server that serves others than the site's values say; nothing would start there."""
        mode, namespace = self.site.kubeflow.mode, self.site.kubeflow.namespace
        if mode == found:
            return
        host = self.client.healthzs.api_client.configuration.host
        wanted = "the namespace of your profile" if found == "multi-user" else namespace
        overlay = "local" if found == "multi-user" else "standalone"
        advice = f"set spec.kubeflow.mode: {found} and spec.namespace: {wanted}"
        raise RuntimeError(f"values.yaml: spec.kubeflow.mode is {mode}, {host} is {found}: {advice}, then "
                           f"{to_apply(overlay)}")  # fmt: skip

    def page_of(self, run_id: str) -> str:
        """Return the address of a run's page, or what to set to get it."""
        named = os.environ.get("KF_PIPELINES_UI_ENDPOINT") or self.site.pages.kubeflow
        ui = named or os.environ.get("KF_PIPELINES_ENDPOINT")
        if not ui:
            return f"run id {run_id} (spec.pages.kubeflow of values.yaml, or KF_PIPELINES_UI_ENDPOINT, names the pages)"
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


def connect_kubeflow() -> Server:
    """Open the server that the environment names, as kfp.Client and the kfp command read it, for the site's values.

    KF_PIPELINES_ENDPOINT, else the cluster of this pod or of kubectl; KFP_NAMESPACE; KFP_EXISTING_TOKEN, KFP_COOKIES
    or, in a pod, the token file KF_PIPELINES_SA_TOKEN_PATH; KFP_PROXY, KFP_SSL_CA_CERT, KFP_KUBE_CONTEXT.
    """
    site = load_site()
    return Server(open_client(site.kubeflow.namespace), site)


def _explained(error: kfp_server_api.ApiException, where: str) -> RuntimeError:
    status, said = int(error.status or 0), _said(error)
    if status in (0, 408, 429) or status >= 500:
        return UnavailableError(f"{where} answers {status or 'nothing'}: {said}")
    advice = {
        401: _who(where),
        403: f"ask for the right to it in your namespace, see `{to_type('doctor')}`, or check KFP_NAMESPACE",
        404: "check KF_PIPELINES_ENDPOINT (its path too) and KFP_NAMESPACE",
        409: "something of that name is there already",
    }.get(status, "check KFP_NAMESPACE, spec.namespace of values.yaml, and that server and kfp have the same version")
    return RejectedCallError(f"{where} refuses with {status}: {said}: {advice}", status)


def _who(where: str) -> str:
    """Say how a server learns who asks."""
    if by_kubernetes(where):
        forward = FORWARD.format(where.partition("/namespaces/")[2].partition("/")[0])
        return f"Kubernetes passes no token on to a Kubeflow with users: {forward}, with KFP_EXISTING_TOKEN"
    return "get a new token and set KFP_EXISTING_TOKEN, or KFP_COOKIES behind a login page"


def _said(error: kfp_server_api.ApiException) -> str:
    """Return the first line of the server's own explanation."""
    try:
        told = json.loads(error.body or "")
        text = str(told.get("message") or told["error_message"])  # of uploads, which are not gRPC's
    except (ValueError, KeyError, TypeError, AttributeError):
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
