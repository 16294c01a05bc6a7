"""What is generated for a training's job: the form that the kinds' schemas ask for, and none of the known traps."""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from kubernetes import client

from components.train.gang.manifests import UNMOVED, Document, ascend_job, batch_job, leader_pod, volcano_job
from components.train.gang.work import GangSpec, job_name
from pipelines.cluster.tasks import gang_job
from pipelines.profiles import PROFILES
from tests.golden import jobs as golden
from tests.golden.jobs import CPUS, GPUS, KEY, spec
from tests.manifests.test_schemas import check
from tests.pipelines.test_training import compile_recipe
from wordmill.recipe.parsing import from_json, struct_text

NPUS = PROFILES["ascend-4x8"]
JOBS = golden.jobs()
ON_NPUS = ("ascend-mindspore", "ascend-pytorch", "batch-npu-mindspore", "volcano-npu-mindspore")
ALONE = {name: job for name, job in JOBS.items() if name.startswith("batch-")}


def pods(job: Document) -> list[Document]:
    """Return a job's pod templates."""
    if job["kind"] == "AscendJob":
        return [kind["template"] for kind in job["spec"]["replicaSpecs"].values()]
    return [task["template"] for task in job["spec"].get("tasks", [job["spec"]])]


def container(template: Document) -> Document:
    (only,) = template["spec"]["containers"]
    assert isinstance(only, dict)
    return only


def variables(template: Document) -> dict[str, Any]:
    found = {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in container(template)["env"]}
    assert len(found) == len(container(template)["env"])
    return found


@pytest.mark.parametrize("name", JOBS)
def test_the_job_is_the_golden_one(name: str) -> None:
    file = Path(golden.__file__).with_name(f"{name}.yaml")
    assert golden.text(JOBS[name]) == file.read_text(encoding="utf-8"), "changed: python -m tests.golden.jobs"


@pytest.mark.parametrize("version", ["1.29", "1.37"])
@pytest.mark.parametrize("name", JOBS)
def test_the_job_has_its_schema(name: str, version: str) -> None:
    check(yaml.load(golden.text(JOBS[name]), yaml.CSafeLoader), version)


@pytest.mark.parametrize(("framework", "leader"), [("pytorch", "Master"), ("mindspore", "Scheduler")])
def test_an_ascend_job_has_one_leader_with_devices_and_three_workers_that_start_together(
    framework: str, leader: str
) -> None:
    job = ascend_job(spec(NPUS, framework), KEY, None)
    kinds = job["spec"]["replicaSpecs"]
    assert {name: kind["replicas"] for name, kind in kinds.items()} == {leader: 1, "Worker": 3}
    assert {kind["restartPolicy"] for kind in kinds.values()} == {"Never"}
    assert job["spec"]["runPolicy"]["schedulingPolicy"] == {"minAvailable": 4, "queue": "wordmill"}
    # By any other policy worker 0 ends the job, and the leader with it, before the leader has stored the result.
    assert job["spec"]["successPolicy"] == "AllWorkers"
    assert job["spec"]["runPolicy"]["cleanPodPolicy"] == "Running"
    told = {"framework": framework, "fault-scheduling": "grace", "fault-retry-times": "100"}
    assert told.items() <= job["metadata"]["labels"].items()
    assert job["spec"]["runPolicy"]["backoffLimit"] == 100
    for template in pods(job):
        assert container(template)["resources"]["limits"]["huawei.com/Ascend910"] == "8"
        # The operator tells places only to a container of this name, and makes its service for a port of that one.
        assert container(template)["name"] == "ascend"
        assert container(template)["ports"] == [{"name": "ascendjob-port", "containerPort": 2222}]
        assert "ASCEND_VISIBLE_DEVICES" not in variables(template)  # the operator adds it
    assert leader_pod(spec(NPUS, framework), KEY, True) == f"wordmill-train-0123456789abcdef-{leader.lower()}-0"


