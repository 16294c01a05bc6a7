from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes.utils.quantity import parse_quantity

from components.report.gather import task_names
from pipelines.cluster.tasks import HOURS
from pipelines.profiles import PROFILES
from tests.golden import COMPILED

GOLDEN = Path(__file__).resolve().parents[2] / "golden"
Executors = dict[str, dict[str, Any]]


def read(name: str) -> tuple[dict[str, Any], Executors, Executors]:
    """Return a golden pipeline's spec, its containers and their settings on Kubernetes, both by executor."""
    spec, platform = yaml.load_all((GOLDEN / f"{name}.yaml").read_text(encoding="utf-8"), yaml.CSafeLoader)
    containers = {key: value["container"] for key, value in spec["deploymentSpec"]["executors"].items()}
    return spec, containers, platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]


def stage_of(executor: str) -> str:
    return executor.split("-")[1]


@pytest.mark.parametrize("name", COMPILED)
def test_every_task_has_limits_a_deadline_and_a_user(name: str) -> None:
    _, containers, settings = read(name)
    assert {stage_of(key) for key in containers} >= set(HOURS) - {"fresh"}
    for key, container in containers.items():
        resources, mine = container["resources"], settings[key]
        for resource in ("Cpu", "Memory"):
            asked, most = (resources[f"resource{resource}{bound}"] for bound in ("Request", "Limit"))
            assert 0 < parse_quantity(asked) <= parse_quantity(most), key
        assert int(mine["activeDeadlineSeconds"]) >= 3600, key
        assert mine["securityContext"] == {"runAsUser": "10001", "runAsGroup": "10001", "runAsNonRoot": True}
        assert mine["pvcMount"][0]["mountPath"] == "/cache"


@pytest.mark.parametrize("name", COMPILED)
def test_secrets_are_named_and_never_written(name: str) -> None:
    spec, containers, settings = read(name)
    assert not [key for key, container in containers.items() if container.get("env")]
    named = {(key, entry["secretName"]) for key in settings for entry in settings[key]["secretAsEnv"]}
    assert {secret for _, secret in named} == {"wordmill-s3", "wordmill-webhook"}
    assert [key for key, secret in named if secret == "wordmill-webhook"] == ["exec-report"]
    assert not [key for key in spec["root"]["inputDefinitions"]["parameters"] if "secret" in key or "token" in key]


@pytest.mark.parametrize(
    ("name", "resource", "nodes", "labels"),
    [
        ("crnn_r34.gpu-1", "nvidia.com/gpu", {}, {}),
        ("crnn_r34.ascend-1p", "huawei.com/Ascend910", {"accelerator-type": "module-910b-8"},
         {"ring-controller.atlas": "ascend-910b"}),
    ],
)  # fmt: skip
def test_measuring_gets_a_device(name: str, resource: str, nodes: dict[str, str], labels: dict[str, str]) -> None:
    _, containers, settings = read(name)
    (key,) = [key for key in containers if stage_of(key) == "evaluate" and "rivals" in key]
    asked, mine = containers[key]["resources"]["accelerator"], settings[key]
    assert (asked["resourceType"], asked["resourceCount"]) == (resource, "1")
    assert mine.get("nodeSelector", {}).get("labels", {}) == nodes
    assert mine.get("podMetadata", {}).get("labels", {}) == labels
    assert mine["emptyDirMounts"][0]["mountPath"] == "/dev/shm"
    assert "accelerator" not in containers["exec-fetch"]["resources"]


def test_npus_are_used_from_an_image_with_cann() -> None:
    for name, environment in (("crnn_r34.ascend-8p", "cann"), ("crnn_r34.gpu-1", "mindspore")):
        _, containers, _ = read(name)
        images = {stage_of(key): container["image"] for key, container in containers.items()}
        assert f"/train-{environment}:" in images["train"]
        assert f"/evaluate-{environment}:" in images["evaluate"]
    gang = read("crnn_r34.ascend-4x8")[0]["root"]["inputDefinitions"]["parameters"]["gang"]["defaultValue"]
    assert "/train-cann:" in gang["image"]


def test_measuring_and_trying_an_om_file_take_one_device_each() -> None:
    _, containers, _ = read("crnn_r34.ascend-8p")
    counts = {key: value["resources"].get("accelerator", {}).get("resourceCount") for key, value in containers.items()}
    assert {count for key, count in counts.items() if stage_of(key) == "evaluate"} == {"1"}
    assert sorted(str(count) for key, count in counts.items() if stage_of(key) == "smoke") == ["1"] + ["None"] * 4


