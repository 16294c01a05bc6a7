"""Recipes: typed, frozen sections read from YAML or from the JSON text that a stage receives."""

import dataclasses
import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import yaml

Section = TypeVar("Section")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data:
    """What is trained on: data sets of the catalogue, the characters and the picture size."""

    train: tuple[str, ...]
    val: tuple[str, ...]
    charset: str
    height: int
    width: int
    channels: Literal[1, 3]
    label_policy: Literal["delete", "drop"] = (
        "delete"  # what a character outside the charset costs: itself or its sample
    )
    limit: int = 0  # use only the first so many samples of each training set; 0: all


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
    """The recogniser: what turns (N, C, H, W) into logits (N, T, classes)."""

    name: Literal["crnn", "rare", "seq2seq"]
    backbone: Literal["compact", "vgg7", "resnet34_vd", "mobilenet_v3"]
    neck: Literal["bilstm"]
    hidden: int
    layers: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train:
    """How it is trained; the batch is the global one, over all devices."""

    framework: Literal["pytorch", "mindspore"]
    epochs: int
    global_batch: int
    optimizer: Literal["adamw"]
    lr: float
    warmup_epochs: float
    weight_decay: float
    amp: Literal["O0", "O2", "O3"]
    seed: int
    clip_norm: float = 0.0  # 0: gradients are not clipped
    validations_per_epoch: int = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gate:
    """What a candidate must reach: a floor for the first model, a tolerance against the champion."""

    floor: float  # plain mean of the benchmarks' word accuracy, 0..1
    tolerance: float  # how far below the champion's mean it may lie, 0..1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Export:
    """The file formats made of the trained model and the largest logit difference that each may show."""

    formats: tuple[Literal["mindir", "onnx", "om"], ...]
    logit_tolerance: float = 1e-3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """One recogniser from data to exported files."""

    name: str
    data: Data
    model: Model
    train: Train
    benchmarks: tuple[str, ...]
    gate: Gate
    export: Export


SECTIONS: dict[str, type] = {"data": Data, "model": Model, "train": Train, "gate": Gate, "export": Export}


def nearest(word: str, known: list[str]) -> str:
    """Return a clause that lists the known words, the one that looks like `word` first."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.4)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return f"{hint}known are {', '.join(sorted(known))}"


def load_recipe(path: Path, overrides: tuple[str, ...] = ()) -> Recipe:
    """Read a recipe file and apply overrides such as `train.epochs=1`; ValueError names file and key."""
    document = read_yaml(path)
    for override in overrides:
        _override(document, override)
    where = path.name
    unknown = sorted(set(document) - {*SECTIONS, "benchmarks"})
    if unknown:
        raise ValueError(f"{where}: unknown section '{unknown[0]}': {nearest(unknown[0], [*SECTIONS, 'benchmarks'])}")
    missing = [name for name in (*SECTIONS, "benchmarks") if name not in document]
    if missing:
        raise ValueError(f"{where}: section '{missing[0]}' is missing")
    benchmarks = _value(document["benchmarks"], tuple[str, ...], f"{where}: benchmarks")
    if not benchmarks:
        raise ValueError(f"{where}: benchmarks: the list is empty, at least one benchmark is needed")
    sections: dict[str, Any] = {
        name: parse_section(kind, document[name], f"{where}: {name}") for name, kind in SECTIONS.items()
    }
    recipe = Recipe(name=path.stem, benchmarks=benchmarks, **sections)
    learnt = {*recipe.data.train, *recipe.data.val}
    if leaked := [name for name in benchmarks if name in learnt]:
        raise ValueError(f"{where}: benchmarks: '{leaked[0]}' is trained or validated on too: it would measure memory")
    return recipe


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file that must hold a mapping; ValueError names the file and the place."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not readable as YAML: {error}") from None
    if not isinstance(document, dict):
        raise ValueError(f"{path}: expected a mapping of keys to values, found {type(document).__name__}")
    return document


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


def parse_section(kind: type[Section], values: Any, where: str) -> Section:
    """Build a section from a mapping; unknown keys, missing keys and wrong types are ValueErrors that name them."""
    if not isinstance(values, Mapping):
        raise ValueError(f"{where}: expected a mapping, found {type(values).__name__} {values!r}")
    hints = get_type_hints(kind)
    for key in values:
        if key not in hints:
            raise ValueError(f"{where}: unknown key '{key}': {nearest(str(key), list(hints))}")
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        if field.name not in values and field.default is dataclasses.MISSING:
            raise ValueError(f"{where}: key '{field.name}' is missing")
    return kind(**{key: _value(value, hints[key], f"{where}.{key}") for key, value in values.items()})


def _value(value: Any, kind: Any, where: str) -> Any:
    """Check one value against its annotation and return it in that type."""
    if get_origin(kind) is Literal:
        return _choice(value, get_args(kind), where)
    if get_origin(kind) is tuple:
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"{where}: expected a list, found {type(value).__name__} {value!r}")
        return tuple(_value(item, get_args(kind)[0], f"{where}[{i}]") for i, item in enumerate(value))
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(
            f"{where}: expected {kind.__name__}, found {type(value).__name__} {value!r}{_hint(value, kind)}"
        )
    return value


def _choice(value: Any, known: tuple[Any, ...], where: str) -> Any:
    if value in known and type(value) in {type(item) for item in known}:
        return value
    raise ValueError(f"{where}: found {value!r}: {nearest(str(value), [str(item) for item in known])}")


def _hint(value: Any, kind: Any) -> str:
    """Explain YAML 1.1's reading of 5e-4 as text, the one trap that everybody meets."""
    if kind is not float or not isinstance(value, str):
        return ""
    try:
        float(value)
    except ValueError:
        return ""
    mantissa, _, exponent = value.lower().partition("e")
    return f": to YAML a number with an exponent needs a decimal point, write {mantissa}.0e{exponent}"


def to_json(section: Any) -> str:
    """Return the canonical JSON text of a section, the form in which a stage receives it."""
    return json.dumps(dataclasses.asdict(section), sort_keys=True)


def from_json(kind: type[Section], text: str) -> Section:
    """Read a section back from the JSON text that a stage received."""
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"section {kind.__name__.lower()}: not JSON: {error}") from None
    return parse_section(kind, values, f"section {kind.__name__.lower()}")
