"""What Kubernetes says of a run's tasks while it is followed, where the follower reaches it as kubectl does."""

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import urllib3
from kubernetes import client, config
from kubernetes.utils.quantity import parse_quantity

from components.report.cluster import NODE, TRAIN, WORKFLOWS, advised
from pipelines.cluster.doctor_rights import Cluster
from pipelines.cluster.site import TRAINING_LABELS, load_site
from pipelines.cluster.sizes import fits, refused_for_good
from wordmill.store.pods import BATCH, RUN, pod_text

TIMEOUT_S = 10
LOST = ("Failed", "Error")  # phases of a node of a workflow, of which Failed is a pod's too
PENDING = "Pending"
# What a pod may wait for that comes by itself within minutes, or not at all.
VAIN = ("InvalidImageName", "ErrImageNeverPull", "ImagePullBackOff", "ErrImagePull", "CreateContainerConfigError",
        "CreateContainerError")  # fmt: skip
GROWS = ("TriggeredScaleUp", "Nominated")  # Cluster Autoscaler's and Karpenter's word that a node will come


@dataclass(frozen=True, kw_only=True)
class Trouble:
    """Why a task failed or has not begun, in Kubernetes' words; `waits_s` is how long it was seen to wait.

    `vain`: what it waits for does not come by itself.
    """

    text: str
    pod: str = ""  # "" where none was made
    waits_s: float | None = None  # None: it has failed
    vain: bool = False


