"""A recipe file with overrides, checked as a whole."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import yaml

from wordmill.recipe.parsing import nearest, parse_section, parse_value, read_yaml
from wordmill.recipe.rules import check_together
from wordmill.recipe.sections import SECTIONS, Gate, Recipe

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,39}")  # as Kubernetes, MLflow and S3 all take it


def load_recipe(path: Path, overrides: tuple[str, ...] = ()) -> Recipe:
    """Read a recipe file and apply overrides such as `train.epochs=1`; ValueError names file and key."""
    document = read_yaml(path)
    listed = document.get("benchmarks", [])
    for override in overrides:
        _override(document, override)
    where = path.name
    if not NAME.fullmatch(path.stem):
        raise ValueError(f"{where}: a recipe's models, runs and pipelines are called by its file: expected a name of "
                         "at most 40 letters from a to z, digits and the signs _ . -")  # fmt: skip
    unknown = sorted(set(document) - {*SECTIONS, "benchmarks"})
    if unknown:
        raise ValueError(f"{where}: unknown section '{unknown[0]}': {nearest(unknown[0], [*SECTIONS, 'benchmarks'])}")
    missing = [name for name in (*SECTIONS, "benchmarks") if name not in document]
    if missing:
        raise ValueError(f"{where}: section '{missing[0]}' is missing")
    benchmarks = parse_value(document["benchmarks"], tuple[str, ...], f"{where}: benchmarks")
    if not benchmarks:
        raise ValueError(f"{where}: benchmarks: the list is empty, at least one benchmark is needed")
    own = parse_value(listed, tuple[str, ...], f"{where}: benchmarks")
    sections: dict[str, Any] = {
        name: parse_section(kind, document[name], f"{where}: {name}") for name, kind in SECTIONS.items()
    }
    _check_gate(sections["gate"], own, benchmarks, f"{where}: gate")
    if "protocol" in document["train"]:
        raise ValueError(f"{where}: train.protocol: expected none: the best weights are chosen by evaluation.protocol")
    sections["train"] = dataclasses.replace(sections["train"], protocol=sections["evaluation"].protocol)
    # A run may measure fewer benchmarks or others: those of the file decide on a promotion.
    sections["gate"] = dataclasses.replace(sections["gate"], benchmarks=own)
    recipe = Recipe(name=path.stem, benchmarks=benchmarks, **sections)
    check_together(recipe, where)
    if both := sorted({*recipe.data.train} & {*recipe.data.val}):
        raise ValueError(f"{where}: data set '{both[0]}' is in data.train and in data.val: a set is for one of them")
    learnt = {*recipe.data.train, *recipe.data.val}
    if leaked := [name for name in benchmarks if name in learnt]:
        raise ValueError(f"{where}: benchmarks: '{leaked[0]}' is trained or validated on too: it would measure memory")
    return recipe


def _check_gate(gate: Gate, own: tuple[str, ...], measured: tuple[str, ...], where: str) -> None:
    """Refuse benchmarks without a floor, floors of no benchmark, and bounds that are no share, such as per cent."""
    if gate.benchmarks:
        raise ValueError(f"{where}.benchmarks: found {list(gate.benchmarks)}, expected none: they are the recipe's own")
    known = sorted({*own, *measured})
    for name in gate.floors:
        if name not in known:
            raise ValueError(f"{where}.floors: '{name}' is no benchmark here: {nearest(name, known)}")
    if bare := [name for name in own if name not in gate.floors]:
        raise ValueError(f"{where}.floors: no floor for {', '.join(bare)}: expected the least word accuracy, 0 to 1, "
                         "that a model may have there to be used")  # fmt: skip
    floors = {f"floors.{name}": floor for name, floor in gate.floors.items()}
    for key, bound in {"floor": gate.floor, "margin": gate.margin, **floors}.items():
        if not 0 <= bound <= 1:
            raise ValueError(f"{where}.{key}: found {bound}, expected a share of 0 to 1")


def _override(document: dict[str, Any], text: str) -> None:
    key, sign, value = text.partition("=")
    parts = key.strip().split(".")
    if not sign or not all(parts):
        raise ValueError(f"override '{text}': expected KEY=VALUE such as train.epochs=1")
    target = document
    for part in parts[:-1]:
        if not isinstance(target.get(part), dict):
            raise ValueError(f"override '{text}': unknown section '{part}': {nearest(part, list(SECTIONS))}")
        target = target[part]
    target[parts[-1]] = yaml.safe_load(value)
