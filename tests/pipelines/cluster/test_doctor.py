"""`doctor` against a whole site in memory, with a real S3 server: well, empty, and with one thing wrong at a time."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from pipelines.cli import main
from pipelines.cluster import doctor, doctor_services
from pipelines.cluster.site import Site, load_site
from pipelines.images.references import NAMES
from tests.pipelines.cluster.kfp_state import KfpServer
from tests.pipelines.cluster.site_server import ARGO, NAMESPACE, STOCK, SiteServer, node, serving_site
from wordmill.store.storage import Store

QUEUE = "/apis/scheduling.volcano.sh/v1beta1/queues/wordmill"
CLAIM = f"{NAMESPACE}/persistentvolumeclaims/wordmill-cache"


@pytest.fixture
def site(kfp: KfpServer, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SiteServer]:
    """A healthy site, which the environment and the values name."""
    with serving_site(SiteServer()) as server:
        address = f"http://{server.address}"
        kubeconfig = {
            "apiVersion": "v1", "kind": "Config", "current-context": "c", "users": [{"name": "u", "user": {}}],
            "clusters": [{"name": "k", "cluster": {"server": address}}],
            "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
        }  # fmt: skip
        (tmp_path / "kubeconfig").write_text(yaml.safe_dump(kubeconfig))
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
        monkeypatch.setenv("WORDMILL_REGISTRY", f"{server.address}/team")
        monkeypatch.setenv("WORDMILL_TAG", "1.2")
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
        values = of_site(store, server)
        monkeypatch.setattr(doctor, "load_site", lambda: values)
        server.answers[f"{NAMESPACE}/configmaps/wordmill-settings"]["data"] = {
            "s3_endpoint": store.endpoint, "region": "us-east-1", "bucket": store.bucket,
            "mlflow": f"{address}/mlflow", "cache": "/cache",
        }  # fmt: skip
        yield server


def of_site(store: Store, server: SiteServer) -> Site:
    values = load_site()
    return replace(
        values,
        registry=f"{server.address}/team",
        images=replace(values.images, services="report:1.2"),
        s3=replace(values.s3, endpoint=store.endpoint, bucket=store.bucket, region="us-east-1"),
        mlflow=replace(values.mlflow, address=f"http://{server.address}/mlflow"),
    )


def examined(capsys: pytest.CaptureFixture[str]) -> tuple[object, list[str]]:
    """Run the verb and return its exit code and its lines."""
    with pytest.raises(SystemExit) as end:
        main(["doctor"])
    printed = capsys.readouterr()
    assert "Traceback" not in printed.out + printed.err
    return end.value.code, printed.out.splitlines()


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        ({"data": {"workflowDefaults": STOCK}}, "ok    retries .*retryPolicy OnError: training lives through lost"),
        ({"data": {}}, "warn  retries .*retryPolicy OnFailure: what fails is run again.* a lost pod ends the run"),
        ({"data": {"workflowDefaults": "spec: {retryStrategy: {retryPolicy: Always}}"}},
         "warn  retries .*retryPolicy Always: training lives through lost pods, but what fails is run again"),
        (403, r"warn  retries .*cannot be read \(403\): which pods are run again is not known"),
    ],
)  # fmt: skip
def test_doctor_says_what_the_sites_argo_runs_again(
    answer: object, line: str, site: SiteServer, capsys: pytest.CaptureFixture[str]
) -> None:
    site.answers[ARGO] = answer
    assert [found for found in examined(capsys)[1] if re.match(line, found)]


def test_a_healthy_site_is_well_and_left_as_it_was(
    site: SiteServer, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    code, lines = examined(capsys)
    assert code == 0
    assert lines[-1] == f"{len(lines) - 1} checks are well, 0 warn, 0 fail"
    for text in ("v1.33.1", "server 2.17.0, kfp 2.17.3", "written, read and deleted, in parts too",
                 "server 3.17.2, client 3.17.2", "wordmill is Open", "cuda: 4 nvidia.com/gpu on 1 nodes",
                 "npu: 16 huawei.com/Ascend910 on 2 nodes", "preset gpu: each stage fits",
                 "team/smoke-lite:1.2: is there"):  # fmt: skip
        assert len([line for line in lines if text in line and line.startswith("ok ")]) == 1, text
    with pytest.raises(SystemExit) as end:
        main(["doctor", "--json"])
    told = json.loads(capsys.readouterr().out)
    assert (end.value.code, [f"{one['state']:<5} {one['what']:<20} {one['text']}" for one in told]) == (0, lines[:-1])
    assert list(store.keys("")) == []
    needed = {
        (about.get("group", ""), about["resource"], about.get("subresource"), about["verb"]) for about in site.asked
    }
    assert {("argoproj.io", "workflowtaskresults", None, "patch"), ("", "pods", "log", "get"),
            ("", "secrets", None, "get"), ("batch", "jobs", None, "create"),
            ("batch.volcano.sh", "jobs", None, "create")} <= needed  # fmt: skip
    assert {about["namespace"] for about in site.asked} == {"wordmill"}


def test_without_cluster_and_servers_every_line_says_what_to_do(
    site: SiteServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KUBECONFIG", "/nowhere")
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://minio.invalid:9000")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    monkeypatch.setenv("WORDMILL_REGISTRY", "wordmill")
    code, lines = examined(capsys)
    assert code == 1
    assert [line.split()[0] for line in lines[:5]] == ["fail", "fail", "warn", "fail", "fail"]
    for line, advice in zip(lines, ("Set KUBECONFIG", "check KF_PIPELINES_ENDPOINT", "kubectl port-forward",
                                    "check MLFLOW_TRACKING_URI", "set spec.registry"), strict=False):  # fmt: skip
        assert advice in line


SETTINGS = f"{NAMESPACE}/configmaps/wordmill-settings"
KEYS = f"{NAMESPACE}/secrets/wordmill-s3"
# What is wrong, all at once, and the line that each thing ends in.
WRONG: list[tuple[dict, list[tuple[str, str]]]] = [
    ({NAMESPACE: 404}, [("fail", "Kubernetes answers 404 .*apply the manifests, and check spec.namespace")]),
    ({"/version/": 401}, [("fail", "Kubernetes answers 401 .*log in again")]),
    (
        {
            SETTINGS: 404,
            KEYS: 404,
            f"{NAMESPACE}/serviceaccounts/wordmill-stage": 404,
            CLAIM: {"status": {"phase": "Pending"}},
            f"{NAMESPACE}/secrets/mlpipeline-minio-artifact": 404,
            f"{NAMESPACE}/configmaps/kfp-launcher": 404,
            QUEUE: 404,
            "/api/v1/nodes": {"items": [node({})]},
            "/mlflow/version": "2.9.2",
            "/v2/team/smoke-lite/manifests/1.2": 404,
            "/v2/team/train-pytorch/manifests/1.2": 401,
        },
        [
            ("fail", "no wordmill-settings in wordmill: apply the manifests"),
            ("fail", "no wordmill-s3 in wordmill: .*create secret generic wordmill-s3"),
            ("fail", "no wordmill-stage in wordmill: apply the manifests"),
            ("warn", "wordmill-cache is Pending"),
            ("warn", "no mlpipeline-minio-artifact in wordmill: Kubeflow makes it"),
            ("warn", "no kfp-launcher in wordmill: Kubeflow makes it"),
            ("warn", "no queue wordmill: only training on several nodes needs it: install Volcano"),
            ("warn", "cuda: no node offers nvidia.com/gpu, they offer no devices: start the device plugin"),
            ("warn", "npu: no node offers huawei.com/Ascend910, they offer no devices"),
            ("warn", "server 2.9.2, client 3.17.2: give both the same version"),
            ("warn", "team/train-pytorch:1.2: the registry wants a login"),
            ("fail", "team/smoke-lite:1.2: the registry answers 404: build it"),
        ],
    ),
    (
        {
            KEYS: {"data": {"access_key": "a2V5"}},
            QUEUE: {"status": {"state": "Closed"}},
            "/api/v1/nodes": {"items": [node({}, nvidia_com__gpu="1"), node({}, huawei_com__npu="8")]},
        },
        [
            ("fail", "wordmill-s3 has no key secret_key"),
            ("fail", "wordmill is Closed: vcctl queue operate"),
            ("warn", "npu: no node offers huawei.com/Ascend910, they offer huawei.com/npu, nvidia.com/gpu: .*resource"),
        ],
    ),
    (
        {
            KEYS: 403,
            "/api/v1/nodes": {"items": [node({"accelerator-type": "card"}, huawei_com__Ascend910="8")]},
            "/v2/team/report/manifests/1.2": 401,
        },
        [
            ("warn", "wordmill-s3: you may not read it"),
            ("warn", "cuda: no node offers nvidia.com/gpu, they offer huawei.com/Ascend910"),
            ("warn", "npu: 1 nodes offer huawei.com/Ascend910, none has the labels .*spec.accelerators.npu.nodes"),
            ("warn", "team/report:1.2: the registry wants a login"),
        ],
    ),
]


@pytest.mark.parametrize(("answers", "expected"), WRONG)
def test_what_is_wrong_is_a_line_with_what_to_do(
    site: SiteServer, capsys: pytest.CaptureFixture[str], answers: dict, expected: list[tuple[str, str]]
) -> None:
    site.answers |= answers
    code, lines = examined(capsys)
    found = [line for line in lines[:-1] if not line.startswith("ok")]
    for state, message in expected:
        assert len([line for line in found if line.startswith(state) and re.search(message, line)]) == 1, message
    assert len(found) == len(expected)
    assert code == (1 if "fail" in dict(expected) else 0)


def test_stages_that_fit_on_no_node_are_named_with_what_to_set(
    site: SiteServer, capsys: pytest.CaptureFixture[str]
) -> None:
    site.answers["/api/v1/nodes"]["items"] = [node({}, cpu="1500m", memory="8Gi")]
    code, lines = examined(capsys)
    found = [line.split(maxsplit=2) for line in lines[:-1] if line.split()[1] == "sizes"]
    assert [(state, text.split(" asks for")[0]) for state, _, text in found] == [
        ("fail", "shard"), ("fail", "evaluate"), ("warn", "train cpu")
    ]  # fmt: skip
    assert found[0][2] == (
        "shard asks for 2 CPUs and 1Gi, the largest node has 1500m and 8Gi for pods, so it would wait for ever: "
        "set spec.sizes.preset, or spec.sizes.changed, in values.yaml"
    )
    assert code == 1


def test_a_profile_of_more_devices_than_a_node_has_is_named(
    site: SiteServer, capsys: pytest.CaptureFixture[str]
) -> None:
    site.answers["/api/v1/nodes"]["items"][2:] = [
        node({"accelerator-type": "module-910b-8"}, huawei_com__Ascend910="4")
    ]
    code, lines = examined(capsys)
    text = "takes 8 huawei.com/Ascend910 of a node, the most that one has is 4: choose another profile"
    assert [line.split(maxsplit=2) for line in lines[:-1] if not line.startswith("ok")] == [
        ["warn", "sizes", f"train {profile} {text}"] for profile in ("ascend-8p", "ascend-4x8")
    ]
    assert code == 0


def test_images_without_a_registry_are_those_that_nodes_have_been_given(
    site: SiteServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As on kind, whose nodes name what was loaded as if it came from Docker's own registry."""
    monkeypatch.setenv("WORDMILL_REGISTRY", "wordmill")
    given = [name for name in NAMES if name not in ("shard", "gate", "train-cann")]
    site.answers["/api/v1/nodes"]["items"][1]["status"]["images"] = [
        {"names": [f"docker.io/wordmill/{name}:1.2"], "sizeBytes": 1} for name in given
    ]
    code, lines = examined(capsys)
    (told,) = [line for line in lines[:-1] if not line.startswith("ok")]
    lacking = "wordmill/shard:1.2, wordmill/gate:1.2, wordmill/train-cann:1.2 (of some recipes)"
    assert re.match(f"fail  image .*no node is known to have {re.escape(lacking)}: load them into the nodes, or", told)
    assert len([line for line in lines if line.endswith(": is on a node")]) == len(given)
    assert code == 1


