"""The manifests as kubectl renders them, for tests; without kubectl these are skipped, except in CI."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2] / "manifests"
OVERLAYS = ("local", "gpu", "ascend")
Document = dict[str, Any]


def build(folder: Path) -> list[Document]:
    """Return the objects of a kustomization."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("there is no kubectl, 1.27 or later, to render with")
    done = subprocess.run([kubectl, "kustomize", str(folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return list(yaml.load_all(done.stdout, yaml.CSafeLoader))


@cache
def objects(overlay: str) -> list[Document]:
    """Return an overlay's objects with the values as they are in the repository; not to be changed."""
    return build(ROOT / "overlays" / overlay)


def of_kind(overlay: str, *kinds: str) -> list[Document]:
    return [item for item in objects(overlay) if item["kind"] in kinds]


def names(overlay: str, kind: str) -> set[str]:
    return {item["metadata"]["name"] for item in of_kind(overlay, kind)}


def templates(overlay: str) -> dict[str, Document]:
    """Return the pod templates, {metadata, spec}, by the name of what makes the pods."""
    found = {}
    for item in objects(overlay):
        if "containers" in str(item.get("spec")):
            spec = item["spec"]["jobTemplate"]["spec"] if item["kind"] == "CronJob" else item["spec"]
            found[item["metadata"]["name"]] = spec["template"]
    return found


def containers(overlay: str) -> Iterator[tuple[str, Document]]:
    for name, template in templates(overlay).items():
        spec = template["spec"]
        yield from ((name, item) for item in [*spec["containers"], *spec.get("initContainers", [])])


def variables(container: Document) -> dict[str, Document]:
    return {entry["name"]: entry for entry in container["env"]}


def strings(value: Any) -> Iterator[str]:
    """Return every text of a document, keys included."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from strings(key)
            yield from strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)
    elif isinstance(value, str):
        yield value
