"""The package as pip installs it: all files that the code reads, and the keys that a checkout has."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("wordmill", "components", "pipelines")
BUILT_OF = ("pyproject.toml", "setup.py", "README.md", "LICENSE")
BUILD = "import sys, setuptools.build_meta as backend; backend.build_wheel(sys.argv[1])"
ASKED = """
import json
from dataclasses import replace
from components import keys
from pipelines.building import recipe_names, recipe_path
from pipelines.cluster.site import load_site
from pipelines.local.services import STATE
from pipelines.places import CHECKOUT
from wordmill.recipe.loading import load_recipe
recipes = {name: load_recipe(recipe_path(name)) for name in recipe_names()}
found = {name: keys.of_train(replace(recipe.train, protocol="fudan"), recipe.data, "cpu").found()
         for name, recipe in recipes.items()}
found |= {reader: keys.of_shard(reader).found() for reader in keys.READERS}
found |= {kind: [keys.of_export(kind).found(), keys.of_smoke(kind).found()] for kind in ("onnx", "mindir")}
print(json.dumps({"keys": found, "recipes": recipe_names(), "state": str(STATE), "checkout": CHECKOUT is not None,
                  "bucket": load_site().s3.bucket}))
"""


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for package in PACKAGES for path in (folder / package).rglob("*")
            if path.is_file() and path.suffix != ".pyc"}  # fmt: skip


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a wheel puts into site-packages, of a copy of this tree where an earlier build has left a module."""
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site-packages")
    for name in (*PACKAGES, "requirements", "manifests/site"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in BUILT_OF:
        shutil.copyfile(ROOT / name, source / name)
    (source / "build" / "lib" / "wordmill").mkdir(parents=True)
    (source / "build" / "lib" / "wordmill" / "gone.py").touch()
    subprocess.run([sys.executable, "-c", BUILD, str(folder.parent)], cwd=source, capture_output=True, check=True)
    (wheel,) = folder.parent.glob("wordmill-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    wheel.unlink()
    return folder


def ask(packages: Path, home: Path) -> dict[str, Any]:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(packages), "HOME": str(home)}
    done = subprocess.run([sys.executable, "-P", "-c", ASKED], cwd=home, env=environment, stdout=subprocess.PIPE,
                          check=True)  # fmt: skip
    return json.loads(done.stdout)


def test_the_package_has_the_trees_files_and_a_sites_values(unpacked: Path) -> None:
    assert files(unpacked) == files(ROOT) | {"pipelines/site/values.yaml"}
    assert (unpacked / "wordmill-0.1.0.dist-info" / "entry_points.txt").read_text("utf-8").splitlines() == [
        "[console_scripts]", "wordmill = pipelines.cli:main"
    ]  # fmt: skip


def test_keys_are_those_of_a_checkout(unpacked: Path, tmp_path: Path) -> None:
    installed, here = ask(unpacked, tmp_path), ask(ROOT, tmp_path)
    assert installed["keys"] == here["keys"]
    assert installed["keys"]["crnn_r34_ch"]["data"].keys() == {"wordmill/text/charsets/simplified.tsv"}
    assert (installed["checkout"], here["checkout"]) == (False, True)
    assert (installed["recipes"], installed["bucket"]) == (here["recipes"], here["bucket"])
    assert installed["state"] == str(tmp_path / ".local" / "state" / "wordmill")
