"""Brings a service to the version that its model's alias points to now: `python -m components.serve.rollout`.

WORDMILL_MODEL is a registered model with an alias, such as wordmill-crnn_r34@champion; WORDMILL_DEPLOYMENT and
WORDMILL_NAMESPACE say whose pods serve it. The version is written on their template, by which Kubernetes replaces them
where it is another one than before.
"""

import os
import sys

import urllib3
from kubernetes import client, config

from wordmill.store import tracking

ANNOTATION = "wordmill/model"  # what the pods download: models:/<its value>
TIMEOUT_S = 20


def bring(api: "client.AppsV1Api", deployment: str, namespace: str, wanted: str) -> str:
    """Write what a deployment's pods serve on it, such as wordmill-crnn_r34/7, and say what has come of it."""
    found = api.read_namespaced_deployment(deployment, namespace, _request_timeout=TIMEOUT_S)
    before = (found.spec.template.metadata.annotations or {}).get(ANNOTATION, "nothing")
    if before == wanted:
        return f"{deployment} serves {wanted}: nothing to do"
    change = {"spec": {"template": {"metadata": {"annotations": {ANNOTATION: wanted}}}}}
    api.patch_namespaced_deployment(deployment, namespace, change, _request_timeout=TIMEOUT_S)
    return f"{deployment} served {before}, goes over to {wanted}"


def main() -> int:
    """Look up the version, bring the deployment to it; what is wrong is one line and code 1."""
    name, _, alias = os.environ["WORDMILL_MODEL"].partition("@")
    try:
        wanted = f"{name}/{tracking.find_version(name, alias).version}"
        settings = client.Configuration()
        config.load_incluster_config(client_configuration=settings)
        api = client.AppsV1Api(client.ApiClient(settings))
        print(bring(api, os.environ["WORDMILL_DEPLOYMENT"], os.environ["WORDMILL_NAMESPACE"], wanted), flush=True)
    except client.ApiException as error:
        return _told(f"Kubernetes answers {error.status} {error.reason}")
    except (ValueError, RuntimeError, config.ConfigException, urllib3.exceptions.HTTPError) as error:
        return _told(" ".join(str(error).split()))
    return 0


def _told(error: str) -> int:
    print(f"error: {error}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
