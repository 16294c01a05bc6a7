"""The way to Kubernetes, and what it says of a pod, in words: what it waits for, and why it ended."""

import os
import socket
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kubernetes import client

QUIET = ("ContainerCreating", "PodInitializing")  # what every pod waits for at first
RUN = "pipeline/runid"  # the label of a run's workflow and pods, its id in Kubeflow
# Kinds of jobs that train: API group, version and plural of Kubernetes's own, Volcano's and MindCluster's.
BATCH = ("batch", "v1", "jobs")
VOLCANO = ("batch.volcano.sh", "v1alpha1", "jobs")
ASCEND = ("mindxdl.gitee.com", "v1", "ascendjobs")
JOB_KINDS = (BATCH, VOLCANO, ASCEND)
MAIN = "main"  # the container of a pod of Argo's that does the task's work
NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")  # of a pod, among its own files
SHORT = "OOMKilled"  # how the text of a pod begins that was killed for want of memory
MORE = "give the profile more, spec.sizes of values.yaml, set train.accumulation higher, or lower train.global_batch"
TIMEOUT_S = 20


def cluster_settings(context: str | None = None) -> "client.Configuration":
    """Return where Kubernetes is and who asks: this pod's cluster, else that of kubectl (KUBECONFIG) by a context.

    kubernetes.config.ConfigException where there is neither.
    """
    from kubernetes import client, config  # it takes a second to import, and few stages need it

    settings = client.Configuration()
    try:
        config.load_incluster_config(client_configuration=settings)
    except config.ConfigException:
        config.load_kube_config(os.environ.get("KUBECONFIG"), context, client_configuration=settings)
    return settings


def own_pod() -> str:
    """Return the name of this pod, "" outside of a cluster."""
    return os.environ.get("KFP_POD_NAME") or (socket.gethostname() if "KUBERNETES_SERVICE_HOST" in os.environ else "")


def own_namespace() -> str:
    """Return the namespace of this pod."""
    return NAMESPACE.read_text(encoding="utf-8").strip()


def killed_for_memory(name: str) -> str:
    """Return that a pod of this namespace, one of training, lacked memory, and what to change; "" if not known."""
    import urllib3
    from kubernetes import client, config

    try:
        core = client.CoreV1Api(client.ApiClient(cluster_settings()))
        text = pod_text(core.read_namespaced_pod(name, own_namespace(), _request_timeout=TIMEOUT_S))
    except (client.ApiException, config.ConfigException, urllib3.exceptions.HTTPError, OSError):
        return ""  # it is gone, or Kubernetes is away
    return f"{text}: {MORE}" if text.startswith(SHORT) else ""


def pod_text(pod: Any) -> str:
    """Return in one line what a pod (V1Pod) does or waits for, or why it ended."""
    status = pod.status
    for container in status.init_container_statuses or []:  # Kubeflow's launcher and Argo's come from images of theirs
        state = container.state
        if state.terminated and state.terminated.exit_code:
            return f"{container.name}: {_ended(pod, container)}"
        if state.waiting and state.waiting.reason not in QUIET:
            return _joined(state.waiting)
    for container in sorted(status.container_statuses or [], key=lambda found: str(found.name) != MAIN):
        state = container.state
        if state.terminated:
            return _ended(pod, container)
        if state.waiting and state.waiting.reason not in QUIET:
            return _joined(state.waiting)
    if status.reason:  # Evicted, DeadlineExceeded
        return _joined(status)
    for condition in status.conditions or []:
        if condition.type == "PodScheduled" and condition.status == "False":
            return f"Pending: {_joined(condition)}"
    return f"{status.phase} on {pod.spec.node_name}" if pod.spec.node_name else str(status.phase)


def _ended(pod: Any, container: Any) -> str:
    """Say why a container ended: what its program has left as its reason, or what Kubernetes knows."""
    ended = container.state.terminated
    if ended.reason == SHORT:
        return f"{SHORT}: it needs more memory than its limit{_limit(pod, container.name)}{_lived(ended)}"
    if pod.status.reason:  # Evicted, with what the node lacks
        return _joined(pod.status)
    reason = " ".join((ended.message or "").split())
    return f"ended with code {ended.exit_code}{': ' if reason else ''}{reason}"


def _limit(pod: Any, name: str) -> str:
    for container in pod.spec.containers:
        if container.name == name and container.resources and (container.resources.limits or {}).get("memory"):
            return f" of {container.resources.limits['memory']}"
    return ""


def _lived(ended: Any) -> str:
    if not isinstance(ended.started_at, datetime) or not isinstance(ended.finished_at, datetime):
        return ""
    return f", which it reached after {(ended.finished_at - ended.started_at).total_seconds():.0f} s"


def _joined(told: Any) -> str:
    """Return a reason and a message as one line."""
    return " ".join(f"{told.reason}: {told.message}".split()) if told.message else str(told.reason)
