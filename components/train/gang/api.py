"""The calls to Kubernetes about one job: short ones that may be made again, no watches that break or expire."""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import urllib3
from kubernetes import client, config

from components.train.gang.manifests import CONTAINER, INSTANCE, MAKERS, Document, leader_pod
from components.train.gang.work import GangSpec, job_name
from wordmill.store.pods import ASCEND, BATCH, RUN, VOLCANO, cluster_settings, own_pod

CALL_TIMEOUT_S = 20
AGAIN = (401, 408, 410, 429)  # and 5xx: refusals that pass, such as that of a token that has just been renewed
PAUSES_S = (1.0, 2.0, 4.0)
SLACK_S = 5  # of clocks, when lines of a log are asked for since a moment


class ClusterAwayError(RuntimeError):
    """Kubernetes does not answer, or cannot now."""


class JobApi:
    """One job and its pods, in this pod's cluster or, outside of one, in kubectl's (KUBECONFIG)."""

    def __init__(self, spec: GangSpec, key: str) -> None:
        self.spec, self.key, self.name, self.namespace = spec, key, job_name(key), spec.namespace
        try:
            settings = cluster_settings()
        except config.ConfigException as error:
            raise RuntimeError(f"a training's job needs a cluster: {error}") from None
        settings.retries = False  # whoever calls tries again
        api = client.ApiClient(settings)
        self.objects, self.core = client.CustomObjectsApi(api), client.CoreV1Api(api)
        self.kind = VOLCANO if spec.nodes > 1 else BATCH
        # MindCluster's operator refuses jobs without NPUs.
        if spec.nodes > 1 and spec.device == "npu":
            found = self._ask("look for AscendJobs", self.objects.get_api_resources, *ASCEND[:2])
            self.kind = ASCEND if found else VOLCANO

    def create(self) -> bool:
        """Make the job; False where there is one of its name."""
        name = own_pod()
        pod = self._ask("read pods", self.core.read_namespaced_pod, name, self.namespace) if name else None
        spec = replace(self.spec, labels=self.spec.labels | run_label(pod))
        manifest = MAKERS[self.kind](spec, self.key, owner_of(pod))
        group, version, plural = self.kind
        call = self.objects.create_namespaced_custom_object
        made = self._ask(f"create {plural}.{group}", call, group, version, self.namespace, plural, manifest,
                         conflict={})  # fmt: skip
        if made is None:
            raise RuntimeError(f"Kubernetes knows no {plural}.{group}: install Volcano, or MindCluster where there are "
                               "NPUs, or choose a profile of one node")  # fmt: skip
        return bool(made)

    def get(self) -> Document | None:
        """Return the job, None where there is none."""
        call = self.objects.get_namespaced_custom_object
        found: Document | None = self._ask(f"read {self.kind[2]}", call, *self._place())
        return found

    def delete(self) -> None:
        """Delete the job, its pods with it, if it is there."""
        self._ask(f"delete {self.kind[2]}", self.objects.delete_namespaced_custom_object, *self._place(),
                  propagation_policy="Background")  # fmt: skip

    def pods(self, job: str) -> list[Any]:
        """Return the pods of the job of this uid, the oldest first; one that was deleted may have left some."""
        label = f"{INSTANCE}={self.name}"
        found = self._ask("list pods", self.core.list_namespaced_pod, self.namespace, label_selector=label)
        own = [pod for pod in found.items if job in [owner.uid for owner in pod.metadata.owner_references or []]]
        return sorted(own, key=lambda pod: (str(pod.metadata.creation_timestamp), str(pod.metadata.name)))

    def leader(self, pods: list[Any]) -> str:
        """Return the name of the first node's pod: of Kubernetes's own Job, which makes up names, the newest one."""
        if self.kind == BATCH:
            return str(pods[-1].metadata.name) if pods else ""
        return leader_pod(self.spec, self.key, self.kind == ASCEND)

    def warnings(self) -> list[tuple[str, str]]:
        """Return (kind and name, reason: message) of Kubernetes's warnings about the job, its pods and their group."""
        found = self._ask("list events", self.core.list_namespaced_event, self.namespace, field_selector="type=Warning")
        told = ((event, event.involved_object) for event in found.items)
        return [(f"{item.kind} {item.name}", f"{event.reason}: {event.message}")
                for event, item in told if str(item.name).startswith(self.name)]  # fmt: skip

    def log(self, pod: str, since_s: float | None) -> list[str]:
        """Return the lines, each behind its time, that a pod has printed, all or of the last seconds."""
        limit = {} if since_s is None else {"since_seconds": int(since_s) + SLACK_S}
        call = self.core.read_namespaced_pod_log
        reply = self._ask("read pods/log", call, pod, self.namespace, container=CONTAINER, timestamps=True,
                          _preload_content=False, **limit)  # fmt: skip
        text = "" if reply is None else reply.data.decode("utf-8", errors="replace")
        return text.removesuffix("\n").split("\n") if text else []

    def _place(self) -> tuple[str, str, str, str, str]:
        return (*self.kind[:2], self.namespace, self.kind[2], self.name)

    def _ask(self, what: str, call: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Make one call, again after a moment where that may help: a dropped connection, an overloaded server."""
        for pause_s in PAUSES_S:
            try:
                return self._call(what, call, *args, **options)
            except ClusterAwayError:
                time.sleep(pause_s)
        return self._call(what, call, *args, **options)

    def _call(self, what: str, call: Callable[..., Any], *args: Any, conflict: Any = None, **options: Any) -> Any:
        """Return what a call returns, None for what is not there, `conflict` for what is there already.

        ClusterAwayError where the call may succeed later, RuntimeError with what to do where it will not.
        """
        try:
            return call(*args, _request_timeout=CALL_TIMEOUT_S, **options)
        except client.ApiException as error:
            if error.status == 404:
                return None
            if error.status == 409 and conflict is not None:
                return conflict
            said = f"Kubernetes, asked to {what} in namespace {self.namespace}: {error.status} {error.reason}"
            if error.status in AGAIN or error.status >= 500:
                raise ClusterAwayError(said) from None
            apply = ": apply the manifests, for several nodes with the component of their kind of job"
            raise RuntimeError(f"{said}: {message_of(error)}{apply if error.status == 403 else ''}") from None
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise ClusterAwayError(f"Kubernetes does not answer when asked to {what}: {error}") from None


def message_of(error: client.ApiException) -> str:
    """Return why Kubernetes refused a call, in its own words where they are the document that it answers with."""
    try:
        return str(json.loads(error.body)["message"])
    except (TypeError, ValueError, KeyError):  # what stands before it, such as a proxy, answers otherwise
        return str(error.body)


def owner_of(pod: Any) -> Document | None:
    """Return the reference to a pod's Workflow, with which the job shall end; None outside of a run.

    Not to the pod: another attempt of the stage goes on with the job of one that is gone.
    """
    for owner in (pod.metadata.owner_references or []) if pod else []:
        if owner.kind == "Workflow":
            return {"apiVersion": owner.api_version, "kind": owner.kind, "name": owner.name, "uid": owner.uid}
    return None


def run_label(pod: Any) -> dict[str, str]:
    """Return the label by which whoever follows this pod's run finds its pods; empty outside of a run."""
    return {name: value for name, value in ((pod.metadata.labels or {}) if pod else {}).items() if name == RUN}