def test_settings_that_differ_from_the_values_are_named(site: SiteServer, capsys: pytest.CaptureFixture[str]) -> None:
    site.answers[SETTINGS]["data"]["bucket"] = "other"
    _, lines = examined(capsys)
    (line,) = [line for line in lines[:-1] if not line.startswith("ok")]
    assert re.match("fail .*wordmill-settings: bucket is 'other', values.yaml says 'bucket-.*apply the manifests", line)


@pytest.mark.parametrize(
    ("version", "state", "message"),
    [
        ("2.16.1", "warn", "server 2.16.1, kfp 2.17.3: pipelines go without securityContext"),
        ("1.8.5", "fail", "pin kfp==1.8"),
        ("2.17.9", "ok", "server 2.17.9"),
        ("2.18.1", "ok", "multi-user, server 2.18.1"),
        ("", "warn", "server of no version"),
    ],
)
def test_servers_version_is_compared_with_kfps(kfp: KfpServer, version: str, state: str, message: str) -> None:
    kfp.version = version
    (finding,) = doctor_services.kubeflow()
    assert finding.state == state
    assert message in finding.text


def test_missing_rights_are_named(site: SiteServer, capsys: pytest.CaptureFixture[str]) -> None:
    site.denied = {("create", "workflowtaskresults"), ("get", "pods/log"), ("watch", "jobs"), ("list", "jobs")}
    _, lines = examined(capsys)
    found = [line.split(maxsplit=2) for line in lines[:-1] if not line.startswith("ok")]
    assert [(state, text.partition(":")[0]) for state, _, text in found] == [
        ("fail", "wordmill-stage may not create workflowtaskresults.argoproj.io"),
        ("fail", "wordmill-stage may not get pods/log"),
        ("fail", "wordmill-stage may not list, watch jobs.batch"),
        ("warn", "wordmill-stage may not list, watch jobs.batch.volcano.sh"),
    ]


def test_who_may_not_ask_in_the_accounts_name_is_told(site: SiteServer, capsys: pytest.CaptureFixture[str]) -> None:
    site.impersonation = False
    code, lines = examined(capsys)
    assert code == 0
    assert [line for line in lines if line.startswith("warn") and "ask an administrator" in line]


def test_keys_that_s3_refuses_are_named(
    site: SiteServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")  # those of the cluster's secret are wrong
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    code, lines = examined(capsys)
    assert code == 1
    assert [line for line in lines if line.startswith("fail") and "check AWS_ACCESS_KEY_ID" in line]
