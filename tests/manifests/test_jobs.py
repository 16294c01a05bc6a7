"""The schemas of the jobs that a launcher makes take the published examples' form and refuse what controllers do."""

import copy
from typing import Any

import jsonschema
import pytest

from pipelines.cluster.site import QUEUE, TRAINING_ACCOUNT, TRAINING_LABELS
from tests.manifests.rendered import Document
from tests.manifests.test_schemas import check

POD = {
    "metadata": {"labels": TRAINING_LABELS | {"ring-controller.atlas": "ascend-910b"}},
    "spec": {
        "restartPolicy": "Never",
        "serviceAccountName": TRAINING_ACCOUNT,
        "containers": [
            {
                "name": "ascend",
                "image": "wordmill/train-mindspore:0.1.0",
                "resources": {"limits": {"huawei.com/Ascend910": "8"}, "requests": {"huawei.com/Ascend910": "8"}},
                "ports": [{"name": "ascendjob-port", "containerPort": 2222}],
            }
        ],
    },
}
VOLCANO = {
    "apiVersion": "batch.volcano.sh/v1alpha1",
    "kind": "Job",
    "metadata": {"name": "train", "namespace": "wordmill"},
    "spec": {
        "minAvailable": 4,
        "queue": QUEUE,
        "schedulerName": "volcano",
        "maxRetry": 3,
        "ttlSecondsAfterFinished": 86400,
        "plugins": {"svc": [], "env": []},
        "policies": [{"event": "PodEvicted", "action": "RestartJob"}],
        "tasks": [{"name": "worker", "replicas": 4, "template": POD}],
    },
}
ASCEND = {
    "apiVersion": "mindxdl.gitee.com/v1",
    "kind": "AscendJob",
    "metadata": {
        "name": "train",
        "namespace": "wordmill",
        "labels": {"framework": "mindspore", "ring-controller.atlas": "ascend-910b", "fault-scheduling": "grace"},
    },
    "spec": {
        "schedulerName": "volcano",
        "runPolicy": {"backoffLimit": 3, "schedulingPolicy": {"minAvailable": 4, "queue": QUEUE}},
        "successPolicy": "AllWorkers",
        "replicaSpecs": {
            "Scheduler": {"replicas": 1, "restartPolicy": "Never", "template": POD},
            "Worker": {"replicas": 3, "restartPolicy": "Never", "template": POD},
        },
    },
}


@pytest.mark.parametrize("job", [VOLCANO, ASCEND], ids=["volcano", "ascend"])
def test_a_job_of_four_nodes_has_its_schema(job: Document) -> None:
    check(job, "1.37")


@pytest.mark.parametrize(
    ("job", "path", "value"),
    [
        (VOLCANO, "spec.policies.0.event", "PodEvict"),
        (VOLCANO, "spec.tasks.0.name", "Worker"),
        (VOLCANO, "spec.minavailable", 4),
        (VOLCANO, "spec.tasks.0.template.spec.containers.0.resources.limit", {}),
        (ASCEND, "metadata.labels", {"ring-controller.atlas": "ascend-910b"}),
        (ASCEND, "spec.replicaSpecs.Scheduler.replicas", 2),
        (ASCEND, "spec.replicaSpecs.Launcher", ASCEND["spec"]["replicaSpecs"]["Worker"]),  # type: ignore[index]
        (ASCEND, "spec.replicaSpecs.Worker.template.spec.containers.0.name", "main"),
        (ASCEND, "spec.replicaSpecs.Worker.template.spec.nodeselector", {}),
        (ASCEND, "spec.runPolicy.schedulingPolicy.minAvailable", "4"),
    ],
)
def test_a_wrong_job_is_refused(job: Document, path: str, value: Any) -> None:
    wrong = copy.deepcopy(job)
    *steps, last = path.split(".")
    target: Any = wrong
    for step in steps:
        target = target[int(step) if step.isdigit() else step]
    target[last] = value
    with pytest.raises(jsonschema.ValidationError):
        check(wrong, "1.37")
