"""`make doctor`: whether a site has what runs need, one line per check with what to do."""

from collections.abc import Callable, Iterator

import urllib3
from kubernetes import client, config

from pipelines.cluster import doctor_services as services
from pipelines.cluster.doctor_rights import Cluster
from pipelines.cluster.doctor_services import Finding
from pipelines.cluster.site import Site, load_site
from pipelines.output import print_json, told_beside


def doctor(as_json: bool = False) -> int:
    """Check the site of values.yaml, print each finding at once, and return 1 if one keeps runs from working."""
    if as_json:
        with told_beside(as_json):
            found = list(examined(load_site()))
        print_json([finding._asdict() for finding in found])
        return int(any(finding.state == "fail" for finding in found))
    counts = {"ok": 0, "warn": 0, "fail": 0}
    for finding in examined(load_site()):
        counts[finding.state] += 1
        print(f"{finding.state:<5} {finding.what:<20} {finding.text}", flush=True)
    print(f"{counts['ok']} checks are well, {counts['warn']} warn, {counts['fail']} fail")
    return 1 if counts["fail"] else 0


def examined(site: Site) -> Iterator[Finding]:
    """Give all findings; a check that breaks off is a finding too."""
    keys, loaded = dict[str, str](), frozenset[str]()
    try:
        cluster = Cluster(site)
        reached = list(cluster.server())
    except Exception as error:  # a kubeconfig can be wrong in many ways, and each is for the user to mend
        unchecked = "the namespace, rights, queue, devices and sizes are not checked"
        yield Finding("Kubernetes", "fail", f"{_explained(error)}: {unchecked}")
    else:
        yield from reached
        keys, loaded = cluster.keys(), cluster.images()
        for what, check in (("objects", cluster.objects), ("rights", cluster.rights), ("queue", cluster.queue),
                            ("devices", cluster.devices), ("sizes", cluster.sizes),
                            ("retries", cluster.retries)):  # fmt: skip
            yield from _tried(what, check)
    yield from _tried("Kubeflow Pipelines", services.kubeflow)
    yield from _tried("S3", lambda: services.s3(site, keys))
    yield from _tried("MLflow", lambda: services.mlflow(site))
    yield from _tried("image", lambda: services.image_findings(site, loaded))


def _tried(what: str, check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    try:
        yield from check()
    except Exception as error:  # whatever a site's servers can do wrong is a line of the report, not its end
        yield Finding(what, "fail", _explained(error))


def _explained(error: Exception) -> str:
    """Return an error as one line with what to do."""
    if isinstance(error, client.ApiException):
        advice = {
            401: "log in again, as for kubectl",
            403: "ask the cluster's administrator for the right to read it",
            404: "it is not there: apply the manifests, and check spec.namespace in values.yaml",
        }.get(error.status, "see the cluster's own logs")
        return f"Kubernetes answers {error.status} {error.reason}: {advice}"
    if isinstance(error, urllib3.exceptions.HTTPError):
        return f"Kubernetes does not answer ({getattr(error, 'reason', None) or error}): check that kubectl reaches it"
    text = " ".join(str(error).split())
    if isinstance(error, config.ConfigException):
        return f"{text} Set KUBECONFIG, or run where kubectl reaches the cluster"
    return text if isinstance(error, RuntimeError | ValueError) else f"{type(error).__name__}: {text}"
