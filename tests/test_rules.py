"""The design's rules, checked on the code itself."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HOUSE = ("wordmill", "components", "pipelines")
CODE = [path for folder in (*HOUSE, "tools") for path in sorted((ROOT / folder).rglob("*.py"))]
LIBRARY = [path for path in CODE if path.is_relative_to(ROOT / "wordmill")]

# The floors of the house, the lowest first: a package imports those of lower floors alone.
FLOORS = (
    ("wordmill/recipe", "wordmill/store", "wordmill/synth"),
    ("wordmill/text", "wordmill/pictures", "wordmill/sources"),
    ("wordmill/shards", "wordmill/models"),
    ("wordmill/readers", "wordmill/training", "wordmill/inference"),
    ("components",),
    ("pipelines",),
)
FLOOR = {package: number for number, floor in enumerate(FLOORS) for package in floor}

# Who may import what: distribution -> the places (prefixes of paths) where it may stand.
ALLOWED = {
    "torch": ("wordmill/models/pt/", "wordmill/training/pt/"),
    "torch_npu": ("wordmill/training/pt/",),
    "mindspore": ("wordmill/models/ms/", "wordmill/training/ms/", "wordmill/inference/mindir.py"),
    "mlflow": (
        "wordmill/store/tracking.py",
        "wordmill/store/experiments.py",
        "wordmill/inference/package.py",
        "wordmill/inference/refusal.py",
    ),
    "fcntl": ("wordmill/store/files.py",),  # all locks
    "boto3": ("wordmill/store/storage.py", "wordmill/store/wire.py"),
    "urllib3": (
        "wordmill/sources/remote.py",
        "components/serve/rollout/",
        "components/train/gang/api.py",
        "components/report/cluster.py",
        "pipelines/",
        "wordmill/store/pods.py",
    ),
    "kfp": ("components/", "pipelines/"),
    "cv2": ("wordmill/", "tools/"),
    "PIL": ("wordmill/pictures/decoder.py",),
    "onnxruntime": ("wordmill/inference/onnx_runtime.py", "wordmill/inference/quantise.py"),
    "onnx": ("wordmill/models/pt/", "wordmill/inference/quantise.py"),
    "jinja2": ("components/report/",),
    "kubernetes": (
        "components/train/gang/",
        "components/report/cluster.py",
        "components/serve/rollout/",
        "pipelines/cluster/",
        "wordmill/store/pods.py",
    ),
    "kfp_server_api": ("pipelines/cluster/",),
    "cronsim": ("pipelines/cluster/cron.py",),
}

# Tests of several modules of their folder together.
ACROSS = {
    "components/serve/test_container.py",
    "components/serve/test_image.py",
    "pipelines/test_recipe_training.py",
    "wordmill/models/test_twin_decoders.py",
    "wordmill/models/test_twin_parts.py",
    "wordmill/models/test_twins.py",
    "wordmill/training/test_curves.py",
    "wordmill/training/test_losses.py",
    "wordmill/training/test_twin_steps.py",
}

# Public names that stand in several places, each for one thing.
SHARED_NAMES = {
    "main": "a program's entry point",
    "run": "a stage's entry point",
    "Predictor": "the protocol, and the twins that keep it",
    "Trainer": "the protocol, and the twins that keep it",
}


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def imports(path: Path) -> frozenset[str]:
    """Return what a file imports anywhere, functions and `if TYPE_CHECKING` included, as dotted names of modules."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules = {alias.name: f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if file_of(name) else node.module for name in modules.values()}
    return frozenset(found)


