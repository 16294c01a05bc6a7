"""Stage image references: the one place that knows registry and tag or digest."""

import hashlib
import os
from pathlib import Path

from pipelines.cluster.site import load_site
from wordmill.recipe.parsing import read_yaml

ENVIRONMENTS = ("data", "pytorch", "mindspore", "cann", "lite")
ROOT = Path(__file__).resolve().parents[2]
LOCK = ROOT / "images.lock.yaml"  # environment: digest, as `make push` writes it
CONTENTS = "wordmill.contents"  # the label with the digest of what an image was built of

EXPORTERS = {
    "onnx": "pytorch",
    "onnx_int8": "pytorch",
    "onnx_int8_qoperator": "pytorch",
    "mindir": "mindspore",
    "om": "cann",
    "lite": "lite",
}


def image(environment: str) -> str:
    """Return the image reference of an environment, `<registry>/<environment>-python` with its digest.

    Before anything was pushed it has the tag `dev` instead, and WORDMILL_TAG's wherever that is set. The registry is
    the site's, or WORDMILL_REGISTRY. `python` is in every name because the local subprocess runner warns of images
    that do not look like Python ones.
    """
    if "WORDMILL_TAG" in os.environ or not LOCK.exists():
        return tagged(environment)
    name, digests = _name(environment), read_yaml(LOCK)
    if environment not in digests:
        raise ValueError(f"{LOCK.name}: no image '{environment}', it has {', '.join(digests)}: build that one too, and "
                         "push again")  # fmt: skip
    return f"{name}@{digests[environment]}"


def tagged(environment: str) -> str:
    """Return the reference of an environment's image as it is built here, with the tag of WORDMILL_TAG or `dev`."""
    return f"{_name(environment)}:{os.environ.get('WORDMILL_TAG', 'dev')}"


def contents() -> str:
    """Return the sha256 of all that images are built of, by which a stale one is known where a commit says nothing."""
    digest = hashlib.sha256()
    parts = ("wordmill", "components", "requirements", "images")
    for path in [path for part in parts for path in sorted((ROOT / part).rglob("*"))]:
        if path.is_file() and path.suffix != ".pyc":
            digest.update(f"{path.relative_to(ROOT)}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\0".encode())
    return digest.hexdigest()


def _name(environment: str) -> str:
    if environment not in ENVIRONMENTS:
        raise ValueError(f"image environment '{environment}': expected one of {', '.join(ENVIRONMENTS)}")
    return f"{os.environ.get('WORDMILL_REGISTRY') or load_site().registry}/{environment}-python"
