"""What Kubernetes knows of a run that its stages could not record: that somebody stopped it, how its pods ended."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import urllib3

from wordmill.store.pods import (
    JOB_KINDS,
    MORE,
    RUN,
    SHORT,
    TIMEOUT_S,
    cluster_settings,
    own_namespace,
    own_pod,
    pod_text,
)

if TYPE_CHECKING:
    from kubernetes import client

WORKFLOWS = ("argoproj.io", "v1alpha1")
LABEL = "workflows.argoproj.io/workflow"  # of a pod, the name of its workflow
NODE = "workflows.argoproj.io/node-name"  # of a pod, its task's place: <workflow>.root.<task>.<task>.executor(0)
BAD = ("Failed", "Pending")  # phases of a pod whose task has not been done
TRAIN = "train"  # the task that can do with less memory


@dataclass(frozen=True, kw_only=True)
class Fate:
    """How a run went by what Kubernetes knows: whether somebody stopped it, why tasks' pods failed, by task, its id."""

    stopped: bool = False
    run: str = ""
    pods: dict[str, str] = field(default_factory=dict)


def fate_of_run() -> Fate:
    """Ask Kubernetes about the workflow of this pod; outside of a cluster, and where it does not say, nothing."""
    if not (pod := own_pod()):
        return Fate()
    from kubernetes import client, config  # it takes a second to import, and only pods need it

    try:
        return _asked(pod)
    except (client.ApiException, config.ConfigException, urllib3.exceptions.HTTPError, OSError) as error:
        print(f"warning: Kubernetes does not say how the run's pods ended: {' '.join(str(error).split())}", flush=True)
        return Fate()


def _asked(pod: str) -> Fate:
    from kubernetes import client

    api, namespace = client.ApiClient(cluster_settings()), own_namespace()
    core = client.CoreV1Api(api)
    labels = core.read_namespaced_pod(pod, namespace, _request_timeout=TIMEOUT_S).metadata.labels or {}
    if not (name := labels.get(LABEL)):
        return Fate()  # a pod of somebody who works in the cluster
    found = core.list_namespaced_pod(namespace, label_selector=f"{LABEL}={name}", _request_timeout=TIMEOUT_S)
    read = client.CustomObjectsApi(api).get_namespaced_custom_object
    workflow = read(*WORKFLOWS, namespace, "workflows", name, _request_timeout=TIMEOUT_S)
    if stopped := is_stopped(workflow):
        _end_jobs(api, namespace, workflow["metadata"]["uid"])
    return Fate(stopped=stopped, pods=failed_pods(found.items), run=labels.get(RUN, ""))


def _end_jobs(api: "client.ApiClient", namespace: str, owner: str) -> None:
    """Delete the training's job of a workflow that was stopped: its training stage, killed, cannot do it."""
    from kubernetes import client

    objects = client.CustomObjectsApi(api)
    for group, version, plural in JOB_KINDS:
        try:
            listed = objects.list_namespaced_custom_object(group, version, namespace, plural,
                                                           _request_timeout=TIMEOUT_S)  # fmt: skip
        except client.ApiException:
            continue  # no such jobs here, or no right to any
        for job in listed["items"]:
            if owner in [found["uid"] for found in job["metadata"].get("ownerReferences", [])]:
                name = job["metadata"]["name"]
                objects.delete_namespaced_custom_object(group, version, namespace, plural, name,
                                                        propagation_policy="Background")  # fmt: skip
                print(f"report: the run was stopped, and job {name} with it", flush=True)


def is_stopped(workflow: dict[str, Any]) -> bool:
    """Tell whether somebody has stopped a workflow: Kubeflow's Terminate sets a deadline of 0, Argo's a shutdown."""
    spec = workflow["spec"]
    return spec.get("activeDeadlineSeconds") == 0 or bool(spec.get("shutdown"))


def failed_pods(pods: list[Any]) -> dict[str, str]:
    """Return why the last pod of each task failed or has not begun, by the task's name in the graph."""
    found: dict[str, str] = {}
    for pod in sorted(pods, key=lambda pod: str(pod.metadata.creation_timestamp)):
        place = str((pod.metadata.annotations or {}).get(NODE, ""))
        for part in [part.split("(")[0].removesuffix("-driver") for part in place.split(".")[1:]]:
            found.pop(part, None)
            if pod.status.phase in BAD:
                found[part] = advised(part, pod_text(pod))
    return found


def advised(task: str, text: str) -> str:
    """Return why a task's pod failed, where training was killed for want of memory with what to change."""
    return f"{text}: {MORE}" if task == TRAIN and text.startswith(SHORT) else text
