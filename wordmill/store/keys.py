"""What decides on the bytes of finished work beside its inputs: code by its meaning, data files, versions.

Code is a set of definitions: functions, classes, and assignments of modules. Nothing changes by
- the module that a definition stands in, the order of definitions, the places and the order of imports, and imports
  of names that a definition does not use;
- comments, blank lines, the layout and quoting of expressions, docstrings and other statements that are a constant;
- annotations of functions and variables, names for types such as `Names = dict[str, int]`, and `if TYPE_CHECKING`; a
  class's field keeps its name, its default, and whether it is a ClassVar, an InitVar or KW_ONLY;
- statements that call print, warnings or logging, with all that they are told, and an `if` with nothing else in it
  whose condition calls nothing;
- what a raised exception is told and what it is raised from, and the text of an assertion.
All else counts, names of local variables too.
"""

import ast
import dataclasses
import hashlib
import os
import platform
import re
import threading
from collections.abc import Iterable, Iterator
from functools import cache
from importlib import metadata
from pathlib import Path

from wordmill.store.artifacts import ROOT, digest

PARSING = threading.Lock()  # Python 3.11 parses in one thread at a time only: python/cpython#106905
CANN = "CANN"  # among distributions: Ascend's toolkit, which no package index has
KINDS = frozenset({"ClassVar", "InitVar", "KW_ONLY"})  # annotations that make something else of a class's field
TELLING = frozenset({"print", "warnings", "logging"})
GENERIC = frozenset({"dict", "frozenset", "list", "set", "tuple", "type"})
OURS = ("components.", "wordmill.")  # whose definitions may stand in any module

Found = dict[str, str]  # digest or version by name


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ingredients:
    """What decides on the bytes that a stage makes beside its inputs.

    code: modules, and packages, of which the modules in their own folder count. data: files below ROOT.
    distributions: what computes, by the names that pip has for them; and CANN.
    """

    code: tuple[str, ...] = ()
    data: tuple[str, ...] = ()
    distributions: tuple[str, ...] = ()

    def found(self) -> dict[str, Found]:
        """Return what there is of each here."""
        code: dict[str, list[str]] = {}
        for file in (file for module in self.code for file in files_of(module)):
            for name, meaning in meanings_of(file).items():
                code.setdefault(name, []).append(meaning)
        return {
            "code": {name: " ".join(sorted(meanings)) for name, meanings in sorted(code.items())},
            "data": {name: hashlib.sha256((ROOT / name).read_bytes()).hexdigest() for name in self.data},
            "distributions": {name: version_of(name) for name in self.distributions},
        }

    def digest(self) -> str:
        """Return 32 hexadecimal digits over all of it."""
        return digest(self.found())


def changed_ingredients(before: dict[str, Found], now: dict[str, Found]) -> list[str]:
    """Name what is not the same in two findings, versions with both of them."""
    changed = []
    for kind in now:
        one, other = before.get(kind, {}), now[kind]
        for name in sorted(one.keys() | other.keys()):
            if (had := one.get(name, "")) != (has := other.get(name, "")):
                versions = f" {had or 'none'} and {has or 'none'}" if kind == "distributions" else ""
                changed.append(f"{name}{versions}")
    return changed


def files_of(name: str) -> list[Path]:
    """Return the file of a module, or those in a package's own folder; ValueError for neither."""
    path = ROOT.joinpath(*name.split("."))
    found = sorted(path.glob("*.py")) if path.is_dir() else [path.with_suffix(".py")]
    if not all(file.is_file() for file in found):
        raise ValueError(f"{name}: no such module or package below {ROOT}")
    return found


def source_files(modules: Iterable[str]) -> list[Path]:
    """Return the files of modules and packages of this project and of all of it that they import, in order."""
    waiting = [path for module in modules for path in files_of(module)]
    reached: set[Path] = set()
    while waiting:
        path = waiting.pop()
        if path not in reached:
            reached.add(path)
            waiting += [file for module in _imports(path) for file in files_of(module)]
    return sorted(reached)


def _imports(path: Path) -> Iterator[str]:
    """Give the modules of this project that a file imports, inside functions too."""
    for module, names in _named(path.read_text(encoding="utf-8")):
        if ROOT.joinpath(*module.split(".")).is_dir():
            yield from (f"{module}.{name}" for name in names)
        else:
            yield module


