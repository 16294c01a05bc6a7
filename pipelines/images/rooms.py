"""Which files of this project a stage's image holds: what the stage imports, starts by name, reads, and is keyed by.

So a change of another stage's code changes nothing of it. The test beside holds this against compiled code.
"""

import ast
import re
from collections.abc import Iterator
from functools import cache
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

from components import keys
from pipelines.images.references import EXPORTERS
from pipelines.places import ROOT
from wordmill.recipe.frameworks import PACKAGES, Framework
from wordmill.store.keys import Ingredients, files_of

HOUSES = ("components", "wordmill")
# Whose twins each environment can run; `data` has neither framework.
FRAMEWORKS = {"data": (), "pytorch": ("pytorch",), "mindspore": ("mindspore",), "cann": ("pytorch", "mindspore"),
              "lite": ("pytorch",)}  # fmt: skip
# What a stage starts by a name that it puts together, and what a site's manifests start in its image.
STARTED = {"train": ("wordmill.training.{package}.train",),
           "report": ("components.report.heartbeat", "components.serve.rollout.__main__")}  # fmt: skip
# The night's look at what has changed reads the code that every key names, and runs none of it.
LOOKS = "fresh"
TOLD_APART = "components.keys"  # names modules, of which a stage imports its own


@cache
def held(stage: str, environment: str) -> tuple[Path, ...]:
    """Return the files of a stage's image, sorted, below ROOT."""
    packages = [PACKAGES[framework] for framework in FRAMEWORKS[environment]]
    roots = [*_imported(ROOT / "components" / stage / "component.py")]
    roots += [name.format(package=package) for name in STARTED.get(stage, ()) for package in packages or [""]]
    modules = _reached(roots, packages)
    named = list(_keyed()) if stage == LOOKS else []
    modules |= {name for ingredients in named for name in ingredients.code}
    sources = {path for name in modules for path in files_of(name)}
    folders = {folder for path in sources for folder in path.relative_to(ROOT).parents if folder.parts}
    marks = {ROOT / folder / "__init__.py" for folder in folders}
    read = {ROOT / name for ingredients in named for name in ingredients.data} | set(_read_by(sources))
    return tuple(sorted(sources | {mark for mark in marks if mark.is_file()} | read))


def _reached(roots: list[str], packages: list[str]) -> set[str]:
    """Return the modules and packages that a program may come to, with these frameworks' twins alone."""
    others = {f".{package}." for package in PACKAGES.values() if package not in packages}
    waiting, found = list(roots), set[str]()
    while waiting:
        name = waiting.pop()
        if name in found or any(other in f"{name}." for other in others):
            continue
        found.add(name)
        for path in files_of(name):
            waiting += _imported(path)
            if name != TOLD_APART:
                waiting += _named(path, packages)
    return found


@cache
def _imported(path: Path) -> tuple[str, ...]:
    """Return the modules of this project that a file imports, inside functions too."""
    imports = [node for node in _nodes(path) if isinstance(node, ast.ImportFrom)]
    named = [(node.module or "", alias.name) for node in imports for alias in node.names]
    ours = [(module, f"{module}.{name}") for module, name in named if module.startswith(HOUSES)]
    return tuple(name if _is_module(name) else module for module, name in ours)


def _named(path: Path, packages: list[str]) -> Iterator[str]:
    """Give the modules that a file names in texts: `models.predict` for a framework's, packages in keys alone."""
    for framework, text in _texts(path):
        room, _, name = text.partition(".")
        of = packages if framework is None else {PACKAGES[framework]} & set(packages)
        twins = [f"wordmill.{room}.{package}.{name}" for package in sorted(of)]
        yield from (name for name in (text, *twins) if name.startswith(HOUSES) and _is_module(name, package=False))
    yield from _in_keys(path)


@cache
def _texts(path: Path) -> tuple[tuple[str | None, str], ...]:
    """Return the texts of a file that may be names of modules, each with the framework that stands beside it, or None.

    `twin("pytorch", "models.predict")` names PyTorch's alone.
    """
    beside: dict[ast.expr, str] = {}
    for node in _nodes(path):
        if isinstance(node, ast.Call) and len(node.args) == 2 and isinstance(first := node.args[0], ast.Constant):
            beside |= {node.args[1]: first.value} if first.value in PACKAGES else {}
    constants = [node for node in _nodes(path) if isinstance(node, ast.Constant)]
    texts = [(beside.get(node), node.value) for node in constants if isinstance(node.value, str)]
    return tuple((framework, text) for framework, text in texts if re.fullmatch(r"[a-z_]+(\.[a-z_]+)+", text))


@cache
def _in_keys(path: Path) -> tuple[str, ...]:
    """Return the packages that a file names in what decides on bytes, Ingredients: their code is read as a whole."""
    calls = [node for node in _nodes(path) if isinstance(node, ast.Call)]
    named = [node for node in calls if isinstance(node.func, ast.Name) and node.func.id == Ingredients.__name__]
    texts = [part.value for node in named for part in ast.walk(node) if isinstance(part, ast.Constant)]
    return tuple(text for text in texts if isinstance(text, str) and text.startswith(HOUSES) and _is_module(text))


@cache
def _nodes(path: Path) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


@cache
def _is_module(name: str, package: bool = True) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or (package and (path / "__init__.py").is_file())


def _keyed() -> Iterator[Ingredients]:
    """Give the keys of all stages, for whatever a recipe may say."""
    for framework in get_args(Framework):  # with these a key names all that it may
        for augment, stored in product(keys.AUGMENTED, ("encoded", "fitted")):
            train: Any = SimpleNamespace(framework=framework, protocol="fudan", augment=augment)
            data: Any = SimpleNamespace(streamed=True, stored=stored)
            yield keys.of_train(train, data, "npu")
        yield keys.of_evaluate(framework, "npu", "fudan")
    yield from (keys.of_shard(reader) for reader in keys.READERS)
    for kind in EXPORTERS:
        yield from (keys.of_export(kind), keys.of_smoke(kind))


def _read_by(sources: set[Path]) -> Iterator[Path]:
    """Give the files that are no code and lie with these modules, or in a folder of theirs that holds no code."""
    folders = {path.parent for path in sources}
    for house in HOUSES:
        for path in (ROOT / house).rglob("*"):
            if path.is_file() and path.suffix not in (".py", ".pyc"):
                owner = next(folder for folder in path.parents if (folder / "__init__.py").is_file())
                if owner in folders:
                    yield path
