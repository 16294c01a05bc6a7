"""A training's job for Kubernetes: its own Job for one node, for several MindCluster's AscendJob or Volcano's Job.

All run the same pod once per node. No rank table and no host network: msrun and torchrun find each other by the first
node's address, and NPUs reach each other through their own network cards. The driver's files come from Ascend Docker
Runtime, which MindCluster makes the nodes' default, because a restricted namespace mounts none of the host's folders.
"""

from typing import Any

from components.train.gang.work import PORT, TASK, GangSpec, job_name
from wordmill.store.pods import ASCEND, BATCH, VOLCANO
from wordmill.store.stages import RESUME

Document = dict[str, Any]

INSTANCE = "app.kubernetes.io/instance"  # the label by which a job's pods are found, the job's name
CONTAINER = "ascend"  # MindCluster's operator tells only a container of this name its place
DEVICE_GROUP = 1000  # of the driver's files and devices on nodes with NPUs (HwHiAiUser)
GRACE_S = 300  # between SIGTERM and SIGKILL
FAILURES = 10  # of pods that are killed or cannot begin, which takes an hour: Kubernetes waits longer behind each
RESTARTS = 100  # of nodes that were stopped or lost; node.py ends what no longer reaches another checkpoint
# MindCluster starts all pods again where a device or a node fails, and with retry times also where a pod ends badly.
AGAIN = {"fault-scheduling": "grace", "fault-retry-times": str(RESTARTS)}
KEPT_S = 3600  # a finished job, if the stage that should delete it is gone
LEADERS = {"pytorch": "Master", "mindspore": "Scheduler"}
# By these Cluster Autoscaler and Karpenter leave the node of a pod alone, however little it has to do.
UNMOVED = {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false", "karpenter.sh/do-not-disrupt": "true"}


def batch_job(spec: GangSpec, key: str, owner: Document | None) -> Document:
    """Return Kubernetes's own Job: one pod, and another where it was stopped or lost, never two at once."""
    return {
        "apiVersion": "/".join(BATCH[:2]), "kind": "Job",
        "metadata": _metadata(spec, key, owner, {}),
        "spec": {
            "backoffLimit": FAILURES, "activeDeadlineSeconds": spec.deadline_s, "ttlSecondsAfterFinished": KEPT_S,
            "podReplacementPolicy": "Failed",  # not before the other has ended
            "podFailurePolicy": {"rules": [
                # The first one that fits decides. Of a pod that its node evicts or shuts down, that is preempted or
                # drained, whatever its program ends with; other codes count, such as 137: a pod that was killed for
                # want of memory ends with it, which job.py sees, and one that was deleted by force.
                {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                {"action": "Ignore", "onExitCodes": {"operator": "In", "values": [RESUME]}},
                {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [1]}},
            ]},
            "template": _pod(spec, key, {}),
        },
    }  # fmt: skip


def volcano_job(spec: GangSpec, key: str, owner: Document | None) -> Document:
    """Return Volcano's Job: `nodes` pods of one task, started together, started again together when one is lost."""
    # Volcano's plugin for NPUs writes the devices of a pod into an annotation named like the resource.
    devices = {"ASCEND_VISIBLE_DEVICES": _field(f"metadata.annotations['{spec.resource}']")}
    template = _pod(spec, key, devices if spec.device == "npu" else {})
    return {
        "apiVersion": "/".join(VOLCANO[:2]), "kind": "Job",
        "metadata": _metadata(spec, key, owner, {}),
        "spec": {
            "minAvailable": spec.nodes, "queue": spec.queue, "schedulerName": "volcano",
            "maxRetry": RESTARTS, "ttlSecondsAfterFinished": KEPT_S,
            "plugins": {"env": [], "svc": []},  # a pod's number; a name for each pod
            "policies": [
                # The first one that fits decides. What training itself ends with would only come again; other codes
                # are those of pods that were killed.
                {"exitCode": RESUME, "action": "RestartJob"},
                {"exitCode": 1, "action": "AbortJob"},
                {"event": "PodEvicted", "action": "RestartJob"},
                {"event": "PodFailed", "action": "RestartJob"},
                {"event": "TaskCompleted", "action": "CompleteJob"},
            ],
            "tasks": [{"name": TASK, "replicas": spec.nodes, "template": template}],
        },
    }  # fmt: skip


def ascend_job(spec: GangSpec, key: str, owner: Document | None) -> Document:
    """Return MindCluster's AscendJob: a leader, exactly one, and workers, all with the same devices.

    With devices of its own the leader, which MindSpore calls Scheduler, is node 0, and worker i is node i + 1. The
    operator sets ASCEND_VISIBLE_DEVICES itself.
    """

    def pods(replicas: int) -> Document:
        return {"replicas": replicas, "restartPolicy": "Never", "template": _pod(spec, key, {})}

    return {
        "apiVersion": "/".join(ASCEND[:2]), "kind": "AscendJob",
        "metadata": _metadata(spec, key, owner, {"framework": spec.framework, **AGAIN}),
        "spec": {
            "schedulerName": "volcano",
            "runPolicy": {
                "backoffLimit": RESTARTS,
                "cleanPodPolicy": "Running",  # where one pod has failed, the others must not go on holding devices
                "schedulingPolicy": {"minAvailable": spec.nodes, "queue": spec.queue},
            },
            "successPolicy": "AllWorkers",
            "replicaSpecs": {LEADERS[spec.framework]: pods(1), "Worker": pods(spec.nodes - 1)},
        },
    }  # fmt: skip


MAKERS = {BATCH: batch_job, ASCEND: ascend_job, VOLCANO: volcano_job}


def leader_pod(spec: GangSpec, key: str, ascend: bool) -> str:
    """Return the name of the first node's pod in a job of several."""
    return f"{job_name(key)}-{LEADERS[spec.framework].lower() if ascend else TASK}-0"


def _metadata(spec: GangSpec, key: str, owner: Document | None, labels: dict[str, str]) -> Document:
    named = {"name": job_name(key), "namespace": spec.namespace, "labels": {**_labels(spec, key), **labels}}
    return named | ({"ownerReferences": [owner]} if owner else {})


def _labels(spec: GangSpec, key: str) -> dict[str, str]:
    return {**spec.labels, INSTANCE: job_name(key)}


def _pod(spec: GangSpec, key: str, variables: dict[str, Document]) -> Document:
    """Return a node's pod: nothing of it is privileged, it has no rights in Kubernetes and an end of its own."""
    return {
        "metadata": {"labels": _labels(spec, key), "annotations": dict(UNMOVED)},
        "spec": {
            "restartPolicy": "Never", "activeDeadlineSeconds": spec.deadline_s,
            "terminationGracePeriodSeconds": GRACE_S, "serviceAccountName": spec.account,
            "automountServiceAccountToken": False, "enableServiceLinks": False, "nodeSelector": spec.node_labels,
            "securityContext": _security(spec),
            "containers": [_container(spec, key, variables)],
            "volumes": [
                {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": spec.shm}},
                {"name": "scratch", "emptyDir": {"sizeLimit": "20Gi"}},
                {"name": "cache", "persistentVolumeClaim": {"claimName": spec.claim}},
            ],
        },
    }  # fmt: skip


def _security(spec: GangSpec) -> Document:
    """Return what a restricted namespace asks for, and who may open the devices."""
    user = {"runAsNonRoot": True, "runAsUser": spec.user, "runAsGroup": spec.user, "fsGroup": spec.user}
    devices = {"supplementalGroups": [DEVICE_GROUP]} if spec.device == "npu" else {}
    return {**user, **devices, "fsGroupChangePolicy": "OnRootMismatch", "seccompProfile": {"type": "RuntimeDefault"}}


def _container(spec: GangSpec, key: str, variables: dict[str, Document]) -> Document:
    devices = {spec.resource: str(spec.processes)} if spec.resource else {}
    requests = {"cpu": spec.cpu, "memory": spec.memory, **devices}
    limits = {"cpu": spec.cpu_limit, "memory": spec.memory_limit, **devices}
    return {
        "name": CONTAINER, "image": spec.image, "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-m", "components.train.gang.node", "--job", key],
        "workingDir": "/scratch",  # CANN and MindSpore write into the working directory, and into HOME
        "env": [{"name": name, **value} for name, value in (_variables(spec) | variables).items()],
        "ports": [{"name": "ascendjob-port", "containerPort": PORT}],
        "resources": {"requests": requests, "limits": limits},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [
            {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108 (64 MiB by default, which breaks collectives)
            {"name": "scratch", "mountPath": "/scratch"},
            {"name": "cache", "mountPath": "/cache"},
        ],
    }  # fmt: skip


def _variables(spec: GangSpec) -> dict[str, Document]:
    """Return the environment by name: where to write, this pod's address, and the way to S3 and MLflow."""
    plain = {"HOME": "/scratch", "TMPDIR": "/scratch", "PYTHONUNBUFFERED": "1"}
    if spec.device == "npu":
        plain["HCCL_CONNECT_TIMEOUT"] = "1200"  # the default of 120 s is less than images take to pull
    found: dict[str, Document] = {name: {"value": value} for name, value in plain.items()}
    found["POD_IP"] = _field("status.podIP")
    for kind, name, variables in (("secretKeyRef", spec.secret, spec.secret_variables),
                                  ("configMapKeyRef", spec.settings, spec.settings_variables)):  # fmt: skip
        found |= {variable: {"valueFrom": {kind: {"name": name, "key": key}}} for key, variable in variables.items()}
    return found


def _field(path: str) -> Document:
    return {"valueFrom": {"fieldRef": {"fieldPath": path}}}