def file_of(module: str) -> Path | None:
    """Return the file of a module of this project, None for all else."""
    path = ROOT.joinpath(*module.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def distributions(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imports(path)}


def package_of(path: Path) -> str:
    """Return the package on whose floor a file stands: a package of the library, or a top folder."""
    parts = path.relative_to(ROOT).parts
    return "/".join(parts[:2]) if parts[0] == "wordmill" else parts[0]


def own_imports(path: Path) -> set[Path]:
    """Return the files of this project that a file imports."""
    return {file for name in imports(path) if name.split(".")[0] in HOUSE and (file := file_of(name))}


@pytest.mark.parametrize("package", ALLOWED)
def test_a_package_is_imported_only_where_it_belongs(package: str) -> None:
    users = [relative(path) for path in CODE if package in distributions(path)]
    assert [user for user in users if not user.startswith(ALLOWED[package])] == []
    unused = [place for place in ALLOWED[package] if not any(user.startswith(place) for user in users)]
    assert unused == [] or package == "torch_npu"  # imported by its name


def test_arrows_point_down_only() -> None:
    folders = {f"wordmill/{path.name}" for path in (ROOT / "wordmill").iterdir() if (path / "__init__.py").is_file()}
    assert folders == {package for package in FLOOR if package.startswith("wordmill/")}
    wrong = [
        f"{relative(path)} imports {relative(file)}"
        for path in CODE
        if relative(path).startswith(HOUSE) and path.parent != ROOT / "wordmill"
        for file in own_imports(path)
        if package_of(path) != package_of(file) and FLOOR[package_of(path)] <= FLOOR[package_of(file)]
    ]
    assert wrong == []


def test_no_file_imports_one_that_imports_it_back_on_any_way() -> None:
    try:
        TopologicalSorter({relative(path): map(relative, own_imports(path)) for path in CODE}).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def test_components_do_not_reach_sideways_into_each_other() -> None:
    """What they share is what their keys are made of: the nights' look takes those of all stages."""
    for path in sorted((ROOT / "components").rglob("*.py")):
        own = path.relative_to(ROOT / "components").parts[0]
        for file in own_imports(path):
            if file.is_relative_to(ROOT / "components") and file != ROOT / "components" / "keys.py":
                assert file.relative_to(ROOT / "components").parts[0] == own, f"{relative(path)} imports {file}"


def test_a_folder_has_at_most_fifteen_modules_and_no_name_repeats_its_folders() -> None:
    folders = defaultdict(list)
    for path in CODE:
        if path.relative_to(ROOT).parts[0] in HOUSE and path.name != "__init__.py":
            folders[path.parent].append(path.stem)
    assert {relative(folder): len(names) for folder, names in folders.items() if len(names) > 15} == {}
    for folder, names in folders.items():
        word = folder.name.removesuffix("s")
        assert [name for name in names if name == folder.name or name.startswith(f"{word}_")] == [], relative(folder)


def test_among_components_only_component_files_import_kfp() -> None:
    users = {path for path in CODE if "kfp" in distributions(path) and relative(path).startswith("components/")}
    assert {user.name for user in users} == {"component.py"}


def test_pipelines_import_no_framework_and_no_stage_program() -> None:
    for path in sorted((ROOT / "pipelines").rglob("*.py")):
        assert not distributions(path) & {"torch", "mindspore", "cv2", "lmdb"}, relative(path)
        assert not [name for name in imports(path) if name.endswith(".stage")], relative(path)


def test_twins_have_the_same_files_and_public_functions() -> None:
    def surface(folder: str) -> dict[str, set[str]]:
        return {
            path.name: {
                node.name
                for node in ast.parse(path.read_text(encoding="utf-8")).body
                if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
            }
            for path in sorted((ROOT / "wordmill" / "models" / folder).glob("*.py"))
            if path.name in {"model.py", "weights.py", "predict.py"}
        }

    torch_side, mindspore_side = surface("pt"), surface("ms")
    assert set(torch_side) == {"model.py", "weights.py", "predict.py"}
    assert torch_side == mindspore_side


def test_a_name_is_defined_once() -> None:
    """Twins count as one, and what KFP calls a stage, which is its folder's name. No type is called as a class."""
    places = defaultdict(set)
    for path in CODE:
        if path.name != "component.py":
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                    places[node.name].add(re.sub(r"/(pt|ms)/.*", "/twins", relative(path)))
    twice = {name: sorted(found) for name, found in places.items() if len(found) > 1}
    assert {name: found for name, found in twice.items() if name not in SHARED_NAMES} == {}
    assert SHARED_NAMES.keys() <= twice.keys()
    assert {name: path for name, path in aliases() if name in places} == {}


def aliases() -> Iterator[tuple[str, str]]:
    """Give the public names that modules have for types, such as `Picture = npt.NDArray[np.uint8]`."""
    for path in CODE:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            targets = node.targets if isinstance(node, ast.Assign) else []
            for name in (target.id for target in targets if isinstance(target, ast.Name)):
                if re.fullmatch("[A-Z][a-z][A-Za-z]*", name):
                    yield name, relative(path)


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
    names = {path.name for path in stages} - {"serve"}
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


def test_no_python_runs_between_fork_and_exec() -> None:
    """Beside other threads it may wait for ever for a lock that one of them held."""
    for path in CODE:
        if path.relative_to(ROOT).parts[0] in HOUSE:
            assert "preexec_fn" not in path.read_text(encoding="utf-8"), relative(path)


def test_no_count_of_a_command_line_is_below_nought() -> None:
    """The kinds of wordmill/recipe/arguments.py refuse it, which int takes."""
    for path in [*CODE, *sorted((ROOT / "benchmarks").rglob("*.py"))]:
        assert "type=int" not in path.read_text(encoding="utf-8"), relative(path)


def test_nothing_reads_pickles() -> None:
    for path in CODE:
        assert not imports(path) & {"pickle", "dill", "cloudpickle"}, relative(path)


def test_every_test_lies_where_its_module_does_and_every_module_has_its_tests_place() -> None:
    """tests/ mirrors the tree: test_<module>.py, or test_<module>_<what>.py, below the module's folder."""
    tests = {path.relative_to(ROOT / "tests") for path in (ROOT / "tests").rglob("test_*.py")}
    houses = {test for test in tests if test.parts[0] in HOUSE}
    modules = {path.relative_to(ROOT).with_suffix("") for path in CODE if path.name != "__init__.py"}
    modules = {module for module in modules if module.parts[0] in HOUSE}
    strays = {
        test.as_posix()
        for test in houses
        if not any(f"{test.stem}_".startswith(f"test_{m.name.strip('_')}_") for m in modules if m.parent == test.parent)
    }
    assert sorted(strays - ACROSS) == []
    assert sorted({str(module.parent) for module in modules} - {str(test.parent) for test in houses}) == []