@dataclass
class RunPods:
    """The pods of one run and the nodes of its workflow; without a way to Kubernetes there are none.

    names: what people call the tasks, by their names in the graph.
    """

    run_id: str
    namespace: str
    names: Mapping[str, str]
    seen: dict[str, float] = field(default_factory=dict)  # since when pods, or what is to make them, wait, by name
    cluster: Cluster | None = None

    def __post_init__(self) -> None:
        try:
            self.cluster = Cluster(load_site())
        except (config.ConfigException, OSError, ValueError):
            self.cluster = None

    def troubles(self) -> dict[str, Trouble]:
        """Return the troubles of tasks by their names for people; what Kubernetes does not tell is left out."""
        if self.cluster is None:
            return {}
        found: dict[str, Trouble] = {}
        for ask in (self._of_workflow, self._of_job, self._of_pods):  # what a pod says is nearer to the cause
            try:
                found |= ask(self.cluster)
            except (client.ApiException, urllib3.exceptions.HTTPError, OSError):
                continue  # another right, or another moment
        return found

    def _of_pods(self, cluster: Cluster) -> dict[str, Trouble]:
        listed = cluster.core.list_namespaced_pod(
            self.namespace, label_selector=f"{RUN}={self.run_id}", _request_timeout=TIMEOUT_S
        )
        last = {}
        for pod in sorted(listed.items, key=lambda pod: str(pod.metadata.creation_timestamp)):
            if task := self._task_of(pod):
                last[task] = pod
        return {task: self._of_pod(cluster, task, pod)
                for task, pod in last.items() if pod.status.phase in (*LOST, PENDING)}  # fmt: skip

    def _of_pod(self, cluster: Cluster, task: str, pod: client.V1Pod) -> Trouble:
        name, text = pod.metadata.name, advised(task, pod_text(pod))
        if text.startswith(f"{PENDING} on") and (warned := self._warning(cluster, name)):
            text = f"{text}: {warned}"
        waits = pod.status.phase == PENDING
        vain = waits and (text.startswith(VAIN) or self._fits_nowhere(cluster, pod))
        trouble = Trouble(text=text, pod="" if is_of_job(pod) else name, vain=vain)  # a job's logs go with it
        return self._waiting(name, trouble) if waits else trouble

    def _fits_nowhere(self, cluster: Cluster, pod: client.V1Pod) -> bool:
        """Tell whether no node, were it empty, has what a pod asks for, and nobody has said that one will come."""
        if pod.spec.node_name:
            return False
        wanted = Counter[str]()
        for container in pod.spec.containers:
            for name, value in ((container.resources and container.resources.requests) or {}).items():
                wanted[name] += parse_quantity(value)
        try:
            nodes = cluster.core.list_node(_request_timeout=TIMEOUT_S).items
            grows = any(event.reason in GROWS for event in self._events(cluster, pod.metadata.name))
        except client.ApiException:
            return False  # without the right to see them nobody knows
        places = [node.status.allocatable or {} for node in nodes]
        return not grows and not fits({name: str(value) for name, value in wanted.items()}, places)

    def _warning(self, cluster: Cluster, pod: str) -> str:
        """Return the last warning about a pod that says nothing itself, as of a volume that is not to be mounted."""
        try:
            said = [f"{event.reason}: {event.message}" for event in self._events(cluster, pod)
                    if event.type == "Warning"]  # fmt: skip
        except client.ApiException:
            return ""  # without the right to see them
        return " ".join(said[-1].split()) if said else ""

    def _events(self, cluster: Cluster, pod: str) -> list[client.CoreV1Event]:
        list_events = cluster.core.list_namespaced_event
        selector = f"involvedObject.name={pod}"
        return list(list_events(self.namespace, field_selector=selector, _request_timeout=TIMEOUT_S).items)

    def _of_workflow(self, cluster: Cluster) -> dict[str, Trouble]:
        """Return what Argo says of pods, those that were refused and so never were among them."""
        read = client.CustomObjectsApi(cluster.api).list_namespaced_custom_object
        listed = read(*WORKFLOWS, self.namespace, "workflows", label_selector=f"{RUN}={self.run_id}",
                      _request_timeout=TIMEOUT_S)  # fmt: skip
        nodes = [node for item in listed["items"] for node in ((item.get("status") or {}).get("nodes") or {}).values()]
        found: dict[str, Trouble] = {}
        for node in sorted(nodes, key=lambda node: str(node.get("startedAt"))):
            task = self._task(node.get("name", ""))
            if task and node.get("type") == "Pod":
                found.pop(task, None)
                if node.get("message") and node.get("phase") in (*LOST, PENDING):
                    text = " ".join(node["message"].split())
                    trouble = Trouble(text=text, vain=refused_for_good(text))
                    found[task] = self._waiting(node["name"], trouble) if node["phase"] == PENDING else trouble
        return found

    def _of_job(self, cluster: Cluster) -> dict[str, Trouble]:
        """Return why the job that training has made has no pod, such as one that was refused."""
        listed = client.CustomObjectsApi(cluster.api).list_namespaced_custom_object(
            *BATCH[:2], self.namespace, BATCH[2], label_selector=f"{RUN}={self.run_id}", _request_timeout=TIMEOUT_S
        )
        found: dict[str, Trouble] = {}
        for job in listed["items"]:
            name, task = job["metadata"]["name"], self.names.get(TRAIN, "")
            if (job.get("status") or {}).get("active"):
                self.seen.pop(name, None)  # an old warning about it is not one of its next pod
            elif task and (text := self._warning(cluster, name)):
                found[task] = self._waiting(name, Trouble(text=text, vain=refused_for_good(text)))
        return found

    def _task_of(self, pod: client.V1Pod) -> str:
        """Return the task of a pod, training of one of the job that training has made; "" where it has none."""
        if is_of_job(pod):
            return self.names.get(TRAIN, "")
        return self._task((pod.metadata.annotations or {}).get(NODE, ""))

    def _task(self, place: str) -> str:
        """Return the task of a node's place `<workflow>.root.<task>...<task>.executor(0)`, a driver's as well."""
        for part in reversed(place.split(".")[1:]):
            if name := self.names.get(part.split("(")[0].removesuffix("-driver")):
                return name
        return ""

    def _waiting(self, name: str, trouble: Trouble) -> Trouble:
        since = self.seen.setdefault(name, time.monotonic())
        return replace(trouble, waits_s=time.monotonic() - since)


def is_of_job(pod: client.V1Pod) -> bool:
    """Tell whether a pod is of a training's job, and not of a task of the workflow."""
    return TRAINING_LABELS.items() <= (pod.metadata.labels or {}).items()
