"""References, and what `make images` and `make push` tell a Docker whose place a program of this test takes."""

import json
import os
import sys
from pathlib import Path

import pytest
import yaml

from pipelines.cli import main
from pipelines.cluster import site
from pipelines.images import bills, publish, references
from pipelines.images.building import commit_of, key_of
from pipelines.images.references import KEY, NAMES, image
from pipelines.images.rooms import held
from pipelines.places import ROOT

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
    name, tag = words[2].split("/")[-1].split(":")
    built = json.loads((here / "images.json").read_text()).get(name)
    if built is None:
        sys.exit(1)
    pushed = (here / "told").read_text() if (here / "told").exists() else ""
    known = [] if "push" not in pushed else [words[2].rpartition(":")[0], "registry.example.com:5000/team/" + name]
    print(json.dumps([{{"Size": 2500000000, "Id": "sha256:b", "Config": {{"Labels": built}},
                        "RepoDigests": ["elsewhere/x@sha256:0", *(f"{{place}}@{DIGEST}" for place in known)]}}]))
if words[0] == "run":
    found = {{"generic": [["python", "3.11.7"]], "pypi": [["numpy", "1.26.4"]], "deb": [["libc6", "2.36-9"]]}}
    print(json.dumps(found))
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
    for module, name, file in ((references, "LOCK", "images.lock.yaml"), (publish, "LOCK", "images.lock.yaml"),
                               (bills, "LOCK", "images.lock.yaml"),
                               (publish, "VALUES", "values.yaml")):  # fmt: skip
        monkeypatch.setattr(module, name, tmp_path / file)
    values = tmp_path / "values.yaml"
    monkeypatch.setattr(references, "load_site", lambda: site.load_site(values))
    monkeypatch.setattr(publish, "load_site", lambda: site.load_site(values))
    return tmp_path


def built(folder: Path, *names: str) -> None:
    """Let Docker have these images as they would be built now."""
    labels = {name: {KEY: key_of(name), "wordmill.base": "sha256:b"} for name in names if name in NAMES}
    environments = {name: {} for name in names if name not in NAMES}
    (folder / "images.json").write_text(json.dumps(labels | environments), encoding="utf-8")


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
    assert image("fetch", "data") == "wordmill/fetch:dev"
    (docker / "images.lock.yaml").write_text(f"fetch: {{digest: '{DIGEST}', key: k}}\n", encoding="utf-8")
    assert image("fetch", "data") == f"wordmill/fetch@{DIGEST}"
    with pytest.raises(ValueError, match=r"images.lock.yaml: no image 'train-cann', it has fetch: build that one too"):
        image("train", "cann")
    monkeypatch.setenv("WORDMILL_REGISTRY", "registry.example.com/team")
    assert image("fetch", "data") == f"registry.example.com/team/fetch@{DIGEST}"
    monkeypatch.setenv("WORDMILL_TAG", "1.2")
    assert image("evaluate", "mindspore") == "registry.example.com/team/evaluate-mindspore:1.2"
    with pytest.raises(ValueError, match="image of stage 'train' with environment 'data': expected one of pytorch"):
        image("train", "data")


def test_docker_is_given_the_folders_that_images_copy_and_no_others() -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    folder = ROOT / "images"
    files = (path.read_text(encoding="utf-8") for path in (folder / "Dockerfile", folder / "serve" / "Dockerfile"))
    copies = [line.split()[1:-1] for text in files for line in text.splitlines() if line.startswith("COPY ")]
    folders = {name.split("/")[0] for names in copies for name in names}
    assert "*" in ignored
    assert {line[1:] for line in ignored if line.startswith("!")} == folders


