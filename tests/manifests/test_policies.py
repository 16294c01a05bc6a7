"""What a platform team asks of every object that lands on its cluster, asked of every overlay."""

import re

import pytest

from tests.manifests.rendered import OVERLAYS, containers, names, objects, of_kind, templates

pytestmark = pytest.mark.parametrize("overlay", OVERLAYS)

PODS = {"wordmill-mlflow", "wordmill-heartbeat", "wordmill-mlflow-gc", "wordmill-cache"}
READS_PODS = {(("pods",), (), ("get", "list", "watch")), (("pods/log",), (), ("get",)), (("events",), (), ("list",))}
STARTS_AND_STOPS = ("create", "get", "list", "watch", "delete")
# Account -> its rules, written by hand: (API group, resources, names, verbs).
RIGHTS = {
    "wordmill-stage": {
        ("argoproj.io", ("workflowtaskresults",), (), ("create", "patch")),
        ("", ("configmaps",), ("kfp-launcher",), ("get",)),
        ("", ("secrets",), ("mlpipeline-minio-artifact",), ("get",)),
        *(("", *rule) for rule in READS_PODS),
        ("argoproj.io", ("workflows",), (), ("get",)),
        ("batch", ("jobs",), (), STARTS_AND_STOPS),
    }
}
JOBS = {
    "local": set(),
    "gpu": {("batch.volcano.sh", ("jobs",), (), STARTS_AND_STOPS)},
    "ascend": {
        ("batch.volcano.sh", ("jobs",), (), STARTS_AND_STOPS),
        ("mindxdl.gitee.com", ("ascendjobs",), (), STARTS_AND_STOPS),
    },
}


def test_pods_are_those_that_are_checked_here(overlay: str) -> None:
    assert set(templates(overlay)) == PODS | ({"wordmill-postgres"} if overlay == "local" else set())


def test_pods_meet_the_restricted_standard_with_a_read_only_root(overlay: str) -> None:
    for name, template in templates(overlay).items():
        spec = template["spec"]
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec), name
        security = spec["securityContext"]
        assert security["runAsNonRoot"] is True
        assert {type(security[key]) for key in ("runAsUser", "runAsGroup")} == {int}
        assert min(security["runAsUser"], security["runAsGroup"]) > 0
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        kinds = {kind for volume in spec.get("volumes", []) for kind in volume if kind != "name"}
        assert kinds <= {"emptyDir", "persistentVolumeClaim"}, name
    for name, container in containers(overlay):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, name
        assert not [port for port in container.get("ports", []) if "hostPort" in port], name


def test_containers_have_requests_and_limits_and_temporary_space_has_a_bound(overlay: str) -> None:
    for name, container in containers(overlay):
        for bound in ("requests", "limits"):
            assert {"cpu", "memory"} <= set(container["resources"][bound]), name
    for name, template in templates(overlay).items():
        temporary = [volume["emptyDir"] for volume in template["spec"]["volumes"] if "emptyDir" in volume]
        assert all("sizeLimit" in volume for volume in temporary), name


def test_images_have_a_digest_or_a_version(overlay: str) -> None:
    found = [container["image"] for _, container in containers(overlay)]
    assert found
    for image in found:
        assert re.fullmatch(r"[\w./:-]+(@sha256:[0-9a-f]{64}|:[\w.-]*\d[\w.-]*)", image), image
        assert not image.endswith(":latest")


def test_long_running_pods_are_probed(overlay: str) -> None:
    for item in of_kind(overlay, "Deployment", "StatefulSet"):
        for container in item["spec"]["template"]["spec"]["containers"]:
            assert {"livenessProbe", "readinessProbe"} <= set(container)


def test_jobs_end_do_not_overlap_and_are_cleared_away(overlay: str) -> None:
    periodic = of_kind(overlay, "CronJob")
    assert {item["spec"]["concurrencyPolicy"] for item in periodic} == {"Forbid"}
    for job in [item["spec"]["jobTemplate"] for item in periodic] + of_kind(overlay, "Job"):
        assert {"activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished"} <= set(job["spec"])


