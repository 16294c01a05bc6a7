"""Before a pipeline is uploaded: a namespace with all that its pods name, and a text that the server understands."""

import sys
from typing import Any

import urllib3
import yaml
from kubernetes import client, config

from pipelines.cluster.client import Server
from pipelines.cluster.doctor_rights import Cluster
from pipelines.output import to_type

ENFORCED = "pod-security.kubernetes.io/enforce"


def accepted_by(server: Server, spec: str) -> str:
    """Return a compiled pipeline as this server takes it; RuntimeError where its pods would all be refused.

    Kubernetes is asked where it can be; else a line says that it was not.
    """
    fits, namespace = server.knows_users, server.site.namespace
    try:
        cluster = Cluster(server.site)
        if not cluster.has_kubeflow():
            raise RuntimeError(f"no Kubeflow at {cluster.settings.host}, which kubectl reaches")
        lacking = [finding.text for finding in cluster.objects() if finding.state == "fail"]
        enforced = "" if fits else cluster.label(ENFORCED)
    except (config.ConfigException, client.ApiException, urllib3.exceptions.HTTPError, OSError, RuntimeError) as error:
        said = f"{error.status} {error.reason}" if isinstance(error, client.ApiException) else str(error)
        print(f"namespace {namespace} is not looked at from here ({' '.join(said.split())[:200]}): "
              f"`{to_type('doctor')}` where kubectl reaches it", file=sys.stderr)  # fmt: skip
        lacking, enforced = [], ""
    if lacking:
        raise RuntimeError("; ".join(lacking))
    return spec if fits else _without_users(spec, server.version, namespace, enforced)


def check_kept(server: Server, version: Any) -> None:
    """Refuse to start a version of which the server has dropped all that says what pods get, as some do silently."""
    kept = version.pipeline_spec or {}
    sure = server.version and server.knows_users
    if not sure and "pipelineInfo" in kept and "platform_spec" not in kept:
        told = f"Kubeflow Pipelines {server.version or '(it says no version)'}"
        raise RuntimeError(f"{told} has dropped what {version.display_name} says of its pods, secrets and volumes: "
                           "upgrade it to 2.17 or later")  # fmt: skip


def _without_users(spec: str, version: str, namespace: str, enforced: str) -> str:
    """Leave out whom pods run as, with which an older server would drop everything else that is said of pods."""
    baseline = f"kubectl label namespace {namespace} {ENFORCED}=baseline --overwrite, spec.pod_security: baseline"
    if enforced == "restricted":
        raise RuntimeError(f"Kubeflow Pipelines {version} cannot say whom pods run as, and namespace {namespace} takes "
                           f"no others: {baseline} in values.yaml, or upgrade it to 2.17")  # fmt: skip
    print(f"Kubeflow Pipelines {version}: the pipeline goes without securityContext, which it does not know; the "
          f"namespace must be {'baseline' if enforced else f'baseline ({baseline})'}", file=sys.stderr)  # fmt: skip
    pipeline, platform = yaml.load_all(spec, yaml.CSafeLoader)
    for executor in platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"].values():
        executor.pop("securityContext", None)
    return yaml.safe_dump_all([pipeline, platform], sort_keys=True)
