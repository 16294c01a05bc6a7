"""A site's values, manifests/site/values.yaml: what the pipelines and, through kustomize, the manifests read.

`python -m pipelines.cluster.site OVERLAY` checks the file, and that it is for that overlay of the manifests.
"""

import ipaddress
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pipelines.places import values_file
from wordmill.recipe.parsing import parse_section, read_yaml

VALUES = values_file()
CACHE = "wordmill-cache"  # the claim that stages mount at /cache
QUEUE = "wordmill"
STAGE_ACCOUNT = "wordmill-stage"  # of every pod of a run
TRAINING_ACCOUNT = "wordmill-training"  # of the pods of a training's job: it has no rights
# Of such a pod: without the first it reaches nothing, without the second it may get a mesh's proxy and never end.
TRAINING_LABELS = {"app.kubernetes.io/name": "training", "sidecar.istio.io/inject": "false"}


@dataclass(frozen=True, kw_only=True)
class Images:
    """Image references with a tag or a digest; `services` and `serve` stand below the registry."""

    services: str
    serve: str
    postgres: str


@dataclass(frozen=True, kw_only=True)
class Kubeflow:
    """Whom Kubeflow Pipelines serves, where its own servers run, and the secret with the keys of its artifact store.

    A Kubeflow for many users has a namespace for each, a standalone one runs everything in its own.
    """

    mode: Literal["multi-user", "standalone"]
    namespace: str
    artifact_secret: str


@dataclass(frozen=True, kw_only=True)
class S3:
    """The object store; its keys are in the secret wordmill-s3."""

    endpoint: str
    region: str
    bucket: str


@dataclass(frozen=True, kw_only=True)
class MLflow:
    """MLflow's address, the Host headers that it accepts, and its database's address without user and password."""

    address: str
    hosts: str
    database: str


@dataclass(frozen=True, kw_only=True)
class Pages:
    """Addresses as people's browsers reach them, "" for none: MLflow's, what objects' keys follow, Kubeflow's."""

    mlflow: str
    s3: str
    kubeflow: str


@dataclass(frozen=True, kw_only=True)
class Storage:
    """Storage class, access mode and sizes of the volumes."""

    class_name: str
    cache_access: Literal["ReadWriteMany", "ReadWriteOnce"]
    cache_size: str
    database_size: str


@dataclass(frozen=True, kw_only=True)
class Accelerator:
    """A kind of device: its resource's name, the labels of its nodes, and those that its jobs and pods must carry."""

    resource: str
    nodes: dict[str, str]
    labels: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class PodSize:
    """CPUs and memory of a pod in Kubernetes's quantities: what it asks for, and what it may take."""

    cpu: str
    memory: str
    cpu_limit: str
    memory_limit: str


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """The sizes of stages: a preset of pipelines/cluster/sizes.py, and what differs here, by its names."""

    preset: Literal["small", "gpu", "npu"]
    changed: dict[str, PodSize]


@dataclass(frozen=True, kw_only=True)
class Nightly:
    """Recipes, separated by commas, whose nights are watched, and after how many hours of silence somebody is told."""

    recipes: str
    silence_h: int


@dataclass(frozen=True, kw_only=True)
class Serving:
    """What manifests/components/serve serves: a registered model with an alias, such as wordmill-crnn_r34@champion."""

    model: str


@dataclass(frozen=True, kw_only=True)
class Retention:
    """How long MLflow keeps what was deleted, such as 30d."""

    deleted_runs: str


@dataclass(frozen=True, kw_only=True)
class Network:
    """Where pods reach things, as address ranges and ports behind the services' own."""

    api_server_cidr: str
    api_server_port: int
    s3_cidr: str
    s3_port: int
    database_cidr: str
    database_port: int
    https_cidr: str


@dataclass(frozen=True, kw_only=True)
class Site:
    """A site; quantities such as 2Ti are Kubernetes's, accelerators go by the device: cuda, npu."""

    namespace: str
    pod_security: Literal["restricted", "baseline"]
    registry: str
    images: Images
    kubeflow: Kubeflow
    s3: S3
    mlflow: MLflow
    pages: Pages
    storage: Storage
    accelerators: dict[str, Accelerator]
    sizes: Sizes
    quota: dict[str, str]
    queue: dict[str, str]
    nightly: Nightly
    serve: Serving
    retention: Retention
    network: Network