def test_an_environments_image_is_built_and_on_it_one_for_each_of_its_stages(
    docker: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    built(docker, "environment-cann")
    assert ended(["images", "cann", "--base", "own/base:1", "--options", "--secret 'id=ca.pem,src=a b'"]) == 0
    environment, *stages = told(docker)
    assert environment == ["build", "--file", "images/Dockerfile", "--target", "cann", "--tag",
                           "wordmill/environment-cann:dev", "--build-arg", "BASE=own/base:1",
                           "--secret", "id=ca.pem,src=a b", "."]  # fmt: skip
    assert [words[4] for words in stages] == [f"wordmill/{stage}-cann:dev" for stage in ("train", "evaluate", "export",
                                                                                         "smoke")]  # fmt: skip
    train = stages[0][5:-1]
    commit = commit_of(held("train", "cann"))
    assert train == ["--label", f"wordmill.key={key_of('train-cann')}", "--label", "wordmill.base=sha256:b",
                     "--label", "wordmill.stage=train", "--label", "wordmill.environment=cann",
                     "--build-arg", "BASE=wordmill/environment-cann:dev", "--build-arg", "STAGE=train",
                     "--build-arg", f"COMMIT={commit}"]  # fmt: skip
    assert capsys.readouterr().out.startswith("wordmill/environment-cann:dev  2.50 GB  ")


def test_only_what_has_changed_is_built_again(docker: Path, capsys: pytest.CaptureFixture[str]) -> None:
    built(docker, "environment-pytorch", "train-pytorch", "evaluate-pytorch", "export-pytorch", "smoke-pytorch")
    assert ended(["images", "pytorch"]) == 0
    assert [words[4] for words in told(docker)[1:]] == ["wordmill/gate-pytorch:dev"]
    assert "wordmill/train-pytorch:dev  as it was" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["images", "torch"], "error: image environment 'torch': expected one of data, pytorch, mindspore, cann, lite"),
        (["images", "cann"], "error: image environment 'cann': give one of CANN's images as base"),
        (["images", "data", "--options=--wrong ."], "error: `docker build` ended with code 1"),
        (["push"], "error: registry 'wordmill' names no host: give one"),
        (["push", "--registry", "localhost"], "error: wordmill/report:dev is not here: make images"),
    ],
)
def test_what_cannot_be_built_or_pushed_ends_in_one_line(docker: Path, arguments: list[str], words: str) -> None:
    if "--wrong" in str(arguments):
        (docker / "docker").write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
    assert str(ended(arguments)).startswith(words)


def test_a_push_pins_what_pipelines_and_manifests_use_and_keeps_the_rest_of_the_values(
    docker: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    built(docker, "report", "train-pytorch")
    before = (docker / "values.yaml").read_text(encoding="utf-8").splitlines()
    assert ended(["push", "--registry", "registry.example.com:5000/team"]) == 0
    place = f"registry.example.com:5000/team/train-pytorch:{key_of('train-pytorch')[:12]}"
    assert told(docker)[:2] == [["tag", "wordmill/train-pytorch:dev", place], ["push", place]]
    lock = yaml.safe_load((docker / "images.lock.yaml").read_text(encoding="utf-8"))
    assert lock == {name: {"digest": DIGEST, "key": key_of(name)} for name in ("train-pytorch", "report")}
    assert image("train", "pytorch") == f"registry.example.com:5000/team/train-pytorch@{DIGEST}"
    after = (docker / "values.yaml").read_text(encoding="utf-8").splitlines()
    changed = [new.split("#")[0].strip() for old, new in zip(before, after, strict=True) if old != new]
    assert changed == ["registry: registry.example.com:5000/team", f"services: report@{DIGEST}"]
    assert [line.count("#") for line in after] == [line.count("#") for line in before]
    assert "values.yaml written; not built: fresh, fetch" in capsys.readouterr().out
    bill = json.loads((docker / "images.sbom" / "train-pytorch.cdx.json").read_text(encoding="utf-8"))
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert (bill["metadata"]["component"]["name"], bill["metadata"]["component"]["version"]) == (
        "train-pytorch",
        DIGEST,
    )
    places = {part["purl"] for part in bill["components"] if "purl" in part}
    assert places == {"pkg:generic/python@3.11.7", "pkg:pypi/numpy@1.26.4", "pkg:deb/debian/libc6@2.36-9"}
    files = {part["name"] for part in bill["components"] if part["type"] == "file"}
    assert files == {path.relative_to(ROOT).as_posix() for path in held("train", "pytorch")}
    # Again: both are there.
    (docker / "told").write_text('["push"]\n', encoding="utf-8")
    assert ended(["push"]) == 0
    assert told(docker) == [["push"]]
    assert yaml.safe_load((docker / "images.lock.yaml").read_text(encoding="utf-8")) == lock


def test_an_image_of_other_code_is_not_pushed(docker: Path) -> None:
    built(docker, "report", "fetch")
    images = json.loads((docker / "images.json").read_text(encoding="utf-8"))
    images["fetch"][KEY] = "0" * 64
    (docker / "images.json").write_text(json.dumps(images), encoding="utf-8")
    code = ended(["push", "--registry", "registry.example.com"])
    assert str(code).startswith("error: wordmill/fetch:dev was built of other code than this: make images")
    assert told(docker) == []
    assert not (docker / "images.lock.yaml").exists()