def test_a_volcano_job_starts_all_nodes_or_none_and_again_when_one_is_lost() -> None:
    job = volcano_job(spec(NPUS, "pytorch"), KEY, None)["spec"]
    assert (job["minAvailable"], job["queue"], job["schedulerName"]) == (4, "wordmill", "volcano")
    assert [(task["name"], task["replicas"]) for task in job["tasks"]] == [("node", 4)]
    # The first that fits decides: a pod that ends with code 1 has failed too.
    assert [(entry.get("exitCode", entry.get("event")), entry["action"]) for entry in job["policies"]] == [
        (75, "RestartJob"), (1, "AbortJob"), ("PodEvicted", "RestartJob"), ("PodFailed", "RestartJob"),
        ("TaskCompleted", "CompleteJob"),
    ]  # fmt: skip
    # Volcano refuses a policy of both, and one for code 0.
    assert not [entry for entry in job["policies"] if {"event", "exitCode"} <= set(entry) or entry.get("exitCode") == 0]
    assert job["maxRetry"] == 100
    assert set(job["plugins"]) == {"env", "svc"}
    assert job["ttlSecondsAfterFinished"] == 3600
    assert leader_pod(spec(NPUS, "pytorch"), KEY, False) == "wordmill-train-0123456789abcdef-node-0"


def test_volcano_tells_which_npus_a_pod_has_by_an_annotation_named_like_the_resource() -> None:
    (template,) = pods(volcano_job(spec(NPUS, "mindspore"), KEY, None))
    place = {"fieldRef": {"fieldPath": "metadata.annotations['huawei.com/Ascend910']"}}
    assert variables(template)["ASCEND_VISIBLE_DEVICES"] == place
    for profile in (GPUS, CPUS):
        (template,) = pods(volcano_job(spec(profile, "pytorch"), KEY, None))
        assert not {"ASCEND_VISIBLE_DEVICES", "HCCL_CONNECT_TIMEOUT"} & set(variables(template))


