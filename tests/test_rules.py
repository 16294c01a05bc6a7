"""The design's rules, checked on the code itself."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CODE = [path for folder in ("components", "pipelines", "tools") for path in sorted((ROOT / folder).rglob("*.py"))]
RECOGNITION = ROOT / "components" / "recognition"


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(path: Path) -> set[str]:
    """Return the packages that a file imports anywhere, functions included, and this project's modules in full."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        found |= {name if name.startswith(("components", "pipelines")) else name.split(".")[0] for name in names}
    return found


# Who may import what: package -> the places (prefixes of paths) where it may stand.
ALLOWED = {
    "torch": ("components/recognition/pt/",),
    "torch_npu": ("components/recognition/pt/",),
    "mindspore": ("components/recognition/ms/",),
    "mlflow": ("wordmill/store/tracking.py", "wordmill/inference/package.py"),
    "boto3": ("wordmill/store/storage.py",),
    "urllib3": ("wordmill/sources/remote.py", "components/train/gang/api.py", "pipelines/"),
    "kfp": ("components/", "pipelines/"),
    "cv2": ("components/recognition/", "tools/"),
    "onnxruntime": (
        "wordmill/inference/onnx_runtime.py",
        "wordmill/inference/quantise.py",
    ),
    "onnx": ("components/recognition/pt/",),
    "jinja2": ("components/report/",),
    "kubernetes": ("components/train/", "pipelines/"),
    "kfp_server_api": ("pipelines/",),
    "cronsim": ("pipelines/cluster/cron.py",),
}


@pytest.mark.parametrize("package", ALLOWED)
def test_a_package_is_imported_only_where_it_belongs(package: str) -> None:
    strays = [relative(p) for p in CODE if package in imports(p) and not relative(p).startswith(ALLOWED[package])]
    assert strays == []


def test_among_components_only_component_files_import_kfp() -> None:
    users = {relative(path) for path in CODE if "kfp" in imports(path) and relative(path).startswith("components/")}
    assert users
    assert {Path(user).name for user in users} == {"component.py"}


def test_pipelines_import_no_framework_and_no_stage_program() -> None:
    for path in sorted((ROOT / "pipelines").rglob("*.py")):
        reached = imports(path)
        assert not reached & {"torch", "mindspore", "cv2", "lmdb"}, relative(path)
        assert not [name for name in reached if name.endswith(".stage")], relative(path)


def test_components_do_not_reach_back_into_pipelines_or_sideways_into_each_other() -> None:
    for path in sorted((ROOT / "components").rglob("*.py")):
        own = f"components.{path.relative_to(ROOT / 'components').parts[0]}"
        for name in imports(path):
            assert not name.startswith("pipelines"), relative(path)
            if name.startswith("components."):
                assert name.startswith((own, "components.recognition")), f"{relative(path)} imports {name}"


def test_twins_have_the_same_files_and_public_functions() -> None:
    def surface(folder: str) -> dict[str, set[str]]:
        return {
            path.name: {
                node.name
                for node in ast.parse(path.read_text(encoding="utf-8")).body
                if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
            }
            for path in sorted((RECOGNITION / folder).glob("*.py"))
            if path.name in {"model.py", "weights.py", "predict.py"}
        }

    torch_side, mindspore_side = surface("pt"), surface("ms")
    assert set(torch_side) == {"model.py", "weights.py", "predict.py"}
    assert torch_side == mindspore_side


def test_files_and_functions_stay_small() -> None:
    for path in CODE:
        source = path.read_text(encoding="utf-8")
        assert source.count("\n") <= 300, f"{relative(path)} is too long"
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                assert length < 60, f"{relative(path)}:{node.lineno} {node.name} has {length} lines"


def test_every_stage_has_a_contract_a_program_and_an_entry_point() -> None:
    stages = sorted(path for path in (ROOT / "components").iterdir() if path.is_dir() and path.name[0] != "_")
    names = {path.name for path in stages} - {"recognition", "serve"}
    assert names == {"fresh", "fetch", "shard", "train", "evaluate", "gate", "export", "smoke", "report"}
    for name in names:
        for file in ("component.py", "stage.py", "__main__.py"):
            assert (ROOT / "components" / name / file).is_file(), f"components/{name}/{file}"


def test_recipes_are_short() -> None:
    for path in sorted((ROOT / "pipelines" / "recipes").glob("*.yaml")):
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 30, relative(path)


def test_nothing_unfinished_or_unchecked_is_left() -> None:
    pattern = re.compile(r"\b(TODO|FIXME|XXX|NotImplementedError)\b|except( Exception)?:\s*pass|type: ignore(?!\[)")
    for path in CODE:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            assert not pattern.search(line), f"{relative(path)}:{number}: {line.strip()}"


def test_nothing_reads_pickles() -> None:
    for path in CODE:
        assert not imports(path) & {"pickle", "dill", "cloudpickle"}, relative(path)
