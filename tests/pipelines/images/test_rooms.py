"""What each stage's image holds, against what compiled code imports: no room is missing, none is held in vain."""

import dis
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from types import CodeType
from typing import Any

import pytest

from components import keys
from pipelines.images import rooms
from pipelines.images.building import copy_rooms
from pipelines.images.references import NAMES, split_name
from pipelines.places import ROOT
from tests.components.test_keys import STAGES
from wordmill.store import keys as store_keys

# What is imported or started by name, by hand: module -> modules, {} for the package of a framework's twins.
BY_NAME = {
    "components.evaluate.stage": ["wordmill.models.{}.predict"],
    "components.export.formats": ["wordmill.models.{}.export"],
    "components.export.stage": ["wordmill.models.pt.predict"],
    "components.smoke.launch": ["components.smoke.probe"],
    "components.train.launch": ["wordmill.training.{}.train"],
    "components.train.gang.manifests": ["components.train.gang.node"],
    "wordmill.inference.package": ["wordmill.models.pt.export", "wordmill.inference.packaged.pyfunc"],
    "wordmill.training.rendered": ["wordmill.training.feeder"],
}
PACKAGES = {"data": [], "pytorch": ["pt"], "mindspore": ["ms"], "cann": ["pt", "ms"], "lite": ["pt"]}


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def edges(name: str) -> frozenset[str]:
    """Return the modules of this project that a module imports, by its instructions, and those that it names."""
    path = ROOT.joinpath(*name.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    found = {name for name in imports(compile(path.read_text(encoding="utf-8"), path, "exec")) if exists(name)}
    return frozenset(found | set(BY_NAME.get(name, ())))


def imports(code: CodeType) -> set[str]:
    found, arguments = set[str](), list[Any]()
    for step in dis.get_instructions(code):
        if step.opname == "LOAD_CONST":
            arguments = [*arguments[-1:], step.argval]
        elif step.opname == "IMPORT_NAME":
            names = arguments[-1] or ()
            found |= {step.argval, *(f"{step.argval}.{name}" for name in names)}
    inner = (item for item in code.co_consts if isinstance(item, CodeType))
    return found.union(*(imports(item) for item in inner))


@cache
def exists(name: str) -> bool:
    if name.split(".")[0] not in ("wordmill", "components"):
        return False
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def reached(roots: list[str], packages: list[str]) -> set[str]:
    """Return the modules that a program with these frameworks may come to."""
    waiting, found = roots, set[str]()
    while waiting:
        name = waiting.pop()
        if "{}" in name:
            waiting += [name.format(package) for package in packages]
        elif name not in found and not [twin for twin in {"pt", "ms"} - {*packages} if f".{twin}." in f"{name}."]:
            found.add(name)
            waiting += edges(name)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_an_image_holds_the_rooms_that_its_stage_runs_and_no_others(name: str) -> None:
    stage, environment = split_name(name)
    files = rooms.held(stage, environment)
    held = {module_of(path) for path in files if path.suffix == ".py" and path.name != "__init__.py"}
    roots = {"evaluate": ["components.evaluate.stage", "components.evaluate.rivals"],
             "report": ["components.report.stage", "components.report.kubeflow", "components.report.heartbeat",
                        "components.serve.rollout.__main__"],
             }.get(stage, [f"components.{stage}.stage"])  # fmt: skip
    modules = reached(roots, PACKAGES[environment])
    wanted = {module for module in modules if not ROOT.joinpath(*module.split(".")).is_dir()}
    # A rendered source's identity, and the night's look, are digests of code that is not run.
    synth = [path for path in (ROOT / "wordmill" / "synth").glob("*.py") if path.name != "__init__.py"]
    looked = {module_of(path) for path in synth} if synth[0] in files else set[str]()
    if stage == "fresh":
        looked |= {name for _, _, key in STAGES.values() for name in named(key)}
    assert wanted - held == set(), "runs, and is not held"
    assert held - wanted - looked == set(), "is held in vain"
    assert looked - held == set(), "is read for a key, and is not held"


def named(ingredients: store_keys.Ingredients) -> set[str]:
    files = {path for name in ingredients.code for path in store_keys.files_of(name)}
    return {module_of(path) for path in files if path.name != "__init__.py"}


KEYED = {
    "shard": [keys.of_shard(reader) for reader in keys.READERS],
    "evaluate-pytorch": [keys.of_evaluate("pytorch", "cpu", "mindocr")],
    "evaluate-mindspore": [keys.of_evaluate("mindspore", "cpu", "fudan")],
    "evaluate-cann": [keys.of_evaluate("mindspore", "npu", "fudan")],
    "export-pytorch": [keys.of_export("onnx"), keys.of_export("onnx_int8")],
    "export-mindspore": [keys.of_export("mindir")],
    "export-lite": [keys.of_export("lite")],
    "export-cann": [keys.of_export("om")],
    "smoke-pytorch": [keys.of_smoke("onnx")],
    "smoke-mindspore": [keys.of_smoke("mindir")],
    "smoke-lite": [keys.of_smoke("lite")],
    "smoke-cann": [keys.of_smoke("om")],
    "train-pytorch": [STAGES["train views"][2], STAGES["train"][2]],
    "train-mindspore": [STAGES["train streamed"][2]],
    "train-cann": [STAGES["train views"][2], STAGES["train streamed"][2]],
    "fresh": [key for _, _, key in STAGES.values()],
}


def test_all_images_whose_stages_have_keys_are_asked_for_them() -> None:
    assert set(NAMES) - set(KEYED) == {"fetch", "gate", "gate-pytorch", "report"}


@pytest.mark.parametrize("name", KEYED)
def test_a_stages_key_is_the_same_in_its_image(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy_rooms(rooms.held(*split_name(name)), tmp_path)
    here = [ingredients.found() for ingredients in KEYED[name]]
    monkeypatch.setattr(store_keys, "ROOT", tmp_path)
    assert [ingredients.found() for ingredients in KEYED[name]] == here


def test_a_change_of_the_gate_changes_the_gates_images_alone() -> None:
    changed = ROOT / "components" / "gate" / "judging.py"
    assert [name for name in NAMES if changed in rooms.held(*split_name(name))] == ["gate", "gate-pytorch"]
    changed = ROOT / "wordmill" / "training" / "pt" / "losses.py"
    found = [name for name in NAMES if changed in rooms.held(*split_name(name))]
    assert found == ["fresh", "train-pytorch", "train-cann"]


@pytest.mark.parametrize(
    "name", ["fetch", *(pytest.param(name, marks=pytest.mark.slow) for name in NAMES if name != "fetch")]
)
def test_every_module_of_an_image_is_imported_with_nothing_else_beside_it(name: str, tmp_path: Path) -> None:
    stage, environment = split_name(name)
    files = rooms.held(stage, environment)
    copy_rooms(files, tmp_path)
    run = [name for name in map(module_of, files) if stage in name or name.startswith("wordmill.store")]
    modules = run if stage == "fresh" else [module_of(path) for path in files if path.suffix == ".py"]
    program = f"import importlib\nfor name in {modules}: importlib.import_module(name)"
    # MindSpore's protobuf modules are too old for the other one.
    variables = os.environ | {"PYTHONPATH": str(tmp_path), "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python"}
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=variables, capture_output=True, text=True,
                          check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
