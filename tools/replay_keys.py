"""What keys would have had done again in this repository's past: `python -m tools.replay_keys [COMMIT] [--commits 80]`.

Of each commit up to COMMIT that touches components/ or wordmill/ it is told which stages' keys differ from its
parent's: by bytes, the key of once, over all files that a stage imports; and by meaning, today's declarations
(components/keys.py) on the tree of that time. ROOMS has today's place of each module that stood elsewhere before the
library had rooms. A definition of that time counts where one of its name stands today in the same package; one that is
gone counts by its module and, if that is gone too, by its package. Merges are left out: their parents' commits are
looked at one by one.
"""

import argparse
import ast
import subprocess
from collections import Counter, defaultdict
from dataclasses import replace
from functools import cache
from typing import NamedTuple

from components import keys
from wordmill.recipe.arguments import from_one
from wordmill.recipe.frameworks import PACKAGES
from wordmill.recipe.loading import load_recipe
from wordmill.store.artifacts import ROOT
from wordmill.store.keys import OURS, meanings, meanings_of

COMMIT = "918179c"  # the last one before the library had rooms
LIBRARY = "components.recognition"
RECIPE = load_recipe(ROOT / "pipelines" / "recipes" / "crnn_r34.yaml")
TWINS = ("backbones decoders export foreign layers mobilenet model necks precision predict rectification resnet views "
         "weights parameters", "device losses optimisers processes state step sync tracing train")  # fmt: skip
DRAWING = "backdrop chinese effects fonts french geometry random scene signs style text words"
# Today's module by that time's, where the names differ.
ROOMS = {
    "recipe": "recipe=sections recipe_rules=rules schedule catalogue frameworks",
    "text": "charset decoding beam labels protocols metrics",
    "pictures": "image augment=augmentation",
    "store": "storage artifacts stages tracking progress disk=files nightly=nights",
    "sources": "sources=locating sources_download=download sources_patience=patience sources_remote=remote archives "
               "archives_members=members",
    "readers": "readers=opening readers_lmdb=lmdb readers_text=label_file readers_tfrecord=fsns tfrecord sample",
    "synth": " ".join(["synth=renderer", *(f"synth_{name}={name}" for name in DRAWING.split())]),
    "shards": "blocks index mapping block_cache=cache loader shards=sets",
    "models": " ".join(["checkpoint convert models=table tps", *(f"{twin}.{name}" for twin in ("pt", "ms")
                        for name in TWINS[0].split())]),
    "training": " ".join(["training=context trainer loop training_state=state records targets rendered",
                          *(f"{twin}.{name}" for twin in ("pt", "ms") for name in TWINS[1].split())]),
    "inference": "card runtimes evaluation reading package offline onnx_runtime batches trained pt.quantise=quantise "
                 "ms.runtime=mindir packaged.pyfunc packaged.pair",
}  # fmt: skip
PLACES = {"components.train.node": "components.train.gang.node"} | {
    f"{LIBRARY}.{old}": f"wordmill.{room}.{new or old}"
    for room, names in ROOMS.items()
    for old, _, new in (pair.partition("=") for pair in names.split())
}

LETTERS = {"shard": "s", "train pt": "t", "train ms": "T", "evaluate pt": "e", "evaluate ms": "E", "export": "x"}
GROUPS = {"shard: pack": ("shard",), "train, PyTorch": ("train pt",), "train, MindSpore": ("train ms",),
          "train, either": ("train pt", "train ms"), "evaluate, either": ("evaluate pt", "evaluate ms"),
          "export onnx": ("export",)}  # fmt: skip

ModuleBlobs = dict[str, str]  # a blob by its module
Changes = dict[str, list[str]]  # names of definitions by their module


class Stage(NamedTuple):
    """What a stage's keys are made of: its folder and the packages that it imports by name, and what counts today."""

    folder: str
    packages: tuple[str, ...]
    code: tuple[str, ...]


