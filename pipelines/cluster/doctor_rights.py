"""What `make doctor` asks Kubernetes: the namespace's objects, rights, queue and devices."""

import base64
import os
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import yaml
from kubernetes import client

from pipelines.cluster.doctor_services import Finding
from pipelines.cluster.site import CACHE, QUEUE, STAGE_ACCOUNT, Accelerator, Site
from pipelines.cluster.sizes import misfit, over_quota, sizes_of, too_few
from pipelines.cluster.tasks import SECRET, SETTINGS
from pipelines.output import to_apply, to_type
from pipelines.profiles import PROFILES
from wordmill.store.pods import ASCEND, BATCH, VOLCANO, cluster_settings

TIMEOUT_S = 10
APPLY = f"apply the manifests: {to_apply()}"
# What a stage's pod asks Kubernetes for: API group, resource, name ("" for any), verbs. Argo's executor reports
# results, Kubeflow's launcher reads where artifacts go, the training stage follows the pods of its job.
Right = tuple[str, str, str, tuple[str, ...]]
OF_JOBS = ("create", "get", "list", "watch", "delete")
RIGHTS: tuple[Right, ...] = (
    ("argoproj.io", "workflowtaskresults", "", ("create", "patch")),
    ("argoproj.io", "workflows", "", ("get",)),
    ("", "configmaps", "kfp-launcher", ("get",)),
    ("", "pods", "", ("get", "list", "watch")),
    ("", "pods/log", "", ("get",)),
    ("", "events", "", ("list",)),
    (BATCH[0], BATCH[2], "", OF_JOBS),
)
JOBS: tuple[Right, ...] = tuple((group, plural, "", OF_JOBS) for group, _, plural in (VOLCANO, ASCEND))


ARGO = "workflow-controller-configmap"
# What Argo runs again of a run's own pods by its policy; those of a training's job are not Argo's. Error: the pod is
# lost. Failed: its program failed, it was evicted, its node shut down, or it was killed for want of memory.
POLICIES = {
    "OnError": "training lives through lost pods; an evicted one that is not a job's ends the run, which RUN_TAG goes "
    "on with",
    "OnFailure": "what fails is run again, which seldom helps, and a lost pod ends the run: set OnError",
    "Always": "training lives through lost pods, but what fails is run again too: set OnError",
    "OnTransientError": "a lost pod ends the run, which RUN_TAG goes on with: set OnError",
}