def load_site(path: Path = VALUES) -> Site:
    """Read and check a site's values; ValueError names file, key, what was found and what is expected.

    KFP_NAMESPACE, which kfp's users set, stands above the file's namespace.
    """
    content = path.read_bytes() if os.access(path, os.R_OK) and path.is_file() else b""
    return _loaded(path, content, os.environ.get("KFP_NAMESPACE", ""))


@cache
def _loaded(path: Path, content: bytes, namespace: str) -> Site:
    """Read a file once for the content that it has: every task of a pipeline asks for the site."""
    site = parse_section(Site, read_yaml(path).get("spec"), f"{path.name}: spec")
    site = replace(site, namespace=namespace or site.namespace)
    for key, value in _leaves(asdict(site), "spec"):
        _check(value, key, f"{path.name}: {key}")
    _check_namespace(site, f"{path.name}: spec.namespace: found '{site.namespace}'")
    return site


def _check_namespace(site: Site, where: str) -> None:
    where += ", by KFP_NAMESPACE" if os.environ.get("KFP_NAMESPACE") else ""
    inside = site.namespace == site.kubeflow.namespace
    if site.kubeflow.mode == "multi-user" and inside:
        raise ValueError(f"{where}, where Kubeflow's own servers run: network policies would cut them off; expected a "
                         "profile's namespace, or spec.kubeflow.mode: standalone")  # fmt: skip
    if site.kubeflow.mode == "standalone" and not inside:
        raise ValueError(f"{where}; expected '{site.kubeflow.namespace}': a standalone Kubeflow runs everything in its "
                         "own namespace")  # fmt: skip


def check_overlay(site: Site, overlay: str) -> None:
    """Refuse what would cut off or bound a standalone Kubeflow's own pods, or leave a profile without policies."""
    if (overlay == "standalone") != (site.kubeflow.mode == "standalone"):
        expected = "local, gpu or ascend" if overlay == "standalone" else "standalone"
        found = f"spec.kubeflow.mode of values.yaml is {site.kubeflow.mode}"
        raise ValueError(f"OVERLAY={overlay}: {found}, which wants {expected}")


# What a value must look like: a pattern of its key -> a pattern of the value, and the words for that.
_NAME = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_TAGGED = r"[a-z0-9][\w./:-]*(:(?!latest$)[\w.-]+|@sha256:[0-9a-f]{64})"
_SHAPES = {
    r"spec\.(namespace|kubeflow\.namespace|storage\.class_name)": (_NAME, "a Kubernetes name"),
    r"spec\.images\..*": (_TAGGED, "an image with a digest or a tag other than latest"),
    r"spec\.(s3\.endpoint|mlflow\.address)": (r"https?://[^/\s]+", "http:// or https:// and a host, no path"),
    r"spec\.pages\..*": (r"(https?://\S+)?", "http:// or https:// and a host, or nothing"),
    r"spec\.mlflow\.database": (r"postgresql\+psycopg2://[^@\s]+", "postgresql+psycopg2://host:port/name, no user"),
    r"spec\.(quota|queue|sizes\.changed)\..*|.*_size": (
        r"\d+(\.\d+)?(m|k|[MGTP]|[KMGTP]i)?",
        'a quantity in quotes, such as "8"',
    ),
    r"spec\.serve\.model": (r"[\w.-]+@[\w.-]+", "a registered model and its alias, such as wordmill-crnn_r34@champion"),
    r"spec\.retention\..*": (r"\d+d", "days, such as 30d"),
    r".*_port|spec\.nightly\.silence_h": (r"[1-9]\d{0,4}", "a whole number above 0"),
}


def _check(value: Any, key: str, where: str) -> None:
    for place, (shape, words) in _SHAPES.items():
        if re.fullmatch(place, key) and not re.fullmatch(shape, str(value)):
            raise ValueError(f"{where}: expected {words}, found {value!r}")
    if key.endswith("_cidr"):
        try:
            ipaddress.ip_network(value)
        except ValueError as error:
            raise ValueError(f"{where}: expected an address range such as 10.0.0.0/8: {error}") from None


def _leaves(values: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        name = f"{prefix}.{key}"
        yield from _leaves(value, name) if isinstance(value, dict) else [(name, value)]


if __name__ == "__main__":
    try:
        check_overlay(load_site(), sys.argv[1])
    except ValueError as wrong:
        sys.exit(f"error: {wrong}")