def stages() -> dict[str, Stage]:
    """Return the stages whose work is kept, as a plain recipe has them in either framework."""
    found = {"shard": Stage(folder="shard", packages=(), code=keys.of_shard("lmdb").code)}
    for train in (replace(RECIPE.train, framework="pytorch"), replace(RECIPE.train, framework="mindspore")):
        twin = PACKAGES[train.framework]
        packages = (f"{LIBRARY}.{twin}", f"wordmill.models.{twin}", f"wordmill.training.{twin}")
        trained = keys.of_train(train, RECIPE.data, "cpu")
        measured = keys.of_evaluate(train.framework, "cpu", "mindocr")
        found[f"train {twin}"] = Stage(folder="train", packages=packages, code=trained.code)
        found[f"evaluate {twin}"] = Stage(folder="evaluate", packages=packages, code=measured.code)
    exporting = (f"{LIBRARY}.pt", "wordmill.models.pt")
    found["export"] = Stage(folder="export", packages=exporting, code=keys.of_export("onnx").code)
    return found


class Blobs:
    """Contents of git objects, read one after the other from one process."""

    def __init__(self) -> None:
        command = ["git", "-C", str(ROOT), "cat-file", "--batch"]
        self.git = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.text = cache(self._text)
        self.imports = cache(self._imports)
        self.meanings = cache(lambda blob: meanings(self.text(blob)))

    def _text(self, blob: str) -> str:
        told, answer = self.git.stdin, self.git.stdout
        if told is None or answer is None:
            raise RuntimeError("git cat-file has no pipes")
        told.write(f"{blob}\n".encode())
        told.flush()
        size = int(answer.readline().split()[2])
        return answer.read(size + 1)[:-1].decode()

    def _imports(self, blob: str) -> list[str]:
        """Return what a file imports of this project: modules, and packages or names in modules, which are no files."""
        nodes = [node for node in ast.walk(ast.parse(self.text(blob))) if isinstance(node, ast.ImportFrom)]
        ours = [node for node in nodes if (node.module or "").startswith(OURS)]
        return [name for node in ours for name in (str(node.module), *(f"{node.module}.{a.name}" for a in node.names))]


def git(*arguments: str) -> list[str]:
    """Return the lines that a git command prints."""
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


@cache
def tree_of(commit: str) -> ModuleBlobs:
    """Return the Python files below components/ and wordmill/ of a commit."""
    rows = [line.partition("\t") for line in git("ls-tree", "-r", commit, "components", "wordmill")]
    return {path.removesuffix(".py").replace("/", "."): entry.split()[2]
            for entry, _, path in rows if path.endswith(".py")}  # fmt: skip


def closure(tree: ModuleBlobs, blobs: Blobs, roots: tuple[str, ...]) -> ModuleBlobs:
    """Return the files of modules and packages and of all that they import, as keys by bytes took them."""

    waiting, reached = [module for module in tree if module.rpartition(".")[0] in roots], dict[str, str]()
    while waiting:
        module = waiting.pop()
        if module not in reached:
            reached[module] = tree[module]
            waiting += [name for name in blobs.imports(tree[module]) if name in tree]
    return reached


@cache
def today() -> dict[str, set[str]]:
    """Return the modules that define a name today."""
    found = defaultdict(set)
    for path in [*(ROOT / "wordmill").rglob("*.py"), *(ROOT / "components").rglob("*.py")]:
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for name in meanings_of(path):
            found[name].add(module)
    return found


def counts(code: tuple[str, ...], module: str, name: str) -> bool:
    """Tell whether a definition of a module of that time counts for a stage of today."""
    place = PLACES.get(module, module)
    room, standing = place.rpartition(".")[0], today().get(name, set()) if name else set()
    if place in standing:
        return place in code
    if moved := {other for other in standing if other.rpartition(".")[0] == room}:
        return not moved.isdisjoint(code)
    gone = not ROOT.joinpath(*place.split(".")).with_suffix(".py").is_file()
    return place in code or (gone and any(counted.rpartition(".")[0] == room for counted in code))


