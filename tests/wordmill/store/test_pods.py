from datetime import UTC, datetime
from typing import Any

import pytest
from kubernetes import client

from wordmill.store.pods import pod_text


def pod(state: dict[str, Any], memory: str = "", **status: Any) -> Any:
    """Return a pod of Argo's, whose container `wait` lives on, as the client gives it."""
    limits = {"memory": memory} if memory else None
    main = client.V1ContainerStatus(name="main", image="i", image_id="", ready=False, restart_count=0,
                                    state=client.V1ContainerState(**state))  # fmt: skip
    lives = client.V1ContainerState(running=client.V1ContainerStateRunning())
    wait = client.V1ContainerStatus(name="wait", image="i", image_id="", ready=True, restart_count=0, state=lives)
    containers = [client.V1Container(name="main", resources=client.V1ResourceRequirements(limits=limits))]
    return client.V1Pod(spec=client.V1PodSpec(containers=containers),
                        status=client.V1PodStatus(container_statuses=[wait, main], **status))  # fmt: skip


def ended(code: int, reason: str, message: str = "", lived_s: int = 31) -> dict[str, Any]:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    return {"terminated": client.V1ContainerStateTerminated(
        exit_code=code, reason=reason, message=message, started_at=start,
        finished_at=datetime(2026, 1, 1, 0, 0, lived_s, tzinfo=UTC))}  # fmt: skip


def launcher(**state: Any) -> dict[str, Any]:
    """Return the status of Kubeflow's launcher, which a pod's first container brings, while the others wait for it."""
    first = client.V1ContainerStatus(name="kfp-launcher", image="i", image_id="", ready=False, restart_count=0,
                                     state=client.V1ContainerState(**state))  # fmt: skip
    return {"init_container_statuses": [first], "phase": "Pending"}


INITIALIZING = {"waiting": client.V1ContainerStateWaiting(reason="PodInitializing")}
ABSENT = client.V1ContainerStateWaiting(reason="ImagePullBackOff", message="Back-off pulling kfp-launcher")


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (pod(ended(137, "OOMKilled"), "1100Mi", phase="Failed"),
         "OOMKilled: it needs more memory than its limit of 1100Mi, which it reached after 31 s"),
        (pod(ended(1, "Error", "train crnn: training diverged\nat step 3"), phase="Failed"),
         "ended with code 1: train crnn: training diverged at step 3"),
        (pod(ended(137, "Error"), phase="Failed", reason="Evicted", message="The node was low on memory."),
         "Evicted: The node was low on memory."),
        (pod({"waiting": client.V1ContainerStateWaiting(reason="ErrImagePull", message="not found")}, phase="Pending"),
         "ErrImagePull: not found"),
        (pod(INITIALIZING, **launcher(waiting=ABSENT)), "ImagePullBackOff: Back-off pulling kfp-launcher"),
        (pod(INITIALIZING, **launcher(**ended(1, "Error", "no room"))), "kfp-launcher: ended with code 1: no room"),
        (pod(ended(1, "Error"), **launcher(**ended(0, "Completed"))), "ended with code 1"),
        (pod(INITIALIZING, phase="Pending", conditions=[
            client.V1PodCondition(type="PodScheduled", status="False", reason="Unschedulable",
                                  message="0/1 nodes are available: 1 Insufficient cpu.")]),
         "Pending: Unschedulable: 0/1 nodes are available: 1 Insufficient cpu."),
    ],
)  # fmt: skip
def test_a_pod_says_in_one_line_why_it_waits_or_has_ended(found: Any, text: str) -> None:
    assert pod_text(found) == text
