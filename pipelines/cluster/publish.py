"""`python -m pipelines images` and `push`: the images built here, then in the site's registry, pinned by digest."""

import argparse
import json
import os
import re
import shlex
import subprocess
import time
from typing import TYPE_CHECKING, Any

import yaml

from pipelines.cluster.images import CONTENTS, ENVIRONMENTS, LOCK, ROOT, contents, tagged
from pipelines.cluster.site import VALUES, load_site
from wordmill.store.artifacts import git_commit
from wordmill.store.files import write_atomically

if TYPE_CHECKING:
    Verbs = argparse._SubParsersAction[argparse.ArgumentParser]

ANYWHERE = ("data", "pytorch", "mindspore")  # the others need CANN's image as base, or MindSpore Lite's address


def add_image_verbs(verbs: "Verbs") -> None:
    """Add both verbs to the command line."""
    builds = verbs.add_parser("images", help="build the stages' images with Docker")
    builds.add_argument("environments", nargs="*", default=ANYWHERE, help=f"{', '.join(ANYWHERE)} by default")
    builds.add_argument("--base", default="", help="the image to build on instead of the Dockerfile's; cann needs one")
    builds.add_argument("--options", default="", help="more words for `docker build`, such as secrets and arguments")
    builds.set_defaults(verb=_images)
    pushes = verbs.add_parser("push", help="push the images, write their digests for compiling and for the manifests")
    pushes.add_argument("--registry", default="", help="where to, instead of the site's; it becomes the site's")
    pushes.set_defaults(verb=_push)


def _images(options: argparse.Namespace) -> int:
    for environment in options.environments:
        if environment == "cann" and not options.base:
            raise ValueError("image environment 'cann': give one of CANN's images as base, with Python 3.11 and for "
                             "your chip, such as quay.io/ascend/cann:9.0.0-910b-ubuntu22.04-py3.11")  # fmt: skip
        started = time.monotonic()
        reference = build_image(environment, options.base, shlex.split(options.options))
        size = _inspect(reference)["Size"]
        print(f"{reference}  {size / 1e9:.2f} GB  {time.monotonic() - started:.0f} s", flush=True)
    return 0


def build_image(environment: str, base: str, options: list[str]) -> str:
    """Build the image of an environment of this tree; return its reference."""
    reference, commit = tagged(environment), git_commit()
    arguments = {"ENVIRONMENT": environment, "COMMIT": commit, **({"BASE": base} if base else {})}
    words = [word for name, value in arguments.items() for word in ("--build-arg", f"{name}={value}")]
    label = f"{CONTENTS}={contents()}"
    docker("build", "--file", "images/Dockerfile", "--tag", reference, "--label", label, *words, *options, ".")
    return reference


def _push(options: argparse.Namespace) -> int:
    registry = options.registry or load_site().registry
    host = registry.partition("/")[0]
    if not set(".:") & set(host) and host != "localhost":
        raise ValueError(f"registry '{registry}' names no host: give one, as in REGISTRY=registry.example.com/team")
    built = {environment: facts for environment in ENVIRONMENTS if (facts := _inspect(tagged(environment)))}
    for environment, facts in built.items():
        if facts["Config"]["Labels"].get(CONTENTS) != contents():
            raise ValueError(f"{tagged(environment)} was built of other code than this: make images")
    if "data" not in built:
        raise ValueError(f"{tagged('data')} is not here: make images")
    digests = {environment: push(environment, registry, git_commit()) for environment in built}
    write_lock(digests)
    write_values(registry, digests["data"])
    left = [environment for environment in ENVIRONMENTS if environment not in digests]
    print(f"{LOCK.name} and {VALUES.relative_to(ROOT)} written" + (f"; not built: {', '.join(left)}" if left else ""))
    return 0


def push(environment: str, registry: str, tag: str) -> str:
    """Push an image that was built here and return the digest by which the registry knows it."""
    name = f"{registry}/{environment}-python"
    docker("tag", tagged(environment), f"{name}:{tag}")
    docker("push", f"{name}:{tag}")
    known: list[str] = _inspect(f"{name}:{tag}")["RepoDigests"]  # of all registries that it was pushed to
    digest = next(one.removeprefix(f"{name}@") for one in known if one.startswith(f"{name}@"))
    print(f"{name}@{digest}", flush=True)
    return digest


def write_lock(digests: dict[str, str]) -> None:
    """Write the digests by which pipelines name their images from now on."""
    head = "# What `make push` put into the registry: the images of the pipelines, by environment.\n"
    write_atomically(LOCK, head + yaml.safe_dump(digests, sort_keys=False))


def write_values(registry: str, data: str) -> None:
    """Write the registry and the services' image into the site's values, and leave all else there as it is."""
    text = VALUES.read_text(encoding="utf-8")
    for key, value in (("registry", registry), ("services", f"data-python@{data}")):
        text, count = re.subn(rf"^( +{key}: )[^\s#]+", rf"\g<1>{value}", text, flags=re.MULTILINE)
        if count != 1:
            raise ValueError(f"{VALUES.name}: expected one line with '{key}: ...', found {count}")
    write_atomically(VALUES, text)
    load_site()


def docker(*words: str) -> None:
    """Run Docker's command line; RuntimeError where it fails. Images are built by BuildKit, as secrets need it."""
    try:
        done = subprocess.run(["docker", *words], cwd=ROOT, env=os.environ | {"DOCKER_BUILDKIT": "1"}, check=False)
    except FileNotFoundError:
        raise RuntimeError("there is no program `docker` on PATH") from None
    if done.returncode:
        raise RuntimeError(f"`docker {words[0]}` ended with code {done.returncode}")


def _inspect(reference: str) -> dict[str, Any]:
    """Return what Docker knows of an image, nothing where it is not here."""
    done = subprocess.run(["docker", "image", "inspect", reference], capture_output=True, text=True, check=False)
    found: list[dict[str, Any]] = json.loads(done.stdout or "[]")
    return found[0] if found else {}
