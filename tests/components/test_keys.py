"""The keys that stages declare, held against what they import."""

import ast
import dataclasses
import sys
from functools import cache
from pathlib import Path

import pytest

from components import keys
from tests.wordmill.training.tiny import DATA, TRAIN
from wordmill.recipe.frameworks import PACKAGES
from wordmill.store.artifacts import ROOT
from wordmill.store.keys import Ingredients, files_of

# What every stage may reach and none counts: it moves, starts, follows, keeps, checks and reports.
ORCHESTRATION = {
    "wordmill.store": "where things lie",
    "wordmill.recipe.catalogue": "what the data sets are called",
    "wordmill.recipe.frameworks": "where it runs: the processor is in no key either",
    "wordmill.recipe.parsing": "what it makes is among the inputs",
    "wordmill.recipe.plain": "what it makes is among the inputs, and it refuses",
    "wordmill.recipe.rules": "refuses",
    "wordmill.recipe.sections": "its values are among the inputs",
    "wordmill.shards.cache": "brings blocks, by their digests",
    "wordmill.shards.mapping": "brings blocks, by their digests",
    "wordmill.shards.sets": "brings blocks, by their digests",
    "wordmill.synth": "its pictures are known by their source",
    "wordmill.training.job": "what a process is told",
    "wordmill.training.records": "tells of what happens",
    "wordmill.training.state": "keeps what training goes on from",
    "wordmill.training.worker": "tells of its process",
    "wordmill.training.pt.device": "moves arrays, traces",
    "wordmill.training.ms.tracing": "traces",
    "wordmill.inference.trained": "brings weights, by their digest",
    "components.keys": "says so",
}
PLACES = "says where characters stand, which no stage stores"
# What a stage reaches and uses for what changes none of its bytes.
APART = {
    "shard": {"components.shard": "but for what packs: processes, sheets for people",
              "wordmill.pictures.sheet": "for people", "wordmill.readers": "those of other forms",
              "wordmill.recipe.schedule": "of training alone", "wordmill.shards.loader": "reads what sheets show",
              "wordmill.sources": "rendered sets have no archives", "wordmill.shards.content": "tells what was packed"},
    "train": {"wordmill.models.attention": PLACES,
              "wordmill.models.pt.predict": "reads with finished weights", "wordmill.text.beam": "searches in that",
              "wordmill.models.pt.winograd": "reads with finished weights",
              "wordmill.models.ms.predict": "reads with finished weights", "wordmill.shards.content": "told by shards",
              "wordmill.pictures": "of sets that are neither encoded nor augmented",
              "wordmill.training.feeder": "of sets that are not streamed",
              "wordmill.training.rendered": "of sets that are not streamed"},
    "evaluate": {"wordmill.models.attention": PLACES,
                 "wordmill.recipe.schedule": "of training alone", "wordmill.shards.content": "told by shards"},
    "export": {"wordmill.models.attention": PLACES,
               "components.export.converter": "runs programs", "wordmill.recipe.schedule": "of training alone",
               "wordmill.inference.onnx_runtime": "proves a pair", "wordmill.inference.packaged": "proves a pair",
               "wordmill.text.beam": "proves a pair", "wordmill.models.pt.predict": "proves a pair",
               "wordmill.models.pt.precision": "proves a pair", "wordmill.models.pt.winograd": "proves a pair",
               "wordmill.shards.content": "told by shards"},
    "smoke": {"components.smoke.job": "what a process is told", "components.smoke.launch": "starts it"},
}  # fmt: skip
# Distributions by the names that they are imported by, and those that compute nothing that a byte depends on.
DISTRIBUTIONS = {"cv2": "opencv-python-headless", "PIL": "pillow"}
BESIDE = {"google_crc32c", "lmdb", "onnx", "onnxruntime", "psutil", "safetensors", "xxhash", "yaml"}

VIEWS = dataclasses.replace(TRAIN, augment="views")
WORDS = dataclasses.replace(TRAIN, augment="words", augment_strength=0.5)
SVTR = dataclasses.replace(TRAIN, augment="svtr", augment_strength=0.5)
MINDSPORE = dataclasses.replace(TRAIN, framework="mindspore")
ENCODED, STREAMED = dataclasses.replace(DATA, stored="encoded"), dataclasses.replace(DATA, streamed=True)
# Of each stage the module that a run begins with, the framework, and its key.
STAGES = {
    **{f"shard {reader}": ("components.shard.stage", "pytorch", keys.of_shard(reader)) for reader in keys.READERS},
    "train": ("wordmill.training.pt.train", "pytorch", keys.of_train(TRAIN, DATA, "cpu")),
    "train views": ("wordmill.training.pt.train", "pytorch", keys.of_train(VIEWS, ENCODED, "npu")),
    "train words": ("wordmill.training.pt.train", "pytorch", keys.of_train(WORDS, ENCODED, "cpu")),
    "train svtr": ("wordmill.training.pt.train", "pytorch", keys.of_train(SVTR, ENCODED, "cpu")),
    "train streamed": ("wordmill.training.ms.train", "mindspore", keys.of_train(MINDSPORE, STREAMED, "npu")),
    "evaluate": ("components.evaluate.stage", "pytorch", keys.of_evaluate("pytorch", "cpu", "mindocr")),
    "evaluate fudan": ("components.evaluate.stage", "mindspore", keys.of_evaluate("mindspore", "npu", "fudan")),
    "export onnx": ("components.export.stage", "pytorch", keys.of_export("onnx")),
    "export mindir": ("components.export.stage", "mindspore", keys.of_export("mindir")),
    "smoke onnx": ("components.smoke.stage", "pytorch", keys.of_smoke("onnx")),
    "smoke mindir": ("components.smoke.stage", "mindspore", keys.of_smoke("mindir")),
}