def changed_definitions(before: ModuleBlobs, now: ModuleBlobs, blobs: Blobs, code: tuple[str, ...]) -> Changes:
    """Return which definitions that count for a stage mean something else than before, stand anew or are gone."""
    had, has = (defined(tree, before.items() ^ now.items(), blobs, code) for tree in (before, now))
    found: Changes = {}
    for name in sorted(had.keys() | has.keys()):
        one, other = had.get(name, []), has.get(name, [])
        if sorted(meaning for _, meaning in one) != sorted(meaning for _, meaning in other):
            module = (other or one)[0][0].removeprefix(f"{LIBRARY}.")
            found.setdefault(module.removeprefix("components.").removeprefix("wordmill."), []).append(name or "...")
    return found


def defined(
    tree: ModuleBlobs, changed: set[tuple[str, str]], blobs: Blobs, code: tuple[str, ...]
) -> dict[str, list[tuple[str, str]]]:
    """Return module and meaning of the definitions, by name, of those changed files that are a tree's."""
    found = defaultdict(list)
    for module, blob in sorted(changed & tree.items()):
        for name, meaning in blobs.meanings(blob).items():
            if counts(code, module, name):
                found[name].append((module, meaning))
    return found


def main() -> None:
    """Print a row for each commit, why its work would be done again today, and the sums."""
    parser = argparse.ArgumentParser(prog="python -m tools.replay_keys", description=__doc__)
    parser.add_argument("commit", nargs="?", default=COMMIT)
    parser.add_argument("--commits", type=from_one, default=80)
    parser.add_argument("--why", action="store_true", help="name the definitions that changed, not their modules alone")
    options = parser.parse_args()
    blobs, known, rows, sums = Blobs(), stages(), 0, Counter[tuple[str, str]]()
    print("what changes: s shard, t train, e evaluate, both in PyTorch and in MindSpore (capitals), x export")
    for line in reversed(git("log", f"-{options.commits}", "--format=%H %P", options.commit)):
        commit, *parents = line.split()
        if len(parents) != 1 or (before := tree_of(parents[0])) == (now := tree_of(commit)):
            continue
        rows += 1
        found = {name: changed_definitions(before, now, blobs, stage.code) for name, stage in known.items()}
        roots = {name: (f"components.{stage.folder}", *stage.packages) for name, stage in known.items()}
        old = {name for name in known if closure(before, blobs, roots[name]) != closure(now, blobs, roots[name])}
        new = {name for name in known if found[name]}
        sums.update([*(("bytes", name) for name in groups(old)), *(("meaning", name) for name in groups(new))])
        print(f"{commit[:7]}  {marks(old)}  {marks(new)}  {git('log', '-1', '--format=%s', commit)[0][:90]}")
        for name, told in found.items():
            if told and name.startswith(("shard", "train")):
                print(f"                          {name}: {listed(told, options.why)}")
    print(f"\n{rows} commits touch components/ or wordmill/; the keys that change:")
    for name in GROUPS:
        print(f"  {name:28} {sums['bytes', name]:3} by bytes {sums['meaning', name]:3} by meaning")


def groups(changed: set[str]) -> list[str]:
    """Return which of GROUPS have a stage among these."""
    return [name for name, members in GROUPS.items() if changed & set(members)]


def marks(changed: set[str]) -> str:
    """Return a letter for each stage that is among these, a dot for each other."""
    return "".join(letter if name in changed else "." for name, letter in LETTERS.items())


def listed(told: Changes, why: bool) -> str:
    """Name the modules, and what changed of them."""
    return "; ".join(f"{module} ({', '.join(names)})" if why else module for module, names in told.items())


if __name__ == "__main__":
    main()
