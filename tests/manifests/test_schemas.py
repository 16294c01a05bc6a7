"""Every rendered object against the schema of its kind, of the oldest and the newest Kubernetes that is supported."""

import copy
import json
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from botocore.session import Session
from botocore.validate import validate_parameters

from tests.manifests.rendered import OVERLAYS, ROOT, Document, objects

KUBERNETES = ("1.29", "1.37")
SCHEMAS = Path(__file__).parents[1] / "schemas"


@pytest.fixture(autouse=True)
def _read_each_schema_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package reads a file of megabytes for every object."""
    monkeypatch.setattr(kubernetes_validate.utils, "schema_contents", schema_contents)


schema_contents = cache(kubernetes_validate.utils.schema_contents)


def check(document: Document, version: str) -> None:
    own = SCHEMAS / f"{document['apiVersion'].replace('/', '_')}_{document['kind']}.yaml"
    if not own.exists():
        kubernetes_validate.validate(document, version, strict=True)
        return
    jsonschema.validate(document, yaml.safe_load(own.read_text(encoding="utf-8")))
    for template in pod_templates(document.get("spec")):
        pod = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "x"}, "template": template}
        kubernetes_validate.validate(pod, version, strict=True)


def pod_templates(value: Any) -> list[Document]:
    """Return the pod templates below a job's spec: tasks[].template, replicaSpecs.*.template."""
    if isinstance(value, list):
        return [found for item in value for found in pod_templates(item)]
    if not isinstance(value, dict):
        return []
    if "template" in value:
        return [value["template"]]
    return [found for item in value.values() for found in pod_templates(item)]


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_object_has_its_schema(overlay: str, version: str) -> None:
    for document in objects(overlay):
        check(document, version)


@pytest.mark.parametrize("version", KUBERNETES)
def test_a_misspelt_field_is_found_in_every_kind(version: str) -> None:
    seen = {document["kind"]: document for overlay in OVERLAYS for document in objects(overlay)}
    assert len(seen) == 15
    for document in seen.values():
        wrong = copy.deepcopy(document)
        target = wrong.get("spec", wrong)
        target["replicsa"] = 1
        with pytest.raises(jsonschema.ValidationError):
            check(wrong, version)


def test_the_lifecycle_rules_are_what_s3_takes() -> None:
    shape = Session().get_service_model("s3").operation_model("PutBucketLifecycleConfiguration").input_shape
    rules = json.loads((ROOT / "s3-lifecycle.json").read_text(encoding="utf-8"))
    validate_parameters({"Bucket": "wordmill", "LifecycleConfiguration": rules}, shape)
    # Objects by digest hold promoted models: nothing that expires may reach them.
    for rule in rules["Rules"]:
        if "Expiration" in rule:
            assert not "objects/".startswith(rule["Filter"]["Prefix"])
            assert not "manifests/".startswith(rule["Filter"]["Prefix"])
