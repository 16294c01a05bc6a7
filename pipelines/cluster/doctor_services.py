"""What `make doctor` asks the services that runs use: Kubeflow Pipelines, S3, MLflow, the registry of images."""

import os
import re
import secrets
import socket
import tempfile
import urllib.error
import urllib.request
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

from pipelines.cluster.client import connect_kubeflow
from pipelines.cluster.site import Site
from pipelines.images.references import NAMES, image, registry_host, split_name
from pipelines.output import to_type
from wordmill.store.storage import PART_BYTES, Store, object_key

TIMEOUT_S = 10
MANIFESTS = ", ".join(
    f"application/vnd.{kind}+json"
    for kind in ("oci.image.index.v1", "oci.image.manifest.v1", "docker.distribution.manifest.list.v2",
                 "docker.distribution.manifest.v2")
)  # fmt: skip


class Finding(NamedTuple):
    """What a check found: `fail` keeps runs from working, `warn` may, or could not be checked from here."""

    what: str
    state: Literal["ok", "warn", "fail"]
    text: str


def kubeflow() -> Iterator[Finding]:
    """Check that Kubeflow Pipelines answers, serves whom the values say, and is of a version that runs get on with."""
    server = connect_kubeflow()
    experiments = server.client.experiments.experiment_service_list_experiments
    server.ask_once("list the experiments", experiments, namespace=server.namespace, page_size=1)
    sdk, found = version("kfp"), server.version
    about = f"{server.site.kubeflow.mode}, server {found or 'of no version'}, kfp {sdk}"
    if not re.match(r"\d+\.\d+", found):
        yield Finding("Kubeflow Pipelines", "warn", f"{about}: answers, but does not say what it is")
    elif found.split(".")[0] != sdk.split(".")[0]:
        text = f"{about}: pin kfp=={'.'.join(found.split('.')[:2])}.* in requirements, or upgrade"
        yield Finding("Kubeflow Pipelines", "fail", text)
    elif not server.knows_users:
        text = (f"{about}: pipelines go without securityContext, which it does not know, so the namespace's pod "
                "security must be baseline (spec.pod_security in values.yaml); 2.17 takes restricted")  # fmt: skip
        yield Finding("Kubeflow Pipelines", "warn", text)
    else:
        yield Finding("Kubeflow Pipelines", "ok", about)


def s3(site: Site, keys: Mapping[str, str]) -> Iterator[Finding]:
    """Write, read back and delete a small and a multipart object; `keys`: the secret's, where the environment has none.

    AWS_ENDPOINT_URL replaces the site's address, as for a forwarded port.
    """
    endpoint = os.environ.get("AWS_ENDPOINT_URL") or site.s3.endpoint
    if inside := _inside(endpoint, "AWS_ENDPOINT_URL"):
        yield Finding("S3", "warn", inside)
        return
    settings = {"AWS_ENDPOINT_URL": endpoint, "AWS_DEFAULT_REGION": site.s3.region}
    if "AWS_ACCESS_KEY_ID" not in os.environ and keys:
        settings |= {"AWS_ACCESS_KEY_ID": keys["access_key"], "AWS_SECRET_ACCESS_KEY": keys["secret_key"]}
    with _environment(settings), tempfile.TemporaryDirectory() as folder:
        store = Store(site.s3.bucket, Path(folder) / "cache")
        _try_out(store, Path(folder) / "trial")
    text = f"bucket {site.s3.bucket} at {endpoint}: written, read and deleted, in parts too"
    yield Finding("S3", "ok", text)


def mlflow(site: Site) -> Iterator[Finding]:
    """Check that MLflow answers and is of the client's version; MLFLOW_TRACKING_URI replaces the site's address."""
    address = os.environ.get("MLFLOW_TRACKING_URI") or site.mlflow.address
    if inside := _inside(address, "MLFLOW_TRACKING_URI"):
        yield Finding("MLflow", "warn", inside)
        return
    try:
        with urllib.request.urlopen(f"{address.rstrip('/')}/version", timeout=TIMEOUT_S) as reply:  # noqa: S310
            found = reply.read(100).decode().strip()
    except OSError as error:
        raise RuntimeError(f"{address} does not answer ({error}): check MLFLOW_TRACKING_URI and its pod") from error
    client = version("mlflow")
    same = found.split(".")[:2] == client.split(".")[:2]
    advice = "" if same else ": give both the same version"
    yield Finding("MLflow", "ok" if same else "warn", f"server {found}, client {client}{advice}")


