"""Docker's part: an image for each environment, and on it a thin one for each stage with that stage's files alone."""

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from pipelines.images.references import ENVIRONMENTS, KEY, NAMES, registry, split_name, tagged
from pipelines.images.rooms import held
from pipelines.places import ROOT, checkout

ANYWHERE = ("data", "pytorch", "mindspore")  # the others need CANN's image as base, or MindSpore Lite's address
BASE = "wordmill.base"  # the label with the id of the environment's image that a stage's stands on
SAME_TIME = 946_684_800  # s, of every file: only what a file holds makes another layer
RECIPES = ("images/Dockerfile", "images/stage/Dockerfile", "requirements/constraints.txt", "requirements/control.txt")
REQUIREMENTS = {"pytorch": "torch", "lite": "torch", "mindspore": "mindspore", "cann": "cann"}  # beside control


def stages_of(environment: str) -> list[str]:
    """Return the names of the images that stand on an environment's."""
    if environment not in ENVIRONMENTS:
        raise ValueError(f"image environment '{environment}': expected one of {', '.join(ENVIRONMENTS)}")
    return [name for name in NAMES if split_name(name)[1] == environment]


def key_of(name: str) -> str:
    """Return the sha256 of all that a stage's image is built of, by which a stale one is known."""
    stage, environment = split_name(name)
    own = [f"requirements/{REQUIREMENTS[environment]}.txt"] if environment in REQUIREMENTS else []
    digest = hashlib.sha256()
    for path in [*(checkout() / recipe for recipe in (*RECIPES, *own)), *held(stage, environment)]:
        digest.update(f"{path.relative_to(ROOT)}\0{_sha256(path)}\0".encode())
    return digest.hexdigest()


@cache
def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def build_environment(environment: str, base: str, options: list[str]) -> str:
    """Build the image that an environment's stages stand on; return its reference."""
    reference = f"{registry()}/environment-{environment}:{os.environ.get('WORDMILL_TAG', 'dev')}"
    words = ["--build-arg", f"BASE={base}"] if base else []
    docker("build", "--file", "images/Dockerfile", "--target", environment, "--tag", reference, *words, *options, ".")
    return reference


def build_stage(name: str, base: str) -> bool:
    """Build a stage's image on its environment's, unless it is here as it would be; tell whether it was built."""
    stage, environment = split_name(name)
    wanted, files = {KEY: key_of(name), BASE: inspected(base).get("Id", "")}, held(stage, environment)
    labels = inspected(tagged(name)).get("Config", {}).get("Labels") or {}
    if wanted.items() <= labels.items():
        return False
    with tempfile.TemporaryDirectory() as folder:
        copy_rooms(files, Path(folder))
        told = wanted | {"wordmill.stage": stage, "wordmill.environment": environment}
        words = [word for label, value in told.items() for word in ("--label", f"{label}={value}")]
        arguments = {"BASE": base, "STAGE": stage, "COMMIT": commit_of(files)}
        words += [word for key, value in arguments.items() for word in ("--build-arg", f"{key}={value}")]
        docker("build", "--file", "images/stage/Dockerfile", "--tag", tagged(name), *words, folder)
    return True


def copy_rooms(files: Iterable[Path], folder: Path) -> None:
    """Copy files of this project below a folder, all with one time."""
    for path in files:
        copy = folder / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
        copy.chmod(0o644)
        os.utime(copy, (SAME_TIME, SAME_TIME))


def commit_of(files: Iterable[Path]) -> str:
    """Return the commit that last changed one of these files, `-dirty` behind it where one is changed since."""
    names = [str(path.relative_to(ROOT)) for path in files]

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words, "--", *names], cwd=ROOT, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    commit = git("log", "-1", "--format=%H") or "unknown"
    return f"{commit}-dirty" if git("status", "--porcelain") else commit


def docker(*words: str) -> None:
    """Run Docker's command line; RuntimeError where it fails. Images are built by BuildKit, as secrets need it."""
    try:
        done = subprocess.run(
            ["docker", *words], cwd=checkout(), env=os.environ | {"DOCKER_BUILDKIT": "1"}, check=False
        )
    except FileNotFoundError:
        raise RuntimeError("there is no program `docker` on PATH") from None
    if done.returncode:
        raise RuntimeError(f"`docker {words[0]}` ended with code {done.returncode}")


def inspected(reference: str) -> dict[str, Any]:
    """Return what Docker knows of an image, nothing where it is not here."""
    try:
        done = subprocess.run(["docker", "image", "inspect", reference], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise RuntimeError("there is no program `docker` on PATH") from None
    found: list[dict[str, Any]] = json.loads(done.stdout or "[]")
    return found[0] if found else {}