def test_on_processors_training_is_the_stages_own() -> None:
    spec, containers, settings = read("crnn_r34")
    assert spec["root"]["inputDefinitions"]["parameters"]["gang"]["defaultValue"] == {}
    assert containers["exec-train"]["resources"]["resourceMemoryLimit"] == "32Gi"
    assert settings["exec-train"]["emptyDirMounts"][0]["mountPath"] == "/dev/shm"


@pytest.mark.parametrize(
    ("name", "nodes", "processes", "resource"),
    [("gpu-1", 1, 1, "nvidia.com/gpu"), ("ascend-1p", 1, 1, "huawei.com/Ascend910"),
     ("ascend-8p", 1, 8, "huawei.com/Ascend910"), ("ascend-4x8", 4, 8, "huawei.com/Ascend910")],
)  # fmt: skip
def test_on_accelerators_training_is_a_jobs_and_not_the_stages_own(
    name: str, nodes: int, processes: int, resource: str
) -> None:
    spec, containers, settings = read(f"crnn_r34.{name}")
    resources = containers["exec-train"]["resources"]
    assert ("accelerator" in resources, resources["resourceMemoryLimit"]) == (False, "2Gi")
    assert not {"emptyDirMounts", "nodeSelector"} & set(settings["exec-train"])
    gang = spec["root"]["inputDefinitions"]["parameters"]["gang"]["defaultValue"]
    assert (gang["nodes"], gang["processes"], gang["resource"]) == (nodes, processes, resource)
    if "ascend" in name:
        assert gang["node_labels"] == {"accelerator-type": "module-910b-8"}
        assert gang["labels"]["ring-controller.atlas"] == "ascend-910b"
    own = int(settings["exec-train"]["activeDeadlineSeconds"])
    assert own > gang["deadline_s"], "the stage must outlive its job, to take or remove it"


def test_training_alone_is_run_again_and_for_longer_than_any_training_takes() -> None:
    spec, _, settings = read("crnn_r34")
    tasks = spec["components"]["comp-exit-handler-1"]["dag"]["tasks"]
    assert [key for key, task in tasks.items() if task["retryPolicy"].get("maxRetryCount")] == ["train"]
    retry = tasks["train"]["retryPolicy"]
    # Argo counts the longest duration from the first attempt on.
    assert int(retry["backoffMaxDuration"].removesuffix("s")) >= 100 * max(p.hours for p in PROFILES.values()) * 3600
    assert (retry["maxRetryCount"], retry["backoffDuration"], retry["backoffFactor"]) == (100, "60s", 1.0)
    kept = [key for key, told in settings.items() if "annotations" in told.get("podMetadata", {})]
    assert kept == ["exec-train"]


@pytest.mark.parametrize("name", ["crnn_r34", "crnn_r34.nightly", "crnn_npu"])
def test_the_report_knows_which_tasks_record_themselves_and_what_kubeflow_calls_them(name: str) -> None:
    spec = read(name)[0]
    told = spec["root"]["dag"]["tasks"]["report"]["inputs"]["parameters"]["expected"]["runtimeValue"]["constant"]
    inner = [component["dag"]["tasks"] for component in spec["components"].values() if "dag" in component]
    tasks = {key: task for found in inner for key, task in found.items() if "condition" not in key}
    names = task_names(told)
    assert sorted(names.values()) == sorted(tasks)
    for task, key in names.items():
        stage, _, what = task.partition(".")
        shown = tasks[key]["taskInfo"]["name"]
        if stage in ("evaluate", "export", "smoke"):
            assert shown == (f"{what} smoke test" if stage == "smoke" else what), task


def test_a_night_begins_with_a_look_and_does_the_rest_only_if_something_is_new() -> None:
    spec, containers, _ = read("crnn_r34.nightly")
    night = spec["components"]["comp-exit-handler-1"]["dag"]["tasks"]
    assert sorted(night) == ["condition-2", "fresh"]
    assert night["fresh"]["cachingOptions"] == {}
    condition = night["condition-2"]["triggerPolicy"]["condition"]
    assert condition == "inputs.parameter_values['pipelinechannel--fresh-Output'] == 'changed'"
    inside = spec["components"]["comp-condition-2"]["dag"]["tasks"]
    assert {"fetch", "shard", "train", "gate"} <= set(inside)
    report = spec["root"]["dag"]["tasks"]["report"]["inputs"]["parameters"]
    assert report["nightly"]["runtimeValue"]["constant"] is True
    assert len(containers) == len(read("crnn_r34")[1]) + 1
