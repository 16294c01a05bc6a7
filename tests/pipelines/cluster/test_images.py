"""References, and what `make images` and `make push` tell a Docker whose place a program of this test takes."""

import json
import os
import sys
from pathlib import Path

import pytest
import yaml

from pipelines.cli import main
from pipelines.cluster import images, publish, site
from pipelines.cluster.images import ENVIRONMENTS, image
from wordmill.store.artifacts import git_commit

DIGEST = f"sha256:{'a' * 64}"
# Keeps what it is told in a file beside it; images.json there says which images there are, and of what.
# A path with a space cannot stand behind #!, so the shell starts it.
DOCKER = f"""#!/bin/sh
'''exec' "{sys.executable}" "$0" "$@"
'''
import json, pathlib, sys
here, words = pathlib.Path(__file__).parent, sys.argv[1:]
with (here / "told").open("a") as told:
    print(json.dumps(words), file=told)
if words[:2] == ["image", "inspect"]:
    name = words[2].split("/")[-1].split("-")[0]
    built = json.loads((here / "images.json").read_text()).get(name)
    if built is None:
        sys.exit(1)
    registry = words[2].rpartition(":")[0]
    print(json.dumps([{{"Size": 2500000000, "Config": {{"Labels": {{"wordmill.contents": built}}}},
                        "RepoDigests": ["elsewhere/x@sha256:0", f"{{registry}}@{DIGEST}"]}}]))
sys.exit(1 if words[-1] == "--wrong" else 0)
"""


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the program, first on PATH; the lock file and the site's values are there too."""
    program = tmp_path / "docker"
    program.write_text(DOCKER, encoding="utf-8")
    program.chmod(0o755)
    (tmp_path / "images.json").write_text("{}", encoding="utf-8")
    (tmp_path / "values.yaml").write_text(site.VALUES.read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    for variable in ("WORDMILL_TAG", "WORDMILL_REGISTRY"):
        monkeypatch.delenv(variable, raising=False)
    for module, name, file in ((images, "LOCK", "images.lock.yaml"), (publish, "LOCK", "images.lock.yaml"),
                               (publish, "VALUES", "values.yaml"), (publish, "ROOT", "")):  # fmt: skip
        monkeypatch.setattr(module, name, tmp_path / file)
    values = tmp_path / "values.yaml"
    monkeypatch.setattr(images, "load_site", lambda: site.load_site(values))
    monkeypatch.setattr(publish, "load_site", lambda: site.load_site(values))
    return tmp_path


def told(folder: Path) -> list[list[str]]:
    path = folder / "told"
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    return [line for line in lines if line[0] != "image"]


def ended(arguments: list[str]) -> object:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    return end.value.code


def test_an_image_has_a_tag_until_a_digest_is_known_and_a_tag_again_where_it_is_asked_for(
    docker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert image("data") == "wordmill/data-python:dev"
    (docker / "images.lock.yaml").write_text(f"data: {DIGEST}\n", encoding="utf-8")
    assert image("data") == f"wordmill/data-python@{DIGEST}"
    with pytest.raises(ValueError, match=r"images.lock.yaml: no image 'cann', it has data: build that one too"):
        image("cann")
    monkeypatch.setenv("WORDMILL_REGISTRY", "registry.example.com/team")
    assert image("data") == f"registry.example.com/team/data-python@{DIGEST}"
    monkeypatch.setenv("WORDMILL_TAG", "1.2")
    assert [image(name) for name in ENVIRONMENTS] == [
        f"registry.example.com/team/{name}-python:1.2" for name in ENVIRONMENTS
    ]
    with pytest.raises(ValueError, match="image environment 'torch': expected one of data, pytorch"):
        image("torch")


def test_docker_is_given_the_folders_that_images_copy_and_no_others() -> None:
    ignored = (images.ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    files = (path.read_text(encoding="utf-8") for path in (images.ROOT / "images").rglob("Dockerfile"))
    copies = [line.split()[1:-1] for text in files for line in text.splitlines() if line.startswith("COPY ")]
    folders = {name.split("/")[0] for names in copies for name in names}
    assert "*" in ignored
    assert {line[1:] for line in ignored if line.startswith("!")} == folders


def test_images_are_built_of_this_commit_with_the_options_that_the_site_needs(
    docker: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (docker / "images.json").write_text('{"data": "", "cann": ""}', encoding="utf-8")
    assert ended(["images", "data", "cann", "--base", "own/base:1", "--options", "--secret 'id=ca.pem,src=a b'"]) == 0
    for name, words in zip(("data", "cann"), told(docker), strict=True):
        assert words == ["build", "--file", "images/Dockerfile", "--tag", f"wordmill/{name}-python:dev",
                         "--label", f"wordmill.contents={images.contents()}",
                         "--build-arg", f"ENVIRONMENT={name}", "--build-arg", f"COMMIT={git_commit()}",
                         "--build-arg", "BASE=own/base:1", "--secret", "id=ca.pem,src=a b", "."]  # fmt: skip
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("wordmill/data-python:dev  2.50 GB  ")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["images", "torch"], "error: image environment 'torch': expected one of data, pytorch, mindspore, cann, lite"),
        (["images", "cann"], "error: image environment 'cann': give one of CANN's images as base"),
        (["images", "--options=--wrong ."], "error: `docker build` ended with code 1"),
        (["push"], "error: registry 'wordmill' names no host: give one"),
        (["push", "--registry", "localhost"], "error: wordmill/data-python:dev is not here: make images"),
    ],
)
def test_what_cannot_be_built_or_pushed_ends_in_one_line(docker: Path, arguments: list[str], words: str) -> None:
    if "--wrong" in str(arguments):
        (docker / "docker").write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
    assert str(ended(arguments)).startswith(words)


def test_a_push_pins_what_pipelines_and_manifests_use_and_keeps_the_rest_of_the_values(
    docker: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    built = images.contents()
    (docker / "images.json").write_text(json.dumps({"data": built, "pytorch": built}), encoding="utf-8")
    before = (docker / "values.yaml").read_text(encoding="utf-8").splitlines()
    assert ended(["push", "--registry", "registry.example.com:5000/team"]) == 0
    assert told(docker)[:2] == [
        ["tag", "wordmill/data-python:dev", f"registry.example.com:5000/team/data-python:{git_commit()}"],
        ["push", f"registry.example.com:5000/team/data-python:{git_commit()}"],
    ]
    assert yaml.safe_load((docker / "images.lock.yaml").read_text(encoding="utf-8")) == {
        "data": DIGEST,
        "pytorch": DIGEST,
    }
    assert image("pytorch") == f"registry.example.com:5000/team/pytorch-python@{DIGEST}"
    after = (docker / "values.yaml").read_text(encoding="utf-8").splitlines()
    changed = [new.split("#")[0].strip() for old, new in zip(before, after, strict=True) if old != new]
    assert changed == ["registry: registry.example.com:5000/team", f"services: data-python@{DIGEST}"]
    assert [line.count("#") for line in after] == [line.count("#") for line in before]
    assert capsys.readouterr().out.splitlines()[-1].endswith("written; not built: mindspore, cann, lite")


def test_an_image_of_other_code_is_not_pushed(docker: Path) -> None:
    (docker / "images.json").write_text(json.dumps({"data": images.contents(), "pytorch": "0" * 64}), encoding="utf-8")
    code = ended(["push", "--registry", "registry.example.com"])
    assert str(code).startswith("error: wordmill/pytorch-python:dev was built of other code than this: make images")
    assert told(docker) == []
    assert not (docker / "images.lock.yaml").exists()
