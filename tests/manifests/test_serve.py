"""The component that serves a registered model: what it puts beside an overlay's objects."""

import shutil

import pytest
import yaml

from components.serve.rollout.__main__ import ANNOTATION
from pipelines.cluster.site import load_site
from tests.manifests.rendered import ROOT, Document, build, objects, strings, variables
from tests.manifests.test_network import selects
from tests.manifests.test_schemas import KUBERNETES, check

SECURITY = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
MLFLOW = {"app.kubernetes.io/name": "mlflow"}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Document]:
    """The local overlay with the component, by kind and name."""
    folder = tmp_path_factory.mktemp("manifests")
    shutil.copytree(ROOT, folder, dirs_exist_ok=True)
    path = folder / "overlays" / "local" / "kustomization.yaml"
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    document["components"].insert(-1, "../../components/serve")
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return {(item["kind"], item["metadata"]["name"]): item for item in build(path.parent)}


@pytest.fixture
def added(found: dict[tuple[str, str], Document]) -> dict[tuple[str, str], Document]:
    return {key: item for key, item in found.items() if key[1].startswith("wordmill-serve")}


def test_it_adds_a_service_and_what_follows_the_alias(
    found: dict[tuple[str, str], Document], added: dict[tuple[str, str], Document]
) -> None:
    both = ("wordmill-serve", "wordmill-serve-rollout")
    assert set(added) == {("Service", both[0]), ("Deployment", both[0]), ("CronJob", both[1]), ("Role", both[1]),
                          ("RoleBinding", both[1]), *(("ServiceAccount", name) for name in both),
                          *(("NetworkPolicy", name) for name in both)}  # fmt: skip
    before = {(item["kind"], item["metadata"]["name"]): item for item in objects("local")}
    changed = {key for key in found if key not in added and found[key] != before[key]}
    assert changed == {("NetworkPolicy", "wordmill-mlflow")}
    assert not [text for text in strings(list(added.values())) if "SITE" in text]
    assert {item["metadata"]["namespace"] for item in added.values()} == {"wordmill"}


@pytest.mark.parametrize("version", KUBERNETES)
def test_its_objects_have_their_schemas(version: str, added: dict[tuple[str, str], Document]) -> None:
    for item in added.values():
        check(item, version)


def pods(added: dict[tuple[str, str], Document]) -> tuple[Document, Document]:
    """Return the pods' templates: of the service, and of what looks after it."""
    look = added["CronJob", "wordmill-serve-rollout"]["spec"]["jobTemplate"]["spec"]["template"]
    return added["Deployment", "wordmill-serve"]["spec"]["template"], look


def test_its_pods_meet_the_restricted_standard_within_bounds(added: dict[tuple[str, str], Document]) -> None:
    for template in pods(added):
        spec = template["spec"]
        assert (spec["securityContext"]["runAsNonRoot"], spec["securityContext"]["runAsUser"]) == (True, 10001)
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert template["metadata"]["labels"]["sidecar.istio.io/inject"] == "false"
        assert all("sizeLimit" in volume["emptyDir"] for volume in spec["volumes"])
        for container in [*spec["containers"], *spec.get("initContainers", [])]:
            assert container["securityContext"] == SECURITY
            assert all({"cpu", "memory"} <= set(container["resources"][bound]) for bound in ("requests", "limits"))
    served, look = (template["spec"] for template in pods(added))
    assert {"livenessProbe", "readinessProbe", "startupProbe"} <= set(served["containers"][0])
    # One of the two has a right, and it has no other.
    assert (served["automountServiceAccountToken"], look["automountServiceAccountToken"]) == (False, True)
    (rule,) = added["Role", "wordmill-serve-rollout"]["rules"]
    assert rule == {"apiGroups": ["apps"], "resources": ["deployments"], "resourceNames": ["wordmill-serve"],
                    "verbs": ["get", "patch"]}  # fmt: skip


def test_a_pod_downloads_what_its_annotation_names_and_serves_that_folder(
    added: dict[tuple[str, str], Document],
) -> None:
    template, look = pods(added)
    (first,), (serve,) = template["spec"]["initContainers"], template["spec"]["containers"]
    model = load_site().serve.model
    assert template["metadata"]["annotations"][ANNOTATION] == model
    assert variables(first)["MODEL"]["valueFrom"]["fieldRef"]["fieldPath"] == f"metadata.annotations['{ANNOTATION}']"
    assert first["command"][3:] == [
        "artifacts",
        "download",
        "--artifact-uri",
        "models:/$(MODEL)",
        "--dst-path",
        "/model",
    ]
    image = (ROOT.parent / "images" / "serve" / "Dockerfile").read_text(encoding="utf-8")
    assert 'ENTRYPOINT ["python", "-m", "components.serve", "/model", "--host", "0.0.0.0", "--port", "8000"]' in image
    mounts = {mount["mountPath"]: mount["name"] for mount in serve["volumeMounts"]}
    assert mounts["/model"] == "model"
    assert {"name": "model", "mountPath": "/model"} in first["volumeMounts"]
    (container,) = look["spec"]["containers"]
    told = {name: entry.get("value") for name, entry in variables(container).items()}
    assert (told["WORDMILL_MODEL"], told["WORDMILL_DEPLOYMENT"]) == (model, "wordmill-serve")
    assert (serve["image"], first["image"], container["image"]) == (
        "wordmill/serve:0.1.0", "wordmill/report:0.1.0", "wordmill/report:0.1.0"
    )  # fmt: skip


def test_both_reach_mlflow_and_the_cluster_the_service(found: dict[tuple[str, str], Document]) -> None:
    ingress = found["NetworkPolicy", "wordmill-mlflow"]["spec"]["ingress"][0]["from"]
    for name in ("serve", "serve-rollout"):
        spec = found["NetworkPolicy", f"wordmill-{name}"]["spec"]
        assert spec["podSelector"] == {"matchLabels": {"app.kubernetes.io/name": name}}
        assert any(selects(peer["podSelector"], {"app.kubernetes.io/name": name}) for peer in ingress)
        to = [peer for rule in spec["egress"] if rule["ports"][0]["port"] == 5000 for peer in rule["to"]]
        assert [selects(peer["podSelector"], MLFLOW) for peer in to] == [True]
    outside = [rule for rule in found["NetworkPolicy", "wordmill-serve-rollout"]["spec"]["egress"]
               if rule["ports"] == [{"protocol": "TCP", "port": 6443}]]  # fmt: skip
    assert [rule["to"] for rule in outside] == [[{"ipBlock": {"cidr": "0.0.0.0/0"}}]]
    (entry,) = found["NetworkPolicy", "wordmill-serve"]["spec"]["ingress"]
    assert entry == {"from": [{"namespaceSelector": {}}], "ports": [{"protocol": "TCP", "port": 8000}]}