@cache
def imports(module: str, framework: str) -> frozenset[str]:
    """Return what a module imports anywhere but for checkers, a framework's twin and programs by their names too."""
    [file] = files_of(module)
    tree, found = ast.parse(file.read_text(encoding="utf-8")), set()
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and len(node.args) == 2]
    told = {node.args[1]: first.value for node in calls if isinstance(first := node.args[0], ast.Constant)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if exists(name) else node.module for name in names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif told.get(node, framework) in PACKAGES.keys() - {framework}:
            continue  # twin("pytorch", "models.predict") is PyTorch's alone
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and not within(module, ORCHESTRATION):
            room, _, name = node.value.partition(".")
            found |= {other for other in (node.value, f"wordmill.{room}.{PACKAGES[framework]}.{name}") if exists(other)}
    return frozenset(found)


def exists(module: str) -> bool:
    """Tell whether this is the name of a module of this project."""
    ours = module.startswith(("wordmill.", "components."))
    return ours and ROOT.joinpath(*module.split(".")).with_suffix(".py").is_file()


def reached(root: str, framework: str) -> set[str]:
    """Return the modules of this project that a program may come to."""
    waiting, found = [root], set()
    while waiting:
        module = waiting.pop()
        if module not in found:
            found.add(module)
            waiting += [name for name in imports(module, framework) if exists(name)]
    return found


def named(ingredients: Ingredients) -> set[str]:
    """Return the modules that a key names."""
    files = {file for name in ingredients.code for file in files_of(name)}
    return {".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files}


def within(module: str, names: dict[str, str]) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in names)


@pytest.mark.parametrize("stage", STAGES)
def test_a_key_names_what_its_stage_runs_and_nothing_else(stage: str) -> None:
    root, framework, ingredients = STAGES[stage]
    kind, found, counted = stage.split()[0], reached(root, framework), named(ingredients)
    left_out = {module for module in found if within(module, ORCHESTRATION) or within(module, APART[kind])}
    assert found - left_out - counted == set(), "reached, and neither in the key nor orchestration"
    assert counted - found == set(), "in the key, and not reached"
    assert {module for module in counted if within(module, ORCHESTRATION)} == set(), "in the key, and orchestration"


def test_nothing_is_left_out_in_vain() -> None:
    found = {kind: set[str]() for kind in APART}
    for stage, (root, framework, _) in STAGES.items():
        found[stage.split()[0]] |= reached(root, framework)
    everything = set().union(*found.values())
    assert [name for name in ORCHESTRATION if not any(within(module, {name: ""}) for module in everything)] == []
    for kind, names in APART.items():
        assert [name for name in names if not any(within(module, {name: ""}) for module in found[kind])] == [], kind


@pytest.mark.parametrize("stage", STAGES)
def test_a_key_names_the_distributions_that_compute(stage: str) -> None:
    _, framework, ingredients = STAGES[stage]
    used = {name.split(".")[0] for module in named(ingredients) for name in imports(module, framework)}
    used -= {"wordmill", "components", *sys.stdlib_module_names}
    wanted = {DISTRIBUTIONS.get(name, name) for name in used - BESIDE}
    if stage.startswith("smoke"):  # opens each format's runtime where it is asked for
        wanted -= {"mindspore", "opencv-python-headless"} - set(ingredients.distributions)
    assert wanted - set(ingredients.distributions) == set()


@pytest.mark.parametrize("stage", STAGES)
def test_a_key_names_each_thing_once(stage: str) -> None:
    _, _, ingredients = STAGES[stage]
    for names in dataclasses.astuple(ingredients):
        assert len(names) == len(set(names))


def test_chips_and_protocols_add_what_they_need() -> None:
    assert set(keys.of_train(TRAIN, DATA, "npu").distributions) >= {"torch", "torch-npu", "CANN"}
    assert not {"torch-npu", "CANN"} & set(keys.of_train(TRAIN, DATA, "cuda").distributions)
    assert keys.of_evaluate("pytorch", "cpu", "fudan").data == ("wordmill/text/charsets/simplified.tsv",)
    assert (ROOT / keys.SIMPLIFIED).is_file()
    assert keys.of_evaluate("pytorch", "cpu", "mindocr").data == ()
    assert {kind for kind in ("onnx", "onnx_int8", "onnx_int8_qoperator", "mindir", "om", "lite")
            if "CANN" in keys.of_export(kind).distributions} == {"om", "lite"}  # fmt: skip
    assert "onnxruntime" in keys.of_smoke("onnx_int8").distributions


def test_what_moves_and_reports_is_in_no_key() -> None:
    for _, _, ingredients in STAGES.values():
        assert not [name for name in named(ingredients) if name.startswith(("wordmill.store", "components.train"))]


def test_a_file_of_a_key_is_read_where_it_lies() -> None:
    for _, _, ingredients in STAGES.values():
        assert set(ingredients.found()["data"]) == set(ingredients.data)
        assert all((ROOT / Path(name)).is_file() for name in ingredients.data)