@pytest.mark.parametrize("name", JOBS)
def test_nothing_is_privileged_and_everything_has_an_end(name: str) -> None:
    for template in pods(JOBS[name]):
        inner, pod = container(template), template["spec"]
        assert inner["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        assert (pod["securityContext"]["runAsNonRoot"], pod["securityContext"]["runAsUser"]) == (True, 10001)
        # Driver and device files are of group 1000.
        assert ("supplementalGroups" in pod["securityContext"]) == (name in ON_NPUS)
        assert pod["securityContext"].get("supplementalGroups", [1000]) == [1000]
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
        assert not [volume for volume in pod["volumes"] if "hostPath" in volume]
        assert (pod["serviceAccountName"], pod["automountServiceAccountToken"]) == ("wordmill-training", False)
        assert pod["restartPolicy"] == "Never"
        assert pod["activeDeadlineSeconds"] == 72 * 3600
        assert inner["resources"]["limits"] == inner["resources"]["requests"]
        assert {"cpu", "memory"} <= set(inner["resources"]["limits"])


@pytest.mark.parametrize("name", JOBS)
def test_what_processes_write_has_a_place(name: str) -> None:
    for template in pods(JOBS[name]):
        inner, found = container(template), variables(template)
        assert inner["workingDir"] == found["HOME"] == found["TMPDIR"] == "/scratch"
        mounts = {mount["mountPath"]: mount["name"] for mount in inner["volumeMounts"]}
        volumes = {volume["name"]: volume for volume in template["spec"]["volumes"]}
        assert set(mounts) == {"/dev/shm", "/scratch", "/cache"}
        shm = volumes[mounts["/dev/shm"]]["emptyDir"]
        size = "16Gi" if name == "batch-cuda-pytorch" else "64Gi" if name in ON_NPUS else "8Gi"
        assert (shm["medium"], shm["sizeLimit"]) == ("Memory", size)
        assert volumes[mounts["/cache"]]["persistentVolumeClaim"] == {"claimName": "wordmill-cache"}


@pytest.mark.parametrize("name", JOBS)
def test_job_and_pods_carry_the_labels_by_which_others_know_them(name: str) -> None:
    job = JOBS[name]
    expected = {"app.kubernetes.io/name": "training", "app.kubernetes.io/instance": job_name(KEY),
                "sidecar.istio.io/inject": "false"}  # fmt: skip
    if name in ON_NPUS:
        expected["ring-controller.atlas"] = "ascend-910b"
    for template in pods(job):
        assert template["metadata"] == {"labels": expected, "annotations": UNMOVED}
    assert expected.items() <= job["metadata"]["labels"].items()


@pytest.mark.parametrize("name", JOBS)
def test_secrets_come_by_reference(name: str) -> None:
    for template in pods(JOBS[name]):
        found = variables(template)
        assert found["AWS_SECRET_ACCESS_KEY"] == {"secretKeyRef": {"name": "wordmill-s3", "key": "secret_key"}}
        assert found["AWS_ENDPOINT_URL"] == {"configMapKeyRef": {"name": "wordmill-settings", "key": "s3_endpoint"}}
        assert found["POD_IP"] == {"fieldRef": {"fieldPath": "status.podIP"}}


def test_a_job_ends_with_the_run_that_made_it() -> None:
    assert JOBS["ascend-pytorch"]["metadata"]["ownerReferences"] == [golden.OWNER]
    assert "ownerReferences" not in JOBS["volcano-cpu-mindspore"]["metadata"]


@pytest.mark.parametrize("job", ALONE.values(), ids=ALONE)
def test_the_job_of_one_node_is_kubernetes_own_and_says_what_is_repeated(job: Document) -> None:
    rules = job["spec"]["podFailurePolicy"]["rules"]
    # The first that fits decides: what disrupts a pod stands before the code that its program ends with.
    assert [(rule["action"], rule.get("onPodConditions", rule.get("onExitCodes"))) for rule in rules] == [
        ("Ignore", [{"type": "DisruptionTarget", "status": "True"}]),
        ("Ignore", {"operator": "In", "values": [75]}),
        ("FailJob", {"operator": "In", "values": [1]}),
    ]
    assert job["spec"]["podReplacementPolicy"] == "Failed"  # nothing else is taken beside a policy, nor wanted
    (template,) = pods(job)
    assert template["spec"]["restartPolicy"] == "Never"  # nor this
    assert (job["spec"]["backoffLimit"], job["spec"]["ttlSecondsAfterFinished"]) == (10, 3600)
    assert job["spec"]["activeDeadlineSeconds"] == 72 * 3600
    assert "schedulerName" not in template["spec"]


@pytest.mark.parametrize("job", ALONE.values(), ids=ALONE)
def test_kubernetes_client_knows_every_field_of_it(job: Document) -> None:
    client_side = client.ApiClient()
    reply = SimpleNamespace(data=json.dumps(job))
    assert client_side.sanitize_for_serialization(client_side.deserialize(reply, "V1Job")) == job


def test_what_a_site_asks_for_and_gives_most_is_the_pods() -> None:
    changed = dataclasses.replace(spec(PROFILES["gpu-1"], "pytorch"), cpu="4", memory="32Gi")
    (template,) = pods(batch_job(changed, KEY, None))
    assert container(template)["resources"] == {
        "requests": {"cpu": "4", "memory": "32Gi", "nvidia.com/gpu": "1"},
        "limits": {"cpu": "16", "memory": "64Gi", "nvidia.com/gpu": "1"},
    }


def test_a_profile_of_processors_has_no_job_and_others_name_it_whole() -> None:
    assert gang_job(PROFILES["cpu"], "pytorch") == {}
    alone = from_json(GangSpec, struct_text(gang_job(PROFILES["ascend-8p"], "mindspore")))
    assert (alone.nodes, alone.processes, alone.image) == (1, 8, "wordmill/train-cann:dev")
    text = struct_text(gang_job(NPUS, "mindspore"))
    found = from_json(GangSpec, text)
    assert (found.nodes, found.processes, found.resource) == (4, 8, "huawei.com/Ascend910")
    with pytest.raises(ValueError, match="unknown key 'node': did you mean 'nodes'"):
        from_json(GangSpec, json.dumps({**json.loads(text), "node": 4}))


@pytest.mark.parametrize("name", ["gpu-1", "ascend-1p", "ascend-8p", "ascend-4x8"])
def test_the_stage_of_such_a_profile_is_small_and_outlives_the_job(name: str) -> None:
    profile = PROFILES[name]
    compiled = compile_recipe("crnn_r34", "--hardware", name)
    pipeline, platform = yaml.load_all(compiled, yaml.CSafeLoader)
    told = pipeline["root"]["inputDefinitions"]["parameters"]["gang"]["defaultValue"]
    assert from_json(GangSpec, struct_text(told)) == spec(profile, "mindspore")
    resources = pipeline["deploymentSpec"]["executors"]["exec-train"]["container"]["resources"]
    assert "accelerator" not in resources
    stage = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]["exec-train"]
    assert int(stage["activeDeadlineSeconds"]) > spec(profile, "mindspore").deadline_s
