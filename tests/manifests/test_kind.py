"""The way from an empty laptop, as docs/operations.md has it: what of its commands can be held against the tree."""

import re
import shutil
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

from pipelines.cluster.site import VALUES, load_site
from pipelines.cluster.sizes import PRESETS, sizes_of
from pipelines.images.references import KEY
from tests.manifests.rendered import ROOT, Document, build, strings
from tests.manifests.test_values import leaves

KIND = VALUES.with_name("kind.yaml")
PAGE = (ROOT.parent / "docs" / "operations.md").read_text(encoding="utf-8")
COMMANDS = re.sub(r"\n(?!    ).*", "", PAGE[PAGE.index("\n## On a laptop") : PAGE.index("\n## On a cluster")])


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> list[Document]:
    """What the commands put on the cluster."""
    folder = tmp_path_factory.mktemp("manifests")
    shutil.copytree(ROOT, folder, dirs_exist_ok=True)
    shutil.copy(KIND, folder / "site" / "values.yaml")
    return build(folder / "overlays" / "standalone")


def test_kinds_values_are_the_repositorys_but_for_what_kind_asks_for() -> None:
    site = load_site(KIND)
    assert (site.kubeflow.mode, site.namespace) == ("standalone", "kubeflow")
    assert sizes_of(site)["train cpu"] == PRESETS["small"]["train cpu"]
    ours, theirs = (dict(leaves(yaml.safe_load(path.read_text(encoding="utf-8"))["spec"])) for path in (VALUES, KIND))
    assert ours.keys() == theirs.keys()
    assert sorted(key for key, value in ours.items() if theirs[key] != value) == [
        "spec.images.services", "spec.kubeflow.mode", "spec.namespace", "spec.pages.kubeflow", "spec.pages.mlflow",
        "spec.sizes.preset", "spec.storage.cache_access", "spec.storage.cache_size", "spec.storage.database_size",
    ]  # fmt: skip


def test_the_commands_make_the_secrets_that_the_objects_name(objects: list[Document]) -> None:
    made = re.findall(r"-n (\S+) create secret generic (\S+) (.+)", COMMANDS)
    given = {(name, key) for _, name, words in made for key in re.findall(r"--from-literal=(\w+)=", words)}
    assert {namespace for namespace, _, _ in made} == {load_site(KIND).namespace}
    references = [item for item in found_under(objects, "secretKeyRef") if not item.get("optional")]
    assert {(item["name"], item["key"]) for item in references} == given


def found_under(value: object, key: str) -> list[Document]:
    if isinstance(value, list):
        return [found for item in value for found in found_under(item, key)]
    if not isinstance(value, dict):
        return []
    return [value[key]] if key in value else [found for item in value.values() for found in found_under(item, key)]


def test_the_commands_name_versions_images_and_objects_that_there_are(objects: list[Document]) -> None:
    # A server's manifests are not released with every client: the same minor version is what goes together.
    (named,) = re.findall(r"PIPELINE_VERSION=(\d+\.\d+)\.\d+", COMMANDS)
    assert named == ".".join(version("kfp").split(".")[:2])
    assert re.findall(r"--filter label=(\S+)", COMMANDS) == [KEY]
    assert re.findall(r"deployment/(\S+)", COMMANDS) == ["wordmill-mlflow"]
    assert "wordmill-mlflow" in {item["metadata"]["name"] for item in objects if item["kind"] == "Deployment"}
    tag = re.findall(r"WORDMILL_TAG=(\S+)", COMMANDS)[0]
    assert f"wordmill/report:{tag}" in set(strings(objects))
    for path in re.findall(r"(?<= )manifests/\S+", COMMANDS):
        assert (ROOT.parent / Path(path)).exists(), path
