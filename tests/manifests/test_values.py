"""values.yaml reaches the objects, agrees with what the pipelines name, and nothing is left to fill in."""

import copy
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.cluster import doctor_rights as doctor_cluster
from pipelines.cluster import site
from pipelines.cluster import tasks as cluster
from pipelines.cluster.sizes import sizes_of
from pipelines.profiles import PROFILES
from tests.manifests.rendered import OVERLAYS, ROOT, Document, build, containers, names, objects, of_kind, strings

GOLDEN = Path(__file__).parents[1] / "golden" / "quickstart.yaml"
VALUES = yaml.safe_load(site.VALUES.read_text(encoding="utf-8"))
# What the pipelines alone read, by how a key begins.
OF_PIPELINES = ("spec.kubeflow.mode", "spec.accelerators.", "spec.sizes.")


def leaves(value: Any, path: str = "spec") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, f"{path}.{key}")
    else:
        yield path, value


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the manifests with an overlay `all` of every component."""
    folder = tmp_path_factory.mktemp("manifests")
    shutil.copytree(ROOT, folder, dirs_exist_ok=True)
    paths = sorted((ROOT / "components").iterdir(), key=lambda path: (path.name == "registry", path.name))  # it is last
    components = [f"../../components/{path.name}" for path in paths]
    document = yaml.safe_load((ROOT / "overlays" / "local" / "kustomization.yaml").read_text(encoding="utf-8"))
    (folder / "overlays" / "all").mkdir()
    whole = yaml.safe_dump(document | {"components": [*components, "../../site"]})
    (folder / "overlays" / "all" / "kustomization.yaml").write_text(whole, encoding="utf-8")
    return folder


def rendered(folder: Path, values: Document) -> list[Document]:
    (folder / "site" / "values.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    return build(folder / "overlays" / "all")


def put(values: Document, path: str, value: Any) -> None:
    """Change one value."""
    target = values["spec"]
    *steps, last = _steps(path, target)
    for step in steps:
        target = target[step]
    target[last] = value


def test_every_value_reaches_an_object(everything: Path) -> None:
    before, marked = rendered(everything, VALUES), copy.deepcopy(VALUES)
    marks = {path: 60_000 + number if isinstance(value, int) else f"mark{number}end"
             for number, (path, value) in enumerate(leaves(VALUES["spec"]))}  # fmt: skip
    for path, mark in marks.items():
        put(marked, path, mark)
    plain, text = yaml.safe_dump(before), yaml.safe_dump(rendered(everything, marked))
    unread = [path for path, mark in marks.items() if str(mark) in plain or str(mark) not in text]
    for path in list(unread):  # of which an object may still hold something
        values = copy.deepcopy(VALUES)
        put(values, path, marks[path])
        if rendered(everything, values) != before:
            unread.remove(path)
    assert unread == [path for path in marks if path.startswith(OF_PIPELINES)]


def _steps(path: str, values: Document) -> list[str]:
    """Split a path at its dots, but for those within a key such as requests.cpu."""
    rest, steps, target = path.removeprefix("spec."), [], values
    while rest:
        step = next(key for key in target if rest == key or rest.startswith(f"{key}."))
        steps.append(step)
        rest, target = rest[len(step) + 1 :], target[step]
    return steps


def test_a_site_of_its_own_is_filled_in_everywhere(everything: Path) -> None:
    values = copy.deepcopy(VALUES)
    values["spec"] |= {"namespace": "ocr", "registry": "registry.example.com:5000/team/words"}
    values["spec"]["images"]["services"] = f"report@sha256:{'a' * 64}"
    values["spec"]["s3"]["bucket"] = "letters"
    values["spec"]["kubeflow"]["namespace"] = "kfp"
    found = rendered(everything, values)
    assert {item["metadata"].get("namespace", "ocr") for item in found} == {"ocr"}
    assert [item["metadata"]["name"] for item in found if item["kind"] == "Namespace"] == ["ocr"]
    subjects = [subject for item in found if item["kind"] == "RoleBinding" for subject in item["subjects"]]
    assert {subject["namespace"] for subject in subjects} == {"ocr"}
    texts = list(strings(found))
    assert texts.count(f"registry.example.com:5000/team/words/report@sha256:{'a' * 64}") == 6
    assert texts.count("s3://letters/mlflow") == 2
    assert "kubeflow" not in texts  # the namespace that values.yaml names by default
    assert texts.count("kfp") == 6


def test_beside_a_standalone_kubeflow_nothing_bounds_or_cuts_off_its_own_pods(everything: Path) -> None:
    values = copy.deepcopy(VALUES)
    values["spec"]["namespace"], values["spec"]["kubeflow"]["mode"] = "kubeflow", "standalone"
    (everything / "site" / "values.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    found = build(everything / "overlays" / "standalone")
    assert {item["metadata"]["namespace"] for item in found} == {"kubeflow"}
    assert not [text for text in strings(found) if "SITE" in text]
    left_out = {(item["kind"], item["metadata"]["name"]) for item in objects("local")}
    left_out -= {(item["kind"], item["metadata"]["name"]) for item in found}
    assert {kind for kind, _ in left_out} == {"Namespace", "ResourceQuota", "LimitRange", "NetworkPolicy"}
    (policy,) = [item for item in found if item["kind"] == "NetworkPolicy"]
    assert policy["spec"]["podSelector"] == {"matchLabels": {"app.kubernetes.io/name": "postgres"}}


def test_a_registry_that_wants_a_login_gets_it_for_every_account(everything: Path) -> None:
    accounts = [item for item in rendered(everything, VALUES) if item["kind"] == "ServiceAccount"]
    assert [item["imagePullSecrets"] for item in accounts] == [[{"name": "wordmill-registry"}]] * 7


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_nothing_is_left_to_fill_in(overlay: str) -> None:
    assert not [text for text in strings(objects(overlay)) if "SITE" in text]
    assert not [item for item in objects(overlay) if item["kind"] == "Values"]
    assert "0" not in strings(objects(overlay))
    for policy in of_kind(overlay, "NetworkPolicy"):
        for rule in [*policy["spec"].get("egress", []), *policy["spec"].get("ingress", [])]:
            assert all(entry["port"] > 0 for entry in rule.get("ports", []))


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_objects_hold_what_the_site_says(overlay: str) -> None:
    values = site.load_site()
    (settings,) = of_kind(overlay, "ConfigMap")
    assert settings["data"] == {
        "s3_endpoint": values.s3.endpoint,
        "region": values.s3.region,
        "bucket": values.s3.bucket,
        "mlflow": values.mlflow.address,
        "mlflow_pages": values.pages.mlflow,
        "s3_pages": values.pages.s3,
        "kubeflow_pages": values.pages.kubeflow,
        "cache": "/cache",
    }
    (quota,) = of_kind(overlay, "ResourceQuota")
    assert quota["spec"]["hard"] == values.quota
    for queue in of_kind(overlay, "Queue"):
        assert queue["spec"]["capability"] == values.queue
    for device in values.accelerators.values():
        assert f"requests.{device.resource}" in values.quota
        assert device.resource in values.queue


def test_the_pipelines_use_the_names_that_the_manifests_give() -> None:
    platform = list(yaml.safe_load_all(GOLDEN.read_text(encoding="utf-8")))[1]["platforms"]["kubernetes"]
    executors = platform["deploymentSpec"]["executors"].values()
    settings, secrets = pairs(executors, "configMap"), pairs(executors, "secret")
    (config_map,) = of_kind("local", "ConfigMap")
    assert {name for name, _ in settings} == {config_map["metadata"]["name"]} == {cluster.SETTINGS}
    assert {key for _, key in settings} <= set(config_map["data"])
    known = {
        (reference["name"], reference["key"])
        for _, container in containers("local")
        for entry in container.get("env", [])
        if (reference := entry.get("valueFrom", {}).get("secretKeyRef"))
    }
    assert {(cluster.SECRET, "access_key"), (cluster.SECRET, "secret_key")} <= secrets <= known
    assert names("ascend", "PersistentVolumeClaim") == {site.CACHE}
    assert names("ascend", "Queue") == {site.QUEUE}
    assert {site.STAGE_ACCOUNT, site.TRAINING_ACCOUNT} <= names("ascend", "ServiceAccount")


def test_the_doctor_asks_for_the_rights_that_the_manifests_give() -> None:
    given = {
        (rule["apiGroups"][0], rule["resources"][0], rule.get("resourceNames", [""])[0], tuple(rule["verbs"]))
        for role in of_kind("ascend", "Role")
        for rule in role["rules"]
    }
    keys = ("", "secrets", site.load_site().kubeflow.artifact_secret, ("get",))
    assert {*doctor_cluster.RIGHTS, *doctor_cluster.JOBS, keys} == given


def pairs(executors: Iterable[Document], kind: str) -> set[tuple[str, str]]:
    """Return (name, key) of every setting or secret that a compiled pipeline's pods get as a variable."""
    return {
        (entry[f"{kind}Name"], pair[f"{kind}Key"])
        for executor in executors
        for entry in executor[f"{kind}AsEnv"]
        for pair in entry["keyToEnv"]
    }


@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_fits_into_queue_and_quota(name: str) -> None:
    values, profile = site.load_site(), PROFILES[name]
    size = sizes_of(values)[f"train {name}"]
    needs = {"cpu": amount(size.cpu_limit) * profile.nodes, "memory": amount(size.memory_limit) * profile.nodes}
    if profile.device != "cpu":
        needs[values.accelerators[profile.device].resource] = profile.devices
    for resource, need in needs.items():
        assert need <= amount(values.queue[resource])
        assert need <= amount(values.quota[f"requests.{resource}"])


def amount(quantity: str) -> int:
    """Return a whole quantity such as 32 or 2Ti as a number."""
    scale = {"": 1, "Gi": 2**30, "Ti": 2**40}
    digits = quantity.rstrip("GTi")
    return int(digits) * scale[quantity.removeprefix(digits)]