def image_findings(site: Site, loaded: Collection[str]) -> Iterator[Finding]:
    """Ask each image's registry for its manifest, as a node does first; nothing is pulled and no pod is started.

    Where no registry is named nodes must have the images already, as after `kind load`; `loaded` are those they have.
    """
    references = dict[str, str]()
    for name in NAMES:
        stage, environment = split_name(name)
        try:
            references[image(stage, environment)] = environment
        except ValueError as error:  # never pushed, which matters to the recipes that need it
            yield Finding("image", "warn", str(error))
    references.setdefault(f"{site.registry}/{site.images.services}", "data")
    lacking = [reference for reference in references if not registry_host(reference) and reference not in loaded]
    needed = [reference for reference in lacking if references[reference] == "data"]
    others = [f"{reference} (of some recipes)" for reference in lacking if reference not in needed]
    if lacking:
        yield Finding("image", "fail" if needed else "warn", "no registry is named, and no node is known to have "
                      f"{', '.join([*needed, *others])}: load them into the nodes, or set spec.registry in values.yaml "
                      "and WORDMILL_REGISTRY, and push the images")  # fmt: skip
    for reference in [reference for reference in references if reference not in lacking]:
        state, text = _manifest(reference) if registry_host(reference) else ("ok", "is on a node")
        yield Finding("image", state, f"{reference}: {text}")


def _manifest(reference: str) -> tuple[Literal["ok", "warn", "fail"], str]:
    """Return state and text of an image in its registry."""
    registry, _, path = reference.partition("/")
    name, _, tag = path.partition("@") if "@" in path else path.rpartition(":")
    scheme = "http" if registry.split(":")[0] in ("localhost", "127.0.0.1") else "https"
    request = urllib.request.Request(  # noqa: S310
        f"{scheme}://{registry}/v2/{name}/manifests/{tag}", method="HEAD", headers={"Accept": MANIFESTS}
    )
    try:
        urllib.request.urlopen(request, timeout=TIMEOUT_S).close()  # noqa: S310
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            return "warn", "the registry wants a login: give nodes one, or the accounts (manifests/components/registry)"
        return "fail", f"the registry answers {error.code}: build it and push it there"
    except OSError as error:
        return "warn", f"{registry} is not to be reached from here ({error}): check it from a node"
    return "ok", "is there"


def _try_out(store: Store, path: Path) -> None:
    """Write, read back and delete; RuntimeError says what did not work."""
    key, made = f"doctor/{secrets.token_hex(8)}.json", list[str]()
    try:
        store.put_json(key, {"from": "make doctor"})
        made.append(key)
        if store.get_json(key) != {"from": "make doctor"}:
            raise RuntimeError(f"s3://{store.bucket}/{key}: what was read is not what was written")
        path.write_bytes(secrets.token_bytes(PART_BYTES + 1))  # two parts
        parts = store.put_file(path, "trial")
        made.append(object_key(parts))
        store.cache = path.with_name("read back")
        store.fetch(parts)  # by its sha256
    finally:
        for name in made:
            store.delete(name)


def _inside(address: str, variable: str) -> str:
    """Return what to do about an address that only pods can resolve, "" for one that resolves here."""
    host = urlsplit(address).hostname or ""
    try:
        socket.getaddrinfo(host, None)
    except OSError:
        return (
            f"{address} is a name inside the cluster, or wrong: run `{to_type('doctor')}` in a pod, or forward the "
            f"port (kubectl port-forward) and set {variable}=http://localhost:PORT"
        )
    return ""


@contextmanager
def _environment(settings: dict[str, str]) -> Iterator[None]:
    """Set variables for the time of a `with` block."""
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