@cache
def _named(source: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return from which packages and modules of this project a module's text imports, and what."""
    with PARSING:
        tree = ast.parse(source)
    found = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    ours = [node for node in found if (node.module or "").startswith(OURS)]
    return tuple((str(node.module), tuple(alias.name for alias in node.names)) for node in ours)


def meanings_of(file: Path) -> dict[str, str]:
    """Return the meanings of a module's definitions."""
    return meanings(file.read_text(encoding="utf-8"))


@cache
def meanings(source: str) -> dict[str, str]:
    """Return a digest of each definition of a module's text by its name; what else is done there has an empty name."""
    with PARSING:
        tree = ast.parse(source)
    normaliser = _Normaliser()
    found: dict[str, str] = {}
    for part in normaliser.visit(tree).body:
        nodes = list(ast.walk(part))
        used = {node.id for node in nodes if isinstance(node, ast.Name)}
        imports = sorted(names for names in normaliser.imports if names[-1].partition(".")[0] in used)
        name = _defined(part)
        if isinstance(part, ast.Assign) and _is_type(part.value):
            continue
        found[name] = hashlib.sha256(f"{found.get(name)}{imports}{ast.dump(part)}".encode()).hexdigest()[:32]
    return found


def _defined(part: ast.stmt) -> str:
    """Return the name that a statement of a module defines, the first of several; empty for none."""
    if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return part.name
    nodes = [node for target in part.targets for node in ast.walk(target)] if isinstance(part, ast.Assign) else []
    return next((node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)), "")


def _is_type(node: ast.expr) -> bool:
    """Tell whether an expression can only be a type: `Iterator[int]`, `Circle | None`."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return _is_type(node.left) or _is_type(node.right) or _named_as_type(node.left) or _named_as_type(node.right)
    return isinstance(node, ast.Subscript) and (_named_as_type(node.value) or _name(node.value) in GENERIC)


def _named_as_type(node: ast.expr) -> bool:
    name = _name(node)
    return name[:1].isupper() and not name.isupper()


class _Normaliser(ast.NodeTransformer):
    """Takes out of a module's tree what means nothing, and puts its imports aside; a block may be left empty."""

    def __init__(self) -> None:
        self.imports: set[tuple[str, str, str]] = set()  # from where, what, and its name here
        self.fields: set[ast.AnnAssign] = set()

    def visit_Import(self, node: ast.Import) -> None:
        self.imports |= {("", alias.name, alias.asname or alias.name) for alias in node.names}

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        names = {(alias.name, alias.asname or alias.name) for alias in node.names}
        if str(node.module).startswith(OURS):
            self.imports |= {("", name, here) for name, here in names if name != here}
        else:
            self.imports |= {(f"{'.' * node.level}{node.module}", *both) for both in names}

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.AST] | None:
        if _name(node.test) == "TYPE_CHECKING":
            return [kept for item in node.orelse if (kept := self.visit(item)) is not None]
        self.generic_visit(node)
        calls = any(isinstance(part, ast.Call | ast.NamedExpr | ast.Await) for part in ast.walk(node.test))
        return node if node.body or node.orelse or calls else None

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        tells = isinstance(node.value, ast.Call) and _root(node.value.func) in TELLING
        return None if tells or isinstance(node.value, ast.Constant) else self.generic_visit(node)

    def visit_Pass(self, node: ast.Pass) -> None:
        return None

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        raised = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
        return self.generic_visit(ast.Raise(exc=raised, cause=None))

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        return self.generic_visit(ast.Assert(test=node.test, msg=None))

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        self.fields |= {item for item in node.body if isinstance(item, ast.AnnAssign)}
        return self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        if node in self.fields:
            kinds = KINDS & {_name(part) for part in ast.walk(node.annotation)}
            node.annotation = ast.Constant(value=" ".join(sorted(kinds)))
            return self.generic_visit(node)
        return None if node.value is None else self.visit(ast.Assign(targets=[node.target], value=node.value))

    def visit_arg(self, node: ast.arg) -> ast.AST:
        return ast.arg(arg=node.arg)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815 (ast's name)


def _name(node: ast.AST) -> str:
    """Return the last part of a dotted name, empty for all else."""
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _root(node: ast.AST) -> str:
    """Return the first part of a dotted name, empty for all else."""
    while isinstance(node, ast.Attribute):
        node = node.value
    return _name(node)


@cache
def version_of(distribution: str) -> str:
    """Return the version that is installed of a distribution, empty for none."""
    if distribution == CANN:
        return cann_version()
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""


def cann_version() -> str:
    """Return the versions of CANN's packages, from the files that their installers leave; empty where none is."""
    folder = os.environ.get("ASCEND_TOOLKIT_HOME") or os.environ.get("ASCEND_HOME_PATH")  # by CANN's set_env.sh
    told = sorted(Path(folder).glob("*-linux/ascend_*_install.info")) if folder else []
    found = {path.name: re.search(r"^version=(.+)$", path.read_text(encoding="utf-8"), re.MULTILINE) for path in told}
    return ", ".join(f"{name.split('_')[1]} {match[1].strip()}" for name, match in found.items() if match)


def machine() -> str:
    """Return what times are measured on: the processor's name and how many of its threads this process may use."""
    described = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").exists() else ""
    name = re.search(r"^model name\s*:\s*(.+)$", described, re.MULTILINE)
    return f"{name[1] if name else platform.processor() or platform.machine()}, {len(os.sched_getaffinity(0))} threads"
