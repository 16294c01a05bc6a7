"""Who may talk to whom, worked out from the rendered network policies and compared with a table made by hand."""

from typing import Any

import pytest

from pipelines.cluster.site import TRAINING_LABELS
from tests.manifests.rendered import OVERLAYS, of_kind, templates

Labels = dict[str, str]
# Pods that others make: Argo labels every pod of a run so, the launcher those of a job.
RUN = {"workflows.argoproj.io/workflow": "wordmill-crnn-r34-x7k2p", "pipelines.kubeflow.org/v2_component": "true"}
STRANGER = {"app": "notebook"}
S3, KUBEFLOW, KUBERNETES, WEB = "10.0.0.0/8:8333", "kubeflow:8888", "0.0.0.0/0:6443", "0.0.0.0/0:443"
DATABASE, DNS = "10.0.0.0/8:5432", "kube-system:53"
KUBEFLOWS_S3 = {"kubeflow:8333", "kubeflow:9000"}  # SeaweedFS's port, MinIO's
# From -> what its pods may reach, name resolution aside: outside by address range or namespace, and port.
EGRESS = {
    "run": {S3, *KUBEFLOWS_S3, WEB, KUBERNETES, KUBEFLOW, "kubeflow:8887", "kubeflow:8080"},
    "training": {S3, *KUBEFLOWS_S3},
    "wordmill-mlflow": {S3, *KUBEFLOWS_S3, DATABASE},
    "wordmill-mlflow-gc": {S3, *KUBEFLOWS_S3, DATABASE},
    "wordmill-heartbeat": {S3, *KUBEFLOWS_S3, WEB},
    "wordmill-cache": set(),
    "wordmill-postgres": set(),
    "stranger": set(),
}
# (from, to, port): every connection between pods of the namespace that is open at both of its ends.
INSIDE = {
    ("run", "wordmill-mlflow", 5000),
    ("training", "wordmill-mlflow", 5000),
    ("wordmill-mlflow-gc", "wordmill-mlflow", 5000),
    ("training", "training", 5000),
    ("training", "training", 5432),
    ("training", "training", 8118),
}
TO_POSTGRES = {("wordmill-mlflow", "wordmill-postgres", 5432), ("wordmill-mlflow-gc", "wordmill-postgres", 5432)}


def pods(overlay: str) -> dict[str, Labels]:
    made_here = {name: template["metadata"]["labels"] for name, template in templates(overlay).items()}
    return made_here | {"run": RUN, "training": TRAINING_LABELS, "stranger": STRANGER}


def selects(selector: dict[str, Any], labels: Labels) -> bool:
    """Evaluate a label selector; an operator that is not known here is a KeyError."""
    operators = {"Exists": lambda key, _: key in labels, "In": lambda key, values: labels.get(key) in values}
    return selector.get("matchLabels", {}).items() <= labels.items() and all(
        operators[item["operator"]](item["key"], item.get("values")) for item in selector.get("matchExpressions", [])
    )


def rules(overlay: str, labels: Labels, direction: str) -> list[dict[str, Any]] | None:
    """Return the rules of a direction that apply to a pod; None: no policy does, everything is open."""
    specs = [policy["spec"] for policy in of_kind(overlay, "NetworkPolicy")]
    here = [s for s in specs if direction.title() in s["policyTypes"] and selects(s["podSelector"], labels)]
    return [rule for spec in here for rule in spec.get(direction, [])] if here else None


def opens(rule: dict[str, Any], peers: str, labels: Labels, port: int) -> bool:
    """Tell whether a rule opens a port for a pod of the same namespace."""
    if "ports" in rule and port not in [entry["port"] for entry in rule["ports"] if entry["protocol"] == "TCP"]:
        return False
    return any("podSelector" in peer and selects(peer["podSelector"], labels) for peer in rule[peers])


def outside(overlay: str, labels: Labels) -> set[str]:
    reached = set()
    for rule in rules(overlay, labels, "egress") or []:
        for peer in rule["to"]:
            if "podSelector" not in peer:
                namespace = peer.get("namespaceSelector", {}).get("matchLabels", {}).get("kubernetes.io/metadata.name")
                where = namespace or peer["ipBlock"]["cidr"]
                reached |= {f"{where}:{entry['port']}" for entry in rule["ports"] if entry["protocol"] == "TCP"}
    return reached


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_reach_outside_what_the_table_says_and_names(overlay: str) -> None:
    for name, labels in pods(overlay).items():
        assert outside(overlay, labels) == EGRESS[name] | {DNS, "169.254.20.10/32:53"}, name


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_reach_each_other_as_the_table_says(overlay: str) -> None:
    everybody = pods(overlay)
    found = set()
    for source, labels in everybody.items():
        for target, others in everybody.items():
            out, into = rules(overlay, labels, "egress"), rules(overlay, others, "ingress")
            assert out is not None, f"everything is open from {source}"
            assert into is not None, f"everything is open to {target}"
            for port in (5000, 5432, 8118):
                leaves = any(opens(rule, "to", others, port) for rule in out)
                enters = any(opens(rule, "from", labels, port) for rule in into)
                if leaves and enters:
                    found.add((source, target, port))
    assert found == INSIDE | (TO_POSTGRES if overlay == "local" else set())


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_policy_selects_pods_that_exist(overlay: str) -> None:
    everybody = pods(overlay)
    for policy in of_kind(overlay, "NetworkPolicy"):
        chosen = [name for name, labels in everybody.items() if selects(policy["spec"]["podSelector"], labels)]
        assert chosen, policy["metadata"]["name"]
