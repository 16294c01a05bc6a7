"""The look that brings a service to its champion, with a deployment in memory in Kubernetes's place."""

from types import SimpleNamespace
from typing import Any

import pytest
from kubernetes import client

from components.serve.rollout import __main__ as rollout
from wordmill.store import tracking

NAMES = {"WORDMILL_MODEL": "wordmill-crnn@champion", "WORDMILL_DEPLOYMENT": "serve", "WORDMILL_NAMESPACE": "ocr"}


class Apps:
    """One deployment."""

    def __init__(self, annotations: dict[str, str] | None) -> None:
        self.annotations, self.patched = annotations, 0

    def read_namespaced_deployment(self, name: str, namespace: str, _request_timeout: int) -> Any:
        assert (name, namespace) == ("serve", "ocr")
        metadata = SimpleNamespace(annotations=self.annotations)
        return SimpleNamespace(spec=SimpleNamespace(template=SimpleNamespace(metadata=metadata)))

    def patch_namespaced_deployment(self, name: str, namespace: str, change: Any, _request_timeout: int) -> None:
        assert (name, namespace) == ("serve", "ocr")
        self.patched += 1
        self.annotations = (self.annotations or {}) | change["spec"]["template"]["metadata"]["annotations"]


@pytest.fixture
def champion(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The version that the alias points to."""
    held = {"version": "7"}
    for name, value in NAMES.items():
        monkeypatch.setenv(name, value)

    def find_version(name: str, which: str) -> Any:
        assert (name, which) == ("wordmill-crnn", "champion")
        return SimpleNamespace(**held)

    monkeypatch.setattr(tracking, "find_version", find_version)
    monkeypatch.setattr(rollout.config, "load_incluster_config", lambda client_configuration: None)
    return held


@pytest.mark.parametrize("before", [None, {"wordmill/model": "wordmill-crnn@champion", "other": "kept"}])
def test_pods_go_over_when_the_alias_has_moved_and_only_then(
    before: dict[str, str] | None, champion: dict[str, str], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    apps = Apps(before)
    monkeypatch.setattr(rollout.client, "AppsV1Api", lambda api: apps)
    assert [rollout.main(), rollout.main()] == [0, 0]
    assert (apps.patched, apps.annotations) == (1, (before or {}) | {"wordmill/model": "wordmill-crnn/7"})
    champion["version"] = "8"
    assert rollout.main() == 0
    assert (apps.patched, apps.annotations["wordmill/model"]) == (2, "wordmill-crnn/8")
    first = before["wordmill/model"] if before else "nothing"
    assert capsys.readouterr().out.splitlines() == [
        f"serve served {first}, goes over to wordmill-crnn/7",
        "serve serves wordmill-crnn/7: nothing to do",
        "serve served wordmill-crnn/7, goes over to wordmill-crnn/8",
    ]


@pytest.mark.usefixtures("champion")
@pytest.mark.parametrize(
    ("error", "told"),
    [(client.ApiException(403, "Forbidden"), "Kubernetes answers 403 Forbidden"),
     (ValueError("MLflow has\nno model"), "MLflow has no model")],
)  # fmt: skip
def test_what_is_wrong_is_one_line(
    error: Exception, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(api: object) -> None:
        raise error

    monkeypatch.setattr(rollout.client, "AppsV1Api", fails)
    assert rollout.main() == 1
    assert capsys.readouterr().err == f"error: {told}\n"