def test_every_pod_has_an_account_of_this_namespace_and_no_token(overlay: str) -> None:
    accounts = names(overlay, "ServiceAccount")
    assert "default" not in accounts
    for name, template in templates(overlay).items():
        assert template["spec"]["serviceAccountName"] in accounts, name
        assert template["spec"]["automountServiceAccountToken"] is False, name
    found = of_kind(overlay, "ServiceAccount")
    with_token = [item["metadata"]["name"] for item in found if item.get("automountServiceAccountToken", True)]
    assert with_token == ["wordmill-stage"]
    # A secret that is not there is a warning on every pod.
    assert not [item for item in found if "imagePullSecrets" in item]


def test_no_pod_takes_the_proxy_of_a_mesh(overlay: str) -> None:
    for name, template in templates(overlay).items():
        assert template["metadata"]["labels"]["sidecar.istio.io/inject"] == "false", name


def test_accounts_have_exactly_the_rights_listed_here(overlay: str) -> None:
    assert not of_kind(overlay, "ClusterRole", "ClusterRoleBinding")
    rules = {role["metadata"]["name"]: role["rules"] for role in of_kind(overlay, "Role")}
    found: dict[str, set[tuple[object, ...]]] = {}
    bound = set()
    for binding in of_kind(overlay, "RoleBinding"):
        assert binding["roleRef"]["kind"] == "Role"
        bound.add(binding["roleRef"]["name"])
        for subject in binding["subjects"]:
            assert (subject["kind"], subject["namespace"]) == ("ServiceAccount", "wordmill")
            for rule in rules[binding["roleRef"]["name"]]:
                (group,) = rule["apiGroups"]
                row = (group, tuple(rule["resources"]), tuple(rule.get("resourceNames", ())), tuple(rule["verbs"]))
                found.setdefault(subject["name"], set()).add(row)
    assert bound == set(rules)
    assert found == {account: rights | JOBS[overlay] for account, rights in RIGHTS.items()}


def test_secrets_are_named_and_never_written(overlay: str) -> None:
    assert not of_kind(overlay, "Secret")
    used = set()
    for name, container in containers(overlay):
        for entry in container.get("env", []):
            if reference := entry.get("valueFrom", {}).get("secretKeyRef"):
                used.add((reference["name"], reference["key"]))
            else:
                assert not re.search("KEY|SECRET|PASSWORD|TOKEN|WEBHOOK", entry["name"]), f"{name}: {entry['name']}"
    assert used == {
        ("wordmill-s3", "access_key"),
        ("wordmill-s3", "secret_key"),
        ("wordmill-database", "user"),
        ("wordmill-database", "password"),
        ("wordmill-webhook", "url"),
    }


def test_the_namespace_enforces_the_restricted_standard_and_bounds_what_it_takes(overlay: str) -> None:
    (namespace,) = of_kind(overlay, "Namespace")
    labels = namespace["metadata"]["labels"]
    assert {labels[f"pod-security.kubernetes.io/{mode}"] for mode in ("enforce", "warn", "audit")} == {"restricted"}
    assert len(of_kind(overlay, "ResourceQuota")) == len(of_kind(overlay, "LimitRange")) == 1


def test_everything_lies_in_the_namespace_and_is_there_once(overlay: str) -> None:
    keys = [(item["kind"], item["metadata"]["name"]) for item in objects(overlay)]
    assert len(keys) == len(set(keys))
    for item in objects(overlay):
        expected = None if item["kind"] in ("Namespace", "Queue") else "wordmill"
        assert item["metadata"].get("namespace") == expected, item["metadata"]["name"]


def test_services_lead_to_a_port_of_a_pod(overlay: str) -> None:
    for service in of_kind(overlay, "Service"):
        template = templates(overlay)[service["metadata"]["name"]]
        assert service["spec"]["selector"].items() <= template["metadata"]["labels"].items()
        (container,) = template["spec"]["containers"]
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= {p["name"] for p in container["ports"]}
