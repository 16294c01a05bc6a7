"""Stage image references: the one place that knows registry and tag or digest."""

import os

REGISTRY = "wordmill"
ENVIRONMENTS = ("data", "pytorch", "mindspore", "cann", "lite")

EXPORTERS = {"onnx": "pytorch", "onnx_int8": "pytorch", "mindir": "mindspore", "om": "cann", "lite": "lite"}


def image(environment: str) -> str:
    """Return the image reference of an environment, `<registry>/<environment>-python:<tag>`.

    WORDMILL_REGISTRY and WORDMILL_TAG choose the site's own at compile time. `python` is in every name because
    the local subprocess runner warns of images that do not look like Python ones.
    """
    if environment not in ENVIRONMENTS:
        raise ValueError(f"image environment '{environment}': expected one of {', '.join(ENVIRONMENTS)}")
    registry = os.environ.get("WORDMILL_REGISTRY", REGISTRY)
    return f"{registry}/{environment}-python:{os.environ.get('WORDMILL_TAG', 'dev')}"