class Cluster:
    """The Kubernetes API of this pod's cluster, or of kubectl's (KUBECONFIG, KFP_KUBE_CONTEXT)."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.settings = cluster_settings(os.environ.get("KFP_KUBE_CONTEXT"))
        self.settings.retries = False
        self.api = client.ApiClient(self.settings)
        self.core = client.CoreV1Api(self.api)

    def server(self) -> Iterator[Finding]:
        """Check that Kubernetes answers and has the namespace."""
        found = client.VersionApi(self.api).get_code(_request_timeout=TIMEOUT_S)
        self.core.read_namespace(self.site.namespace, _request_timeout=TIMEOUT_S)
        text = f"{found.git_version} at {self.settings.host}, namespace {self.site.namespace}"
        yield Finding("Kubernetes", "ok", text)

    def has_kubeflow(self) -> bool:
        """Tell whether Kubeflow Pipelines runs here, or may: kubectl can reach another cluster than its own."""
        try:
            self.core.read_namespaced_service("ml-pipeline", self.site.kubeflow.namespace, _request_timeout=TIMEOUT_S)
        except client.ApiException as error:
            if error.status == 404:
                return False
            if error.status != 403:
                raise
        return True

    def label(self, name: str) -> str:
        """Return a label of the namespace, "" where it has none."""
        found = self.core.read_namespace(self.site.namespace, _request_timeout=TIMEOUT_S)
        return str((found.metadata.labels or {}).get(name, ""))

    def keys(self) -> dict[str, str]:
        """Return the S3 keys of the namespace's secret, nothing where it may not be read."""
        try:
            secret = self.core.read_namespaced_secret(SECRET, self.site.namespace, _request_timeout=TIMEOUT_S)
        except client.ApiException:
            return {}
        return {key: base64.b64decode(value).decode() for key, value in (secret.data or {}).items()}

    @cached_property
    def nodes(self) -> list[client.V1Node]:
        """Return the nodes of the cluster, which is asked once."""
        return list(self.core.list_node(_request_timeout=TIMEOUT_S).items)

    def images(self) -> frozenset[str]:
        """Return the names of the images that nodes have, of Docker's own registry without it; none where unknown."""
        try:
            nodes = self.nodes
        except client.ApiException:
            return frozenset()
        named = [name for node in nodes for image in node.status.images or [] for name in image.names or []]
        return frozenset(name.removeprefix("docker.io/").removeprefix("library/") for name in named)

    def objects(self) -> Iterator[Finding]:
        """Check the config map, secret, service account and cache that every stage's pod names."""
        core, site = self.core, self.site
        settings = {"s3_endpoint": site.s3.endpoint, "region": site.s3.region, "bucket": site.s3.bucket,
                    "mlflow": site.mlflow.address, "cache": "/cache", "mlflow_pages": site.pages.mlflow,
                    "s3_pages": site.pages.s3, "kubeflow_pages": site.pages.kubeflow}  # fmt: skip
        found = self._found("config map", SETTINGS, core.read_namespaced_config_map, APPLY)
        yield found[0]
        if found[1]:
            data = dict.fromkeys(settings, "") | (found[1].data or {})
            for key in [key for key, value in settings.items() if data[key] != value]:
                text = f"{SETTINGS}: {key} is {data[key]!r}, values.yaml says {settings[key]!r}: {APPLY}"
                yield Finding("config map", "fail", text)
        make = f"kubectl -n {site.namespace} create secret generic {SECRET} --from-literal=access_key=... secret_key"
        found = self._found("secret", SECRET, core.read_namespaced_secret, make)
        yield found[0]
        if found[1]:
            for key in {"access_key", "secret_key"} - set(found[1].data or {}):
                yield Finding("secret", "fail", f"{SECRET} has no key {key}: {make}")
        yield self._found("service account", STAGE_ACCOUNT, core.read_namespaced_service_account, APPLY)[0]
        claim, volume = self._found("cache", CACHE, core.read_namespaced_persistent_volume_claim, APPLY)
        if volume and volume.status.phase != "Bound":
            # Storage classes that wait for the first pod leave it pending until then.
            claim = Finding("cache", "warn", f"{CACHE} is {volume.status.phase}: kubectl describe pvc")
        yield claim
        owned = "Kubeflow makes it in a profile's namespace, and its own: artifacts go nowhere without it"
        for what, name, read in (("config map", "kfp-launcher", core.read_namespaced_config_map),
                                 ("secret", site.kubeflow.artifact_secret, core.read_namespaced_secret)):  # fmt: skip
            finding, _ = self._found(what, name, read, owned)
            yield finding._replace(state="warn") if finding.state == "fail" else finding

    def rights(self) -> Iterator[Finding]:
        """Check what the stages' service account may do, by asking in its name (SelfSubjectAccessReview)."""
        name = f"system:serviceaccount:{self.site.namespace}:{STAGE_ACCOUNT}"
        reviews = client.AuthorizationV1Api(client.ApiClient(self.settings, "Impersonate-User", name))
        keys = ("", "secrets", self.site.kubeflow.artifact_secret, ("get",))
        try:
            for right in (*RIGHTS, keys, *JOBS):
                yield self._right(reviews, right)
        except client.ApiException as error:
            if error.status != 403:
                raise
            text = f"you may not ask in the name of {STAGE_ACCOUNT}: ask an administrator to run `{to_type('doctor')}`"
            yield Finding("rights", "warn", text)

    def queue(self) -> Iterator[Finding]:
        """Check that Volcano's queue for training on several nodes is there and open."""
        objects = client.CustomObjectsApi(self.api)
        try:
            found = objects.get_cluster_custom_object("scheduling.volcano.sh", "v1beta1", "queues", QUEUE,
                                                      _request_timeout=TIMEOUT_S)  # fmt: skip
        except client.ApiException as error:
            if error.status != 404:
                raise
            text = f"no queue {QUEUE}: only training on several nodes needs it: install Volcano, then {APPLY}"
            yield Finding("queue", "warn", text)
            return
        state = found.get("status", {}).get("state", "Unknown")
        opened = state == "Open"
        text = f"{QUEUE} is {state}" + ("" if opened else f": vcctl queue operate -n {QUEUE} -a open")
        yield Finding("queue", "ok" if opened else "fail", text)

    def devices(self) -> Iterator[Finding]:
        """Count the accelerators that nodes offer under the resource names of values.yaml."""
        nodes = self.nodes
        offered = sorted({name for node in nodes for name in node.status.allocatable or {} if "/" in name})
        for device, wanted in self.site.accelerators.items():
            counts = [(node.metadata.labels or {}, int((node.status.allocatable or {}).get(wanted.resource, "0")))
                      for node in nodes]  # fmt: skip
            having = [(labels, count) for labels, count in counts if count]
            chosen = [count for labels, count in having if wanted.nodes.items() <= labels.items()]
            if chosen:
                text = f"{device}: {sum(chosen)} {wanted.resource} on {len(chosen)} nodes"
            elif having:
                text = (f"{device}: {len(having)} nodes offer {wanted.resource}, none has the labels {wanted.nodes}: "
                        f"correct spec.accelerators.{device}.nodes in values.yaml")  # fmt: skip
            else:
                text = (f"{device}: no node offers {wanted.resource}, they offer {', '.join(offered) or 'no devices'}: "
                        f"start the device plugin, or correct spec.accelerators.{device}.resource")  # fmt: skip
            yield Finding("devices", "ok" if chosen else "warn", text)

    def retries(self) -> Iterator[Finding]:
        """Say which pods the site's Argo runs again: it is its configuration that decides, and no pipeline can."""
        where = f"{ARGO} in {self.site.kubeflow.namespace}"
        try:
            found = self.core.read_namespaced_config_map(ARGO, self.site.kubeflow.namespace, _request_timeout=TIMEOUT_S)
        except client.ApiException as error:
            text = f"{where} cannot be read ({error.status}): which pods are run again is not known"
            yield Finding("retries", "warn", text)
            return
        spec = (yaml.safe_load((found.data or {}).get("workflowDefaults") or "{}") or {}).get("spec") or {}
        strategy = (spec.get("templateDefaults") or {}).get("retryStrategy") or spec.get("retryStrategy") or {}
        policy = strategy.get("retryPolicy", "OnFailure")  # Argo's own default
        text = f"{where}: retryPolicy {policy}: {POLICIES.get(policy, 'unknown to this check')}"
        yield Finding("retries", "ok" if policy == "OnError" else "warn", text)

    def sizes(self) -> Iterator[Finding]:
        """Compare what each stage's pod asks for with the nodes that may run it, what it may take with the quota."""
        nodes = [(node.metadata.labels or {}, node.status.allocatable or {})
                 for node in self.nodes]  # fmt: skip
        misfits = 0
        for name, size in sizes_of(self.site).items():
            profile = PROFILES[name.split()[1]] if " " in name else PROFILES["cpu"]
            device = profile.device
            wanted = self.site.accelerators.get(device, Accelerator(resource="cpu", nodes={}, labels={}))
            places = [
                free for labels, free in nodes if wanted.resource in free and wanted.nodes.items() <= labels.items()
            ]
            if places and device != "cpu" and (told := too_few(wanted.resource, profile.processes, places)):
                misfits += 1
                yield Finding("sizes", "warn", f"{name} {told}: choose another profile")
            elif places and (told := misfit(size, places) or over_quota(size, self.site.quota)):
                misfits += 1
                advice = "set spec.sizes.preset, or spec.sizes.changed, in values.yaml"
                yield Finding("sizes", "warn" if " " in name else "fail", f"{name} {told}: {advice}")
        if not misfits:
            yield Finding(
                "sizes", "ok", f"preset {self.site.sizes.preset}: each stage fits on a node and into the quota"
            )

    def _found(self, what: str, name: str, read: Any, advice: str) -> tuple[Finding, Any]:
        """Read an object of the namespace; None where it is missing, with the advice."""
        try:
            found = read(name, self.site.namespace, _request_timeout=TIMEOUT_S)
        except client.ApiException as error:
            if error.status == 403:
                return Finding(what, "warn", f"{name}: you may not read it, so it is not checked"), None
            if error.status != 404:
                raise
            return Finding(what, "fail", f"no {name} in {self.site.namespace}: {advice}"), None
        return Finding(what, "ok", f"{name} is there"), found

    def _right(self, reviews: client.AuthorizationV1Api, right: Right) -> Finding:
        group, resource, name, verbs = right
        what = f"{resource}{'.' + group if group else ''}{' ' + name if name else ''}"
        if lacking := [verb for verb in verbs if not self._may(reviews, group, resource, name, verb)]:
            text = f"{STAGE_ACCOUNT} may not {', '.join(lacking)} {what}: {APPLY}"
            if right in JOBS:
                return Finding("rights", "warn", f"{text} (training on several nodes needs it)")
            return Finding("rights", "fail", text)
        return Finding("rights", "ok", f"{STAGE_ACCOUNT} may {', '.join(verbs)} {what}")

    def _may(self, reviews: client.AuthorizationV1Api, group: str, resource: str, name: str, verb: str) -> bool:
        kind, _, part = resource.partition("/")
        asked = client.V1ResourceAttributes(group=group, resource=kind, subresource=part or None, verb=verb,
                                            name=name or None, namespace=self.site.namespace)  # fmt: skip
        review = client.V1SelfSubjectAccessReview(spec=client.V1SelfSubjectAccessReviewSpec(resource_attributes=asked))
        reply = reviews.create_self_subject_access_review(review, _request_timeout=TIMEOUT_S)
        return bool(reply.status.allowed)
