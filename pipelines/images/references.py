"""Stage image references: the one place that knows names, registry and tag or digest."""

import os
from dataclasses import dataclass

from pipelines.cluster.site import load_site
from pipelines.places import lock_file
from wordmill.recipe.parsing import parse_section, read_yaml

ENVIRONMENTS = ("data", "pytorch", "mindspore", "cann", "lite")
EXPORTERS = {
    "onnx": "pytorch",
    "onnx_int8": "pytorch",
    "onnx_int8_qoperator": "pytorch",
    "mindir": "mindspore",
    "om": "cann",
    "lite": "lite",
}
COMPUTING = ("pytorch", "mindspore", "cann")  # where stages train and evaluate
# In which environments each stage runs.
STAGES = {
    "fresh": ("data",), "fetch": ("data",), "shard": ("data",), "train": COMPUTING, "evaluate": COMPUTING,
    "export": (*COMPUTING, "lite"), "smoke": (*COMPUTING, "lite"), "gate": ("data", "pytorch"), "report": ("data",),
}  # fmt: skip
KEY = "wordmill.key"  # the label with the sha256 of what an image was built of
SERVICES = "report"  # whose image MLflow and the housekeeping run in
LOCK = lock_file()  # by name: the digest, and the key of what it was built of, as `make push` writes them


@dataclass(frozen=True, kw_only=True)
class Pushed:
    """An image in the registry."""

    digest: str
    key: str


def name_of(stage: str, environment: str) -> str:
    """Return the name of a stage's image: `fetch`, `train-pytorch`; the environment `data` goes without saying."""
    if environment not in STAGES.get(stage, ()):
        known = ", ".join(STAGES.get(stage, STAGES))
        raise ValueError(f"image of stage '{stage}' with environment '{environment}': expected one of {known}")
    return stage if environment == "data" else f"{stage}-{environment}"


def split_name(name: str) -> tuple[str, str]:
    """Return stage and environment of an image's name."""
    stage, _, environment = name.partition("-")
    name_of(stage, environment or "data")
    return stage, environment or "data"


NAMES = tuple(name_of(stage, environment) for stage, environments in STAGES.items() for environment in environments)


def image(stage: str, environment: str) -> str:
    """Return the reference of a stage's image, with its digest.

    Before anything was pushed it has the tag `dev` instead, and WORDMILL_TAG's wherever that is set. The registry is
    the site's, or WORDMILL_REGISTRY.
    """
    name = name_of(stage, environment)
    if "WORDMILL_TAG" in os.environ or not LOCK.exists():
        return tagged(name)
    pushed = read_lock()
    if name not in pushed:
        raise ValueError(
            f"{LOCK.name}: no image '{name}', it has {', '.join(pushed)}: build that one too, and push again"
        )
    return f"{registry()}/{name}@{pushed[name].digest}"


def tagged(name: str) -> str:
    """Return the reference of an image as it is built here, with the tag of WORDMILL_TAG or `dev`."""
    return f"{registry()}/{name}:{os.environ.get('WORDMILL_TAG', 'dev')}"


def registry_host(reference: str) -> str:
    """Return the host of an image's registry, "" where it names none."""
    host, _, path = reference.partition("/")
    return host if path and (set(".:") & set(host) or host == "localhost") else ""


def read_lock() -> dict[str, Pushed]:
    """Return what was pushed, by name."""
    if not LOCK.exists():
        return {}
    return {name: parse_section(Pushed, entry, f"{LOCK.name}: {name}") for name, entry in read_yaml(LOCK).items()}


def registry() -> str:
    """Return what stands before the images' names."""
    return os.environ.get("WORDMILL_REGISTRY") or load_site().registry
