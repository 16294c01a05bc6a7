"""What is done to containers, against a Docker that is made up; test_container_runs.py has a real one."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from docker.errors import APIError, ImageNotFound
from kfp import dsl

from pipelines.images.building import key_of
from pipelines.images.references import KEY
from pipelines.local import containers


class Container:
    """A container that prints some bytes and ends with a code."""

    def __init__(self, did: list[str], code: int = 0, wrong: BaseException | None = None, oom: bool = False) -> None:
        self.did, self.code, self.wrong = did, code, wrong
        self.attrs = {"State": {"OOMKilled": oom}}

    def attach(self, *, stream: bool, logs: bool) -> Iterator[bytes]:
        assert stream
        assert logs
        self.did.append("attach")
        return self.output()

    def output(self) -> Iterator[bytes]:
        yield "naïve".encode()[:3]  # in the middle of a letter
        if isinstance(self.wrong, KeyboardInterrupt):
            raise self.wrong
        yield "naïve\n".encode()[3:]

    def start(self) -> None:
        self.did.append("start")
        if isinstance(self.wrong, APIError):
            raise self.wrong

    def wait(self) -> dict[str, int]:
        self.did.append("wait")
        return {"StatusCode": self.code}

    def reload(self) -> None:
        self.did.append("reload")

    def remove(self, *, force: bool) -> None:
        assert force
        self.did.append("remove")


class Docker:
    """A daemon with some images, by their keys, and with what a killed run has left."""

    def __init__(self, images: dict[str, str], left: list[Container]) -> None:
        self.built, self.left = images, left
        self.images = self.containers = self

    def get(self, name: str) -> Any:
        if name not in self.built:
            raise ImageNotFound("404", explanation=f"No such image: {name}")
        return SimpleNamespace(labels={KEY: self.built[name]})

    def list(self, *, all: bool, filters: dict[str, str]) -> list[Container]:
        assert all
        assert filters["label"].startswith("wordmill.state=/")
        return self.left


def run(container: Container) -> int:
    def create(image: str, command: list[str], **settings: Any) -> Container:
        assert "auto_remove" not in settings
        container.did.append("create")
        return container

    client: Any = SimpleNamespace(containers=SimpleNamespace(create=create))
    return containers.run_container(client, "wordmill/report:dev", ["sh"], {}, network_mode="host")


@pytest.mark.parametrize("code", [0, 7, 137])
def test_a_container_is_watched_before_it_starts_asked_for_its_code_and_removed(
    code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    did: list[str] = []
    assert run(Container(did, code)) == code
    assert did == ["create", "attach", "start", "wait", "reload", "remove"]
    assert capsys.readouterr().out == "naïve\n"


def test_a_folder_with_a_colon_in_its_path_is_mounted_too() -> None:
    told: dict[str, Any] = {}

    def create(image: str, command: list[str], **settings: Any) -> Container:
        told.update(settings)
        return Container([])

    client: Any = SimpleNamespace(containers=SimpleNamespace(create=create))
    volumes = {path: {"bind": path, "mode": "rw,z"} for path in ("/my wörd (2)/tasks", "/a:b/tasks")}
    cache = containers.Mount("/cache", "/cache", type="bind")
    assert containers.run_container(client, "data", ["sh"], volumes, mounts=[cache]) == 0
    assert told["volumes"] == {"/my wörd (2)/tasks": {"bind": "/my wörd (2)/tasks", "mode": "rw,z"}}
    assert [(mount["Source"], mount["Target"]) for mount in told["mounts"]] == [
        ("/cache", "/cache"), ("/a:b/tasks", "/a:b/tasks")
    ]  # fmt: skip


def test_a_container_that_ran_out_of_memory_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(Container([], 137, oom=True)) == 137
    assert capsys.readouterr().out == "naïve\nerror: it was killed for want of memory\n"


def test_a_container_that_cannot_start_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    did: list[str] = []
    assert run(Container(did, wrong=APIError("400", explanation="argument list too long"))) == 125
    assert did == ["create", "attach", "start", "remove"]
    assert capsys.readouterr().out == "error: wordmill/report:dev cannot start: argument list too long\n"


def test_ctrl_c_leaves_no_container() -> None:
    did: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        run(Container(did, wrong=KeyboardInterrupt()))
    assert did == ["create", "attach", "start", "remove"]


@dsl.component(base_image="wordmill/report:dev", install_kfp_package=False)
def nothing() -> str:
    return ""


@dsl.pipeline(name="short")
def short() -> None:
    nothing()


def made_ready(docker: Docker, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(containers.docker, "from_env", lambda: docker)
    monkeypatch.setattr(containers.docker_task_handler, "run_docker_container", None)
    monkeypatch.setenv("WORDMILL_CACHE", str(folder / "cache"))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "word")
    monkeypatch.setenv("SHELL_HISTORY", "private")
    return containers.runner(short, folder, folder / "tasks").container_run_args


def test_stages_get_the_way_to_the_services_and_no_more_rights_than_they_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = Container([])
    arguments = made_ready(Docker({"wordmill/report:dev": key_of("report")}, [left]), tmp_path, monkeypatch)
    assert left.did == ["remove"]
    assert "AWS_SECRET_ACCESS_KEY" in arguments["environment"]
    assert "SHELL_HISTORY" not in arguments["environment"]
    assert not arguments["user"].startswith("0:")
    assert (arguments["cap_drop"], arguments["security_opt"]) == (["ALL"], ["no-new-privileges"])
    assert [mount["Source"] for mount in arguments["mounts"]] == [str(tmp_path / "cache")]
    assert containers.docker_task_handler.run_docker_container is containers.run_container


@pytest.mark.parametrize(
    ("images", "words"),
    [
        ({}, "No such image: wordmill/report:dev: make images"),
        ({"wordmill/report:dev": "0" * 40}, "wordmill/report:dev was built of other code than this: make images"),
    ],
)
def test_no_run_begins_without_its_images_or_with_older_ones(
    images: dict[str, str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RuntimeError, match=words):
        made_ready(Docker(images, []), tmp_path, monkeypatch)
    assert list(tmp_path.iterdir()) == []
