import ast
import re
import sys
from pathlib import Path

from wordmill.store.artifacts import ROOT
from wordmill.store.keys import source_files

DOCKERFILE = (ROOT / "images" / "serve" / "Dockerfile").read_text(encoding="utf-8")
NAMES = {"cv2": "opencv-python-headless", "PIL": "pillow", "yaml": "PyYAML", "prometheus_client": "prometheus-client",
         "python_multipart": "python-multipart"}  # fmt: skip
UNSEEN = {"uvicorn", "httptools", "uvloop"}  # the server's own, and what it takes by itself
WITH_FASTAPI = "starlette"
IN_MLFLOW = "mlflow"  # which alone opens a reader in a way that imports it


def requirements() -> dict[str, str]:
    lines = (ROOT / "requirements" / "serve.txt").read_text(encoding="utf-8").splitlines()
    return dict(re.split(r"==|\s+#", line)[:2] for line in lines if "==" in line)


def modules() -> list[Path]:
    return source_files([f"components.serve.{path.stem}" for path in (ROOT / "components" / "serve").glob("[a-z]*.py")]
                        + ["wordmill.inference.packaged.pyfunc"])  # fmt: skip


def test_the_image_has_the_packages_that_the_service_imports_and_no_others() -> None:
    imported = set()
    for path in [*modules(), ROOT / "components" / "serve" / "__main__.py"]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            imported |= {*names, *([node.module or ""] if isinstance(node, ast.ImportFrom) else [])}
    packages = {name.partition(".")[0] for name in imported} - {*sys.stdlib_module_names, "components", "wordmill"}
    assert {NAMES.get(name, name) for name in packages - {WITH_FASTAPI, IN_MLFLOW}} == set(requirements()) - UNSEEN | {
        "uvicorn"
    }


def test_the_images_packages_are_those_of_the_tests() -> None:
    constraints = (ROOT / "requirements" / "constraints.txt").read_text(encoding="utf-8").lower().replace("_", "-")
    pins = {f"{name.lower()}=={version.strip()}" for name, version in requirements().items()}
    assert pins - set(constraints.splitlines()) == set()


def test_the_image_copies_all_that_it_runs_and_runs_as_nobody() -> None:
    copied = [ROOT / source for line in re.findall(r"^COPY (.+)$", DOCKERFILE, re.MULTILINE)
              for source in line.split()[:-1]]  # fmt: skip
    assert [path for path in copied if not path.exists()] == []
    missing = [path for path in modules() if not any(path.is_relative_to(source) for source in copied)]
    assert missing == []
    assert re.search(r"^USER [1-9]\d*:[1-9]\d*$", DOCKERFILE, re.MULTILINE)
    assert re.search(r"^ARG BASE=\S+\nFROM \$\{BASE\}$", DOCKERFILE, re.MULTILINE)
